"""A run of several seeds on disk and on the command line: its table, its seeds' folders, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pytest

from cnn_jax import cli, data
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import MLP
from cnn_jax.runs import Place, load_run
from cnn_jax.training import Recipe
from tests.tiny import make_folder


def make_run(path):
    """What a run of the seeds 4, 5 and 6 leaves, and others' folders beside."""
    make_folder(path, seeds=(4, 5, 6)).close()
    for name in ("checkpoints", "seed-4", "seed-5", "seed-6", "seed-7", "seed-4-notes", "seed-"):
        (path / name / "1").mkdir(parents=True)
    return path


def names(path):
    return {entry.name for entry in path.iterdir()}


def test_overwriting_takes_the_seeds_folders_and_no_others(tmp_path):
    make_folder(make_run(tmp_path), overwrite=True).close()
    assert names(tmp_path) == {"config.json", ".lock", "seed-7", "seed-4-notes", "seed-"}


def test_a_crash_while_overwriting_leaves_what_can_be_overwritten(tmp_path, monkeypatch):
    def crash(target, *arguments):
        if target.name == "seed-5":
            raise KeyboardInterrupt
        rmtree(target, *arguments)

    path, rmtree = make_run(tmp_path), shutil.rmtree
    for name in ("seed-7", "seed-4-notes", "seed-"):
        rmtree(path / name)
    monkeypatch.setattr(shutil, "rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        make_folder(path, overwrite=True)
    monkeypatch.undo()
    assert (path / "seed-5").exists()
    make_folder(path).close()
    assert names(path) == {"config.json", ".lock"}


def test_the_command_line_trains_seeds_and_reads_each(tmp_path, capsys, monkeypatch):
    path = tmp_path / "run"
    recipe = Recipe(model=MLP(features=(8,)), epochs=1, batch_size=256, validation=0.5)
    config = Experiment(recipe=recipe, seed=3, replicas=2, place=Place(out=path, report=False))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it for its process
    result = run_experiment(config, "mlp")
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    found = {row[0]: row for row in rows if len(row) == 7}
    for k, seed in enumerate(("3", "4")):
        expected = [f"{result.values(split)[k]:.2%}" for split in ("validation", "test", "best")]
        assert found[seed][2::2] == expected
    accuracy, (first, second) = result.summary("best"), result.values("best")
    assert found["mean"][6] == f"{(first + second) / 2:.2%}"
    assert found["std"][6] == f"{abs(first - second) / np.sqrt(2):.2%}"
    assert f"test accuracy {accuracy.percent()} (mean ± standard deviation over 2 seeds)" in out
    for k, seed in enumerate((3, 4)):
        run = load_run(path / f"seed-{seed}")
        assert run.evaluate(data.load("digits", "test")).accuracy == result.values("best")[k]

    monkeypatch.setattr(sys, "argv", ["cnn-jax", "evaluate", str(path)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (2, 1)
    assert "it trained 2; choose one of" in error
    assert "seed-3 to seed-4" in error
    again = dataclasses.replace(config, replicas=3, place=Place(out=path, report=False, resume=True))
    with pytest.raises(InputError, match=r"differ in seeds \(run \[3, 4\], now \[3, 4, 5\]\)"):
        run_experiment(again, "mlp")
