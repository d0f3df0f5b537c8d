"""`cnn-jax compare`: what differs between runs, their figures and curves, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import random

import numpy as np
import pytest
from scipy import stats

from cnn_jax import pictures, training
from cnn_jax.errors import InputError
from cnn_jax.models import MLP
from cnn_jax.report.comparison import differing, figures, read_sides
from cnn_jax.runs.digests import seal
from cnn_jax.runs.folder import RunFolder
from cnn_jax.runs.texts import to_json
from cnn_jax.training import SGD, AdamW, Recipe
from tests.commands import run_command
from tests.test_fuzz_cli import changed, leaves

RECIPE = Recipe(model=MLP(features=(8,)), optimizer=SGD(0.1))


def leave(path, recipe=RECIPE, seeds=(0,), accuracies=(0.9,), name="bars"):
    """What a finished run leaves that is read here: its configuration and the records of its seeds."""
    data = {"name": name, "version": "1.0.0", "fingerprint": name, "images": 64}
    contents = {"recipe": to_json(recipe), "data": data, "seeds": list(seeds), "source": "tfds('bars')"}
    RunFolder(path, contents).close()
    config = json.loads((path / "config.json").read_text())
    for seed, accuracy in zip(seeds, accuracies, strict=True):
        own = path / f"seed-{seed}" if len(seeds) > 1 else path
        own.mkdir(exist_ok=True)
        (own / "config.json").write_text(json.dumps(seal({**config, "seeds": [seed]})))
        lines = []
        for epoch in (1, 2):
            share = accuracy * epoch / 2
            lines.append({"split": "train", "step": epoch, "loss": 1 / epoch, "accuracy": share, "seconds": 61.0})
            lines.append({"split": "test", "step": epoch, "loss": 1 - share, "accuracy": share})
        (own / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if len(seeds) > 1:
        (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def paths(tmp_path):
    other = dataclasses.replace(RECIPE, optimizer=SGD(0.2, momentum=0.5), batch_size=32)
    leave(tmp_path / "a", seeds=(0, 1, 2), accuracies=(0.9, 0.92, 0.91))
    leave(tmp_path / "b", other, seeds=(0, 1), accuracies=(0.95, 0.96))
    leave(tmp_path / "c", dataclasses.replace(RECIPE, optimizer=AdamW(0.01)), accuracies=(0.5,), name="dots")
    return [tmp_path / name for name in "abc"]


@pytest.fixture
def call(monkeypatch, capsys):
    return functools.partial(run_command, monkeypatch, capsys, "compare")


def test_options_that_differ_are_told_apart_to_the_field(paths):
    rows = {row[0]: row[1:] for row in differing(read_sides(paths[:2]))}
    assert rows == {
        "optimizer.learning_rate": ("0.1", "0.2"),
        "optimizer.momentum": ("0.9", "0.5"),
        "batch_size": ("128", "32"),
        "seeds": ("0 to 2", "0 to 1"),
    }
    rows = {row[0]: row[1:] for row in differing(read_sides(paths[::2]))}
    assert rows["optimizer"] == ("sgd(learning_rate=0.1)", "adamw(learning_rate=0.01)")
    assert rows["data"] == ("bars", "dots")


def test_figures_have_their_spread_and_welch_s_interval(paths):
    header, rows = figures(read_sides(paths))
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    first, second = np.array([0.9, 0.92, 0.91]), np.array([0.95, 0.96])
    assert found["a"]["test accuracy"] == f"91.00 ± {100 * first.std(ddof=1):.2f} %"
    low, high = stats.t.interval(0.95, 2, first.mean(), first.std(ddof=1) / np.sqrt(3))
    assert found["a"]["95 % interval"] == f"{100 * low:.2f} to {100 * high:.2f} %"
    low, high = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert found["b"]["against the first"] == f"+4.50 % ({100 * low:.2f} to {100 * high:.2f} %)"
    assert found["c"]["test accuracy"] == "50.00%"
    assert found["c"]["against the first"] == "-41.00 %"
    assert (found["b"]["training"], found["b"]["seeds"]) == ("1:01", "2")


def test_welch_s_interval_holds_the_difference_as_often_as_it_says():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = training.difference(draw.normal(2.0, 1.0, 5), draw.normal(1.0, 3.0, 8))
        held += found.low <= 1.0 <= found.high
    assert 0.92 < held / 400 < 0.98
    assert np.isnan(training.difference([1.0], [2.0, 3.0]).low)
    assert np.isnan(training.difference([1.0, 1.0], [1.0, 1.0]).low)


def test_curves_lie_over_each_other(paths):
    sides = read_sides(paths)
    runs = {side.name: side.records for side in sides}
    figure = pictures.curves_of_runs(runs, steps_per_epoch={side.name: side.steps_per_epoch for side in sides})
    loss, error = figure.axes
    assert [line.get_label() for line in loss.lines] == ["a", "b", "c"]
    np.testing.assert_allclose(error.lines[1].get_ydata(), [100 - 95.5 / 2, 100 - 95.5])
    np.testing.assert_allclose(loss.lines[0].get_xdata(), [2.0, 4.0])  # of 64 images, 128 a step
    assert len({line.get_color() for line in error.lines}) == 3


def test_the_command_prints_tables_and_writes_a_page(paths, call, tmp_path):
    page = tmp_path / "compare.html"
    code, out, err = call(*paths, "--out", page)
    assert (code, err) == (0, "")
    assert "+4.50 %" in out
    assert "optimizer" in out
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "sgd(learning_rate=0.1)" in text
    assert text.count("<svg") == 1
    assert "different images" in text
    assert "http" not in text.replace("http://www.w3.org", "")  # it needs nothing else


def test_what_cannot_be_compared_is_refused_in_one_line(paths, call, tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        (): "expected two runs or more to compare, got none",
        (paths[0],): "expected two runs or more to compare, got 1",
        (paths[0], tmp_path / "empty"): "empty: expected the folder of a run, found no config.json in it",
        (paths[0], tmp_path / "missing"): "missing: expected the folder of a run, there is no such folder",
        (paths[0], paths[1], paths[0] / "."): "expected each run once",
        (*paths, "--out", paths[2] / "config.json"): "expected a new file",
        (*paths, "--out", tmp_path / "no" / "page.html"): "expected a file in an existing folder",
    }
    for arguments, said in cases.items():
        code, out, err = call(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
    (paths[0] / "seed-1" / "config.json").unlink()
    with pytest.raises(InputError, match="resume the run"):
        read_sides(paths)


def test_configurations_with_keys_missing_or_of_another_kind_are_no_crash(paths, call):
    config = json.loads((paths[2] / "config.json").read_text())
    draw = random.Random(0)
    places = [at for at in leaves(config) if at[0] != "format"]
    values = [None, -1, 0, 1.5, "x", "", [], {}, True, [None], 10**30, float("nan"), "sgd(", "mlp()"]
    for at, value in [(at, ...) for at in places] + [(draw.choice(places), draw.choice(values)) for _ in range(60)]:
        (paths[2] / "config.json").write_text(json.dumps(seal(changed(config, at, value))))
        code, out, err = call(*paths)
        assert (code, err.count("\n"), bool(out)) in ((0, 0, True), (2, 1, False)), f"{at} = {value!r}: {err}"
