"""A run finds its data again from wherever it is evaluated, or says which folder is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnn_jax import experiment
from cnn_jax.data import TFDS, Folder, loading
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.models import MLP
from cnn_jax.runs import Place, load_run
from cnn_jax.runs.digests import seal
from cnn_jax.training import Recipe
from tests.damage import make_run


class StoppedError(Exception):
    """Instead of training."""


def test_a_relative_data_dir_is_kept_as_it_was_meant(tmp_path, monkeypatch):
    def stop(*arguments, **keywords):
        raise StoppedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "fit", stop)
    recipe, place = Recipe(model=MLP(features=(4,))), Place(out=Path("run"))
    with pytest.raises(StoppedError):
        experiment.run_experiment(Experiment(recipe=recipe, data=TFDS(dir="sets"), place=place), "mlp")
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["source"] == f"tfds(name='digits', dir={str(tmp_path / 'sets')!r}, strict=False)"
    assert list((tmp_path / "sets").glob("digits/*"))


@pytest.fixture
def run(tmp_path):
    """A run that was given the folder `sets` for its data."""
    path = make_run(tmp_path / "run", 0, with_best=False).path
    config = json.loads((path / "config.json").read_text())
    config["source"] = f"tfds(dir={str(tmp_path / 'sets')!r})"
    (path / "config.json").write_text(json.dumps(seal(config)))
    return load_run(path)


@pytest.fixture
def small(monkeypatch):
    """All data sets are small enough to be read whole, without a look at where they are."""
    monkeypatch.setattr(loading, "decoded_bytes", lambda *arguments, **keywords: 0)


@pytest.mark.usefixtures("small")
def test_data_are_looked_for_where_the_run_had_them(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        loading, "load", lambda name, split, *, data_dir, **others: asked.append((name, split, data_dir))
    )
    run.load_data("test")
    (tmp_path / "sets").mkdir()
    run.load_data("test")
    run.load_data("train", TFDS("mnist"), tmp_path / "other")
    run.load_data("train", TFDS("mnist", "mine"))
    run.load_data("train", TFDS("mnist"))
    assert asked == [
        ("digits", "test", None),
        ("digits", "test", str(tmp_path / "sets")),
        ("mnist", "train", str(tmp_path / "other")),
        ("mnist", "train", "mine"),
        ("mnist", "train", str(tmp_path / "sets")),
    ]


def test_a_folder_of_data_sets_is_for_data_sets_alone(run, tmp_path):
    with pytest.raises(InputError, match=r"--data-dir: expected none with folder\(path='photos'\)"):
        run.load_data("test", Folder("photos"), tmp_path)


@pytest.mark.usefixtures("small")
def test_the_folder_that_is_missing_is_the_one_to_blame(run, tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise InputError("no such data set in ~/tensorflow_datasets")

    monkeypatch.setattr(loading, "load", refuse)
    with pytest.raises(
        InputError, match=f"^{tmp_path / 'sets'}: expected the folder of data sets that the run was given"
    ):
        run.load_data("test")
    with pytest.raises(InputError, match=r"^no such data set"):
        run.load_data("test", TFDS("mnits"))
    (tmp_path / "sets").mkdir()
    with pytest.raises(InputError, match=r"^no such data set"):
        run.load_data("test")
