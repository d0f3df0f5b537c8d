"""Where the time of a run goes: counted by purpose, shown and recorded for each epoch, and traced."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.augment import Crop
from cnn_jax.runs import fit
from cnn_jax.runs.display import Display
from cnn_jax.runs.peak import Peak, peak
from cnn_jax.runs.spending import Spending, shares
from cnn_jax.training import Recipe, make_functions
from tests.tiny import make_dataset, make_execution, make_folder, make_recipe

pytestmark = pytest.mark.usefixtures("shared_engines")


def test_the_innermost_purpose_counts():
    now = 0.0
    spending = Spending(clock=lambda: now)

    def wait(seconds):
        nonlocal now
        now += seconds

    wait(1)
    with spending.on("evaluation"):
        wait(2)
        with spending.on("saving"):
            wait(4)
        wait(8)
    with spending.on("steps"):
        assert spending.take() == {"other": 1, "evaluation": 10, "saving": 4}
        wait(85)
    assert spending.take() == {"steps": 85}
    with spending.on("steps"):
        for unneeded in (False, True):
            with spending.on("data") as count_as_before:
                wait(3)
                if unneeded:
                    count_as_before()
                wait(1)
        assert spending.take() == {"data": 5, "steps": 3}
    assert spending.take() == {}


def test_shares_are_text():
    assert shares({"steps": 90.0, "evaluation": 9.0, "saving": 0.6, "other": 0.4}) == (
        "steps 90 %, evaluation 9 %, saving 1 %"
    )
    assert shares({}) == ""


class Lines(Display):
    """Keeps what is shown."""

    def __init__(self):
        super().__init__(silent=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def test_each_epoch_says_where_its_time_went_and_ten_steps_are_traced(tmp_path):
    shown, folder = Lines(), make_folder(tmp_path)
    try:
        fit(make_recipe(), make_dataset(), test=make_dataset(9), folder=folder, display=shown,
            execution=make_execution(profile=True))  # fmt: skip
    finally:
        folder.close()
    epochs = [line for line in shown.lines if line.startswith("epoch")]
    assert len(epochs) == 4
    assert all("steps " in line.rpartition("(")[2] for line in epochs[1:])
    assert "compiling " in epochs[0]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if record["split"] == "train"]
    # All that went by until the last epoch's end is in its and the earlier epochs' seconds, but for the start. An
    # epoch's own evaluation is after its end.
    assert all(one["seconds_evaluation"] > 0 for one in trained)
    spent = sum(value for one in trained for name, value in one.items() if name.startswith("seconds_"))
    assert 0.5 * trained[-1]["seconds"] < spent <= trained[-1]["seconds"] + trained[-1]["seconds_evaluation"]
    assert {"seconds_compiling", "seconds_saving"} <= set(trained[0]) | set(trained[1])
    [said] = [line for line in shown.lines if "trace" in line]
    assert said == f"trace of steps up to 11 in {tmp_path / 'profile'}"
    [written] = (tmp_path / "profile" / "plugins" / "profile").glob("*/perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(written.read_bytes()))["traceEvents"]}
    assert "steps" in names
    make_folder(tmp_path, overwrite=True).close()
    assert not (tmp_path / "profile").exists()


def test_the_parts_of_a_step_are_named():
    functions = make_functions(make_recipe(augment=(Crop(1),)), make_dataset().statistics, (6, 6, 1), 3, 4)
    rows = np.arange(8, dtype=np.int32)
    batch = {"image": np.zeros((8, 6, 6, 1), np.uint8), "label": rows % 3, "index": rows, "epoch": rows}
    lowered = jax.jit(functions.train_step).lower(jax.eval_shape(functions.init, jax.random.key(0)), batch)
    text = lowered.as_text(debug_info=True)
    assert all(f"/{name}/" in text for name in ("augment", "model", "optimizer"))


def test_the_share_of_the_peak_is_that_of_published_figures(monkeypatch):
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12  # NVIDIA's data sheet, dense
    assert peak("NVIDIA A100-SXM4-80GB", "float32") == 156e12  # TF32
    assert peak("TPU v5 lite", "float32") == 197e12
    assert peak("cpu", "float32") is None
    # A product and a sum for each weight, once forward and twice backward.
    recipe = Recipe(model=models.MLP(features=(20,), num_classes=10), precision="bfloat16")
    chips = [SimpleNamespace(device_kind="TPU v4")] * 2
    state = SimpleNamespace(step=SimpleNamespace(devices=lambda: chips))
    share = Peak(recipe, (8, 8, 1)).share(state, 1e9)
    assert share == pytest.approx(6 * (64 * 20 + 20 * 10) * 1e9 / (2 * 275e12))
