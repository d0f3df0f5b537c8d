"""Runs that average their weights: stopped and resumed they end in the same bits, and by the average they are used."""

from __future__ import annotations

import dataclasses
import shutil
import signal

import jax
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import Arrays
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import ConvNet
from cnn_jax.runs import Place, fit, load_run
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.folder import read_config
from cnn_jax.training import EMA, SGD, SWA, Lookahead, Recipe
from tests import quick
from tests.commands import run_command
from tests.test_averaging import NormAlone
from tests.test_training_loop import SignalAt
from tests.tiny import (
    assert_close,
    assert_same_bits,
    make_dataset,
    make_execution,
    make_folder,
    make_recipe,
    records,
    steps_kept,
)

pytestmark = pytest.mark.usefixtures("shared_engines")
TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")
apply = quick.jit(NormAlone().apply)
AVERAGING = [EMA(0.9), SWA(0.8), Lookahead(3, 0.5)]


def recipe_of(part, **changes):
    return make_recipe(model=NormAlone(), averaging=(part,), optimizer=SGD(0.1), validation=0.2, **changes)


def train_in(path, recipe, resume=False, **arguments):
    folder = make_folder(path, resume=resume)
    try:
        return fit(recipe, TRAIN, test=TEST, execution=make_execution(), folder=folder, **arguments)
    finally:
        folder.close()


@pytest.mark.parametrize("part", AVERAGING, ids=str)
def test_interrupted_and_resumed_is_undisturbed_and_measured_by_its_average(part, tmp_path):
    expected = train_in(tmp_path / "whole", recipe_of(part))
    stopped = train_in(tmp_path / "parts", recipe_of(part), display=SignalAt(11, signal.SIGTERM))
    assert stopped.interrupted == signal.SIGTERM
    result = train_in(tmp_path / "parts", recipe_of(part), resume=True)
    assert_same_bits(result.state, expected.state)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert result.values("best") == expected.values("best")

    # The figures are those of the averaged weights, which differ from the trained ones.
    images = data.normalise(TEST.images, TEST.statistics)
    average = result.state.average
    by_hand = {"params": average.params, "batch_stats": average.batch_stats}
    [found] = result.evaluations["test"]
    np.testing.assert_allclose(found.scores, apply(by_hand, images), rtol=1e-4, atol=1e-5)
    assert np.abs(found.scores - apply(result.state.variables, images)).max() > 5e-4
    jax.tree.map(np.testing.assert_array_equal, result.variables(), by_hand)

    # So is the best: its checkpoint's average measures as the record says.
    [step] = steps_kept(tmp_path / "parts", "best")
    checkpoints = Checkpoints(tmp_path / "parts", read_config(tmp_path / "parts")["run"], read_only=True)
    best, _ = checkpoints.restore(result.state, best=True)
    checkpoints.close()
    _, held_out = data.holdout(TRAIN, 0.2, 0)
    images = data.normalise(held_out.images, TRAIN.statistics)
    scores = np.asarray(apply(best.eval_variables, images))
    [record] = [r for r in records(tmp_path / "parts") if (r["split"], r["step"]) == ("validation", step)]
    assert np.mean(scores.argmax(-1) == held_out.labels) == pytest.approx(record["accuracy"])


def test_several_seeds_average_as_each_does_alone():
    recipe = recipe_of(SWA(0.6), epochs=2)
    both = fit(recipe, TRAIN, seeds=(2, 7), test=TEST, execution=make_execution())
    alone = fit(recipe, TRAIN, seeds=7, test=TEST, execution=make_execution())
    assert_close(both.variables(7), alone.variables(), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An ordinary run's folder, of averaged weights that are far from the trained ones."""
    root = tmp_path_factory.mktemp("averaged")
    arrays = {f"{s.split}_{name}": getattr(s, name) for s in (TRAIN, TEST) for name in ("images", "labels")}
    np.savez(root / "set.npz", **arrays)
    recipe = Recipe(model=ConvNet(filters=(4,)), epochs=3, batch_size=8, averaging=(EMA(0.95),))
    place = Place(out=root / "run", report=False)
    result = run_experiment(Experiment(recipe=recipe, data=Arrays(str(root / "set.npz")), place=place), "averaged")
    return root / "run", result


def test_a_run_is_read_with_its_averaged_weights(run):
    path, result = run
    loaded = load_run(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], result.state.average.params)
    [expected] = result.evaluations["test"]
    found = loaded.evaluate(loaded.load_data("test"))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    assert found.accuracy == expected.accuracy


def test_the_optimiser_is_not_read(run, tmp_path, monkeypatch, capsys):
    """Its arrays may be damaged: the model is read all the same, and `verify` says what is wrong."""
    path, result = run
    shutil.copytree(path, tmp_path / "run")
    other = dataclasses.replace(result.state, opt_state=jax.tree.map(lambda leaf: leaf + 1, result.state.opt_state))
    [step] = steps_kept(path)
    swapped = tmp_path / "swapped"
    identity = read_config(path)["run"]
    checkpoints = Checkpoints(swapped, identity)
    checkpoints.save(step, other, {"seeds": [{}]})
    checkpoints.close()
    kept = tmp_path / "run" / "checkpoints" / str(step)
    shutil.rmtree(kept / "state")
    shutil.copytree(swapped / "checkpoints" / str(step) / "state", kept / "state")
    loaded = load_run(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], result.state.average.params)
    code, out, err = run_command(monkeypatch, capsys, "verify", tmp_path / "run")
    assert code == 2
    assert "opt_state" in out + err
