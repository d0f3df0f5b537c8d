"""A run finds its data again from wherever it is evaluated, or says which folder is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnn_jax import data, experiment
from cnn_jax.errors import InputError
from cnn_jax.runs.digests import seal
from cnn_jax.training import DataConfig, ExperimentConfig, load_run
from tests.damage import make_run


class StoppedError(Exception):
    """Instead of training."""


def test_a_relative_data_dir_is_kept_as_it_was_meant(tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise StoppedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "fit", stop)
    config = ExperimentConfig(data=DataConfig(dir=Path("sets")), out=Path("run"))
    with pytest.raises(StoppedError):
        experiment.run_experiment(config, "mlp", "mlp", {"features": (4,)})
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["config"]["data"]["dir"] == str(tmp_path / "sets")
    assert list((tmp_path / "sets").glob("digits/*"))


@pytest.fixture
def run(tmp_path):
    """A run that was given the folder `sets` for its data."""
    path = make_run(tmp_path / "run", 0, with_best=False).path
    config = json.loads((path / "config.json").read_text())
    config["config"]["data"]["dir"] = str(tmp_path / "sets")
    (path / "config.json").write_text(json.dumps(seal(config)))
    return load_run(path)


def test_data_are_looked_for_where_the_run_had_them(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        data, "load", lambda name, split, *, data_dir, image_size: asked.append((name, split, data_dir))
    )
    run.load_data("test")
    (tmp_path / "sets").mkdir()
    run.load_data("test")
    run.load_data("train", "mnist", tmp_path / "other")
    assert asked == [
        ("digits", "test", None),
        ("digits", "test", tmp_path / "sets"),
        ("mnist", "train", tmp_path / "other"),
    ]


def test_the_folder_that_is_missing_is_the_one_to_blame(run, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise InputError("no such data set in ~/tensorflow_datasets")

    monkeypatch.setattr(data, "load", refuse)
    with pytest.raises(
        InputError, match=f"^{tmp_path / 'sets'}: expected the folder of data sets that the run was given"
    ):
        run.load_data("test")
    with pytest.raises(InputError, match=r"^no such data set"):
        run.load_data("test", "mnits")
    (tmp_path / "sets").mkdir()
    with pytest.raises(InputError, match=r"^no such data set"):
        run.load_data("test")
