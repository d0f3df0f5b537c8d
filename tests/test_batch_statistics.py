"""Batch statistics in training: they are kept, resumed, used in evaluation, and each seed's own; and the whole way."""

from __future__ import annotations

import contextlib
import io
import signal
import sys

import jax
import numpy as np
import pytest

from cnn_jax import cli, data, models
from cnn_jax.data import Arrays
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.runs import Place, fit, load_run
from cnn_jax.training import AdamW, Recipe
from tests.reports import assert_self_contained
from tests.test_training_loop import SignalAt
from tests.tiny import assert_close, assert_same_bits, make_dataset, make_execution, make_folder, make_recipe

pytestmark = pytest.mark.usefixtures("shared_engines")
TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")


class SmallResNet(models.ResNet):
    """On the images of `tests.tiny` as they are."""

    input_size = (6, 6)


MODEL = SmallResNet(stage_sizes=(1,), num_classes=3, features=4)
RECIPE, EXECUTION = make_recipe(model=MODEL, optimizer=AdamW(0.02)), make_execution()


def train_in(path, resume=False, **arguments):
    folder = make_folder(path, resume=resume)
    try:
        return fit(RECIPE, TRAIN, test=TEST, execution=EXECUTION, folder=folder, **arguments)
    finally:
        folder.close()


@pytest.fixture(scope="module")
def result():
    return fit(RECIPE, TRAIN, test=TEST, execution=EXECUTION)


def test_it_learns_and_its_statistics_become_those_of_the_data(result):
    assert result.values() > 0.9
    # What the stem makes of all training images, each once; the running mean has seen 31 batches.
    images = data.normalise(TRAIN.images, TRAIN.statistics)
    _, state = MODEL.apply(result.variables(), images, capture_intermediates=True)
    volume = np.asarray(state["intermediates"]["stem"]["__call__"][0])
    stats = result.state.batch_stats["stem_norm"]
    np.testing.assert_allclose(stats["mean"], volume.mean((0, 1, 2)), atol=0.2 * volume.std())
    np.testing.assert_allclose(stats["var"], volume.var((0, 1, 2)), rtol=0.5)


def test_evaluation_is_by_the_running_statistics(result):
    images = data.normalise(TEST.images, TEST.statistics)
    scores = MODEL.apply(result.variables(), images, train=False)
    np.testing.assert_allclose(result.evaluations["test"][0].scores, scores, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_carries_them(result, tmp_path):
    stopped = train_in(tmp_path, display=SignalAt(8, signal.SIGTERM))
    assert stopped.interrupted == signal.SIGTERM
    resumed = train_in(tmp_path, resume=True)
    assert_same_bits(resumed.state, result.state)
    assert resumed.values("test", "loss") == result.values("test", "loss")


def test_each_of_several_seeds_has_its_own(result):
    together = fit(RECIPE, TRAIN, seeds=(0, 1), test=TEST, execution=EXECUTION)
    assert_close(jax.tree.map(lambda leaf: leaf[0], together.state), result.state, rtol=1e-3, atol=1e-3)
    assert together.values()[0] == result.values()
    first, second = np.asarray(together.state.batch_stats["stem_norm"]["mean"])
    assert not np.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        pytest.param(models.CifarNet(features=(2, 2, 2)), "group_3/norm_2", marks=pytest.mark.slow),
        (models.ResNet18(features=2, stage_sizes=(1, 1)), "block_2/shortcut_norm"),
    ],
)
def test_from_the_options_to_the_report(model, layer, tmp_path, monkeypatch, capsys):
    digits = data.load("digits", "test")
    arrays = {f"{split}_images": digits.images[:80] for split in ("train", "test")}
    np.savez(tmp_path / "set.npz", **arrays, train_labels=digits.labels[:80], test_labels=digits.labels[:80])
    recipe, place = Recipe(model=model, epochs=1, batch_size=16), Place(out=tmp_path / "run")
    with contextlib.redirect_stdout(io.StringIO()):
        result = run_experiment(Experiment(recipe=recipe, data=Arrays(str(tmp_path / "set.npz")), place=place), "stats")
    html = (tmp_path / "run" / "report.html").read_text()
    assert_self_contained(html)
    assert f"Grad-CAM at {layer}" in html
    jax.tree.map(np.testing.assert_array_equal, load_run(tmp_path / "run").variables, result.variables())
    monkeypatch.setattr(sys, "argv", ["cnn-jax", "evaluate", str(tmp_path / "run")])
    cli.main()
    assert f"accuracy {result.values()[0]:.2%}" in capsys.readouterr().out
