"""A sweep on the command line: its table, its folder, the run that it chooses, and what is refused."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.models import LeNet5
from cnn_jax.runs import load_run
from cnn_jax.runs.opening import check_input_sizes
from cnn_jax.runs.records import read_records
from tests.commands import run_command
from tests.small_sets import encoded
from tests.tiny import TinyNet

RATES = "optimizer.learning_rate = 1e-5, 1e-2"
PLAIN = "--model", "mlp(features=(8,))", "--epochs", "1", "--batch-size", "256", "--validation", "0.5"


@pytest.fixture
def call(monkeypatch, capsys):
    for split in ("train", "test"):  # what is said of that the first time is not looked at
        data.load("digits", split)
    capsys.readouterr()

    return functools.partial(run_command, monkeypatch, capsys)


def test_a_sweep_leaves_its_table_and_the_best_as_a_run(call, tmp_path):
    path = tmp_path / "sweep"
    options = "train", *PLAIN, "--replicas", "2", "--sweep", RATES, "--no-report", "--out", path
    code, out, err = call(*options)
    assert (code, err) == (0, "")
    found = json.loads((path / "sweep.json").read_text())
    assert found["chosen"] == 1
    means = [np.mean(one["values"]) for one in found["combinations"]]
    rows = {row[0]: row for row in map(str.split, out.splitlines()) if row and row[0] in ("1e-05", "0.01")}
    assert [rows[name][1] for name in ("1e-05", "0.01")] == [f"{mean:.2%}" for mean in means]
    assert rows["0.01"][-1] == "chosen"
    assert "chosen: optimizer.learning_rate = 0.01" in out
    assert (path / "sweep.md").read_text().count("\n") == 4
    assert {entry.name for entry in path.iterdir()} == {"sweep.json", "sweep.md", "trials", "best"}
    # No other has been shown the test images.
    for records in map(read_records, (path / "trials" / "1").glob("replica-*")):
        assert {record["split"] for record in records} <= {"batch", "train", "validation"}
    test = data.load("digits", "test")
    for k, seed in enumerate((0, 1)):
        own = path / "best" / f"seed-{seed}"
        last = {record["split"]: record for record in read_records(own)}
        assert last["validation"]["accuracy"] == found["combinations"][1]["values"][k]
        assert load_run(own).best
        assert f"{load_run(own).evaluate(test).accuracy:.2%}" in out

    for folder in (path, path / "trials" / "1"):
        code, _, err = call("evaluate", folder)
        assert (code, err.count("\n")) == (2, 1)
        assert str(path / "best") in err

    # Done again, it takes no step and says the same; and another sweep is another.
    code, again, _ = call(*options, "--resume")
    assert code == 0
    first, then = ([line for line in said.splitlines() if "%" in line] for said in (out, again))
    assert [line for line in first if not line.startswith("epoch")] == then
    code, _, err = call("train", *PLAIN, "--replicas", "2", "--sweep", f"{RATES}, 1e-3", "--out", path, "--resume")
    assert (code, err.count("\n")) == (2, 1)
    assert "sweep.optimizer.learning_rate" in err
    code, _, err = call(*options)
    assert (code, err) == (2, f"error: {path} holds a sweep: give --resume to continue it, --overwrite to replace it\n")
    code, _, err = call("train", *PLAIN, "--out", path)
    assert (code, err.count("\n")) == (2, 1)


def test_programs_one_after_the_other_and_one_seed(call, tmp_path):
    options = "train", *PLAIN, "--sweep", "batch_size = 128, 512", "--no-report", "--out", tmp_path
    code, out, err = call(*options, "--dry-run")
    assert (code, err, list(tmp_path.iterdir())) == (0, "", [])
    assert [row.split()[:2] for row in out.splitlines()[-2:]] == [["1", "1"], ["2", "1"]]
    code, out, err = call(*options)
    assert (code, err) == (0, "")
    assert load_run(tmp_path / "best").best
    code, out, err = call("evaluate", tmp_path / "best")
    assert (code, err) == (0, "")
    code, _, err = call(*options, "--overwrite")
    assert (code, err) == (0, "")


def test_models_of_other_sizes_get_the_same_images_or_are_refused(tmp_path):
    for k, name in enumerate(("cat", "dog") * 12):
        (tmp_path / name).mkdir(exist_ok=True)
        image = np.random.default_rng(k).integers(0, 255, (20 + k, 30, 1), np.uint8)
        (tmp_path / name / f"{k}.png").write_bytes(encoded(image))
    tried = TinyNet(), LeNet5()
    for source in (data.TFDS("digits"), data.Folder(str(tmp_path))):
        train = source("train", TinyNet.input_size)
        check_input_sizes(source, train, tried[:1], "auto")
        if isinstance(source, data.TFDS):
            check_input_sizes(source, train, tried, "auto")
    with pytest.raises(InputError, match=r"^sweep: expected models of one input size, .* got 6x6, 32x32;"):
        check_input_sizes(source, train, tried, "auto")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sweep", RATES), "expected images held out to choose by, got none; give --validation, such as 0.1"),
        ((*PLAIN, "--sweep", "optimizer.lr = 1, 2"), "expected a field of the recipe, one of"),
        ((*PLAIN, "--sweep", "epochs"), "expected FIELD = VALUE"),
        ((*PLAIN, "--sweep", "epochs = 1.5"), "whole number"),
        ((*PLAIN, "--sweep", ""), "expected a value"),
        ((*PLAIN, "--sweep"), "--sweep"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(call, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("train", *options)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert not list(tmp_path.iterdir())
