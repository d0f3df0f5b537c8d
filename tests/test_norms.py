"""What each record says of a step: the learning rate, the norms of what moved, and the speed."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from cnn_jax.runs import fit
from cnn_jax.runs.engine import Engine
from cnn_jax.training import SGD, Cosine
from tests.tiny import make_dataset, make_execution, make_folder, make_recipe

TRAIN = make_dataset()
RECIPE = make_recipe(optimizer=SGD(0.05, momentum=0.9, clip_norm=0.5), schedule=Cosine(), epochs=5)
TOTAL, NAMES = 39, {"learning_rate", "grad_norm", "param_norm", "update_norm", "images_per_second"}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    folder = make_folder(path)
    fit(RECIPE, TRAIN, test=make_dataset(30, seed=1, split="test"), folder=folder, execution=make_execution())
    folder.close()
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def states():
    """The parameters before each step, and after the last."""
    engine = Engine(RECIPE, TRAIN, (0,), make_execution(steps_per_call=1), None, None)
    state, found = engine.init(), []
    for k in range(TOTAL):
        found.append(jax.device_get(state.params))
        state, _ = engine.train_steps(state, k, 1)
    return [*found, jax.device_get(state.params)]


def norm(tree):
    return np.sqrt(sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in jax.tree.leaves(tree)))


def moved(states, step):
    return norm(jax.tree.map(np.subtract, states[step], states[step - 1]))


def test_batches_and_epochs_have_them_all(lines):
    found = [line for line in lines if line["split"] in ("batch", "train")]
    assert [line["step"] for line in found if line["split"] == "batch"] == [16, 32]
    assert [line["step"] for line in found if line["split"] == "train"] == [8, 16, 23, 31, 39]
    for line in found:
        assert line.keys() >= NAMES
        assert all(np.isfinite(line[name]) for name in NAMES)
    assert all(line["images_per_second"] > 0 for line in found[1:])


def test_the_learning_rate_is_that_of_the_step(lines):
    schedule = Cosine()(0.05, TOTAL)
    for line in lines:
        if line["split"] in ("batch", "train"):
            assert line["learning_rate"] == pytest.approx(float(schedule(line["step"] - 1)), rel=1e-5)


def test_norms_are_those_of_states_one_step_apart(lines, states):
    for line in lines:
        step = line["step"]
        if line["split"] == "batch":
            assert line["param_norm"] == pytest.approx(norm(states[step - 1]), rel=1e-4)
            assert line["update_norm"] == pytest.approx(moved(states, step), rel=1e-3)
        elif line["split"] == "train":
            first = max([0, *(r["step"] for r in lines if r["split"] == "train" and r["step"] < step)])
            steps = range(first + 1, step + 1)
            assert line["param_norm"] == pytest.approx(np.mean([norm(states[k - 1]) for k in steps]), rel=1e-4)
            assert line["update_norm"] == pytest.approx(np.mean([moved(states, k) for k in steps]), rel=1e-3)


def test_the_gradient_is_measured_before_clipping():
    engine = Engine(RECIPE, TRAIN, (0,), make_execution(steps_per_call=1), None, None)
    without = make_recipe(optimizer=SGD(1.0, momentum=0.0), epochs=5)
    plain = Engine(without, TRAIN, (0,), make_execution(steps_per_call=1), None, None)
    _, clipped = engine.train_steps(engine.init(), 0, 1)
    _, metrics = plain.train_steps(plain.init(), 0, 1)
    np.testing.assert_allclose(clipped["grad_norm"], metrics["grad_norm"], rtol=1e-5)
    assert float(clipped["grad_norm"][0]) > 0.5
