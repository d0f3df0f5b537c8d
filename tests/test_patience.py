"""Early stopping: when no seed has got better on the validation images for so many epochs."""

from __future__ import annotations

import dataclasses
import signal

import numpy as np
import pytest

from cnn_jax.errors import InputError
from cnn_jax.runs import fit
from cnn_jax.runs.display import Display
from cnn_jax.training import SGD, CrossEntropy
from tests.test_training_loop import SignalAt
from tests.tiny import assert_same_bits, make_dataset, make_execution, make_folder, make_recipe, records, steps_kept

pytestmark = pytest.mark.usefixtures("shared_engines")
TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")
# Labels at random: what is learned from the others makes the cross-entropy of these worse, sooner or later.
NOISE = dataclasses.replace(
    make_dataset(40, seed=3), labels=np.random.default_rng(5).integers(0, 3, 40).astype(np.int32)
)
EPOCHS, EPOCH = 16, 61 / 8
RECIPE = make_recipe(epochs=EPOCHS, metrics=(CrossEntropy(),), patience=3, optimizer=SGD(0.1))


def train_in(path, recipe=RECIPE, resume=False, seeds=0, **arguments):
    folder = make_folder(path, resume=resume, seeds=np.atleast_1d(seeds).tolist())
    options = {"validation": NOISE, "test": TEST, "execution": make_execution()} | arguments
    try:
        return fit(recipe, TRAIN, folder=folder, seeds=seeds, **options)
    finally:
        folder.close()


def measured(path):
    """Cross-entropy on the validation images after each epoch."""
    return [r["cross_entropy"] for r in records(path) if r["split"] == "validation"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped")
    return path, train_in(path)


def test_it_stops_when_the_best_is_so_many_epochs_old(stopped):
    path, result = stopped
    values = measured(path)
    assert len(values) == int(np.argmin(values)) + 1 + 3 < EPOCHS
    assert int(result.state.step) == int(np.ceil(len(values) * EPOCH))
    assert steps_kept(path)[-1] == int(result.state.step)
    assert steps_kept(path, "best") == [int(np.ceil((np.argmin(values) + 1) * EPOCH))]
    assert result.interrupted is None
    assert set(result.evaluations) == {"validation", "test", "best"}


def test_until_then_it_is_the_run_without_patience(stopped, tmp_path):
    path, _ = stopped
    train_in(tmp_path, dataclasses.replace(RECIPE, patience=None))
    assert len(measured(tmp_path)) == EPOCHS
    assert measured(tmp_path)[: len(measured(path))] == measured(path)


def test_it_says_so(tmp_path, capsys):
    train_in(tmp_path, display=Display())
    assert "stopped: no better for 3 epochs" in capsys.readouterr().out


def test_resumed_when_finished_it_does_not_train_on(stopped, tmp_path):
    train_in(tmp_path)
    before = records(tmp_path), steps_kept(tmp_path)
    result = train_in(tmp_path, resume=True)
    assert_same_bits(result.state, stopped[1].state)
    assert result.values("best") == stopped[1].values("best")
    assert (records(tmp_path), steps_kept(tmp_path)) == before


def test_interrupted_and_resumed_it_stops_at_the_same_epoch(stopped, tmp_path):
    path, expected = stopped
    for step in (int(expected.state.step) - 20, int(expected.state.step) - 4):
        assert train_in(tmp_path, resume=True, display=SignalAt(step, signal.SIGTERM)).interrupted
    result = train_in(tmp_path, resume=True)
    assert_same_bits(result.state, expected.state)
    assert records(tmp_path) == records(path)


def test_several_seeds_stop_when_all_are_stale(tmp_path):
    seeds = (0, 1)
    result = train_in(tmp_path, seeds=seeds)
    of_seeds = [measured(tmp_path / f"seed-{seed}") for seed in seeds]
    [epochs] = {len(values) for values in of_seeds}
    since = [epochs - 1 - int(np.argmin(values)) for values in of_seeds]
    assert min(since) == 3 or epochs == EPOCHS
    assert result.state.step.tolist() == [int(np.ceil(epochs * EPOCH))] * 2


def test_without_images_held_out_it_is_refused_in_a_line():
    with pytest.raises(InputError, match=r"^patience: expected images held out to judge by, got none; give --validat"):
        fit(RECIPE, TRAIN, test=TEST)
    with pytest.raises(InputError, match=r"^patience: expected a whole number >= 1 or None, got 0$"):
        make_recipe(patience=0)
