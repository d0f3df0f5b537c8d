"""Runs whose images grow: a program a size, changed between epochs, whatever else happens."""

from __future__ import annotations

import contextlib
import dataclasses
import signal

import jax
import numpy as np
import pytest

from cnn_jax import data, runs, training
from cnn_jax.augment import Flip, GrowingCrop, RandomResizedCrop
from cnn_jax.models import ResNet18ImageNet
from cnn_jax.runs.engine import Engine
from cnn_jax.training import Recipe
from tests.test_training_loop import SignalAt
from tests.tiny import assert_close, assert_same_bits, make_execution, make_folder

pytestmark = pytest.mark.usefixtures("shared_engines")
SIZES = (6, 9)
RECIPE = Recipe(
    model=ResNet18ImageNet(stage_sizes=(1,), features=2, num_classes=3),
    augment=(GrowingCrop(SIZES, (0.5,), 0.3), Flip()), epochs=4, batch_size=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def train():
    draw = np.random.default_rng(0)
    labels = (np.arange(30) % 3).astype(np.int32)
    images = (draw.integers(0, 90, (30, 12, 10, 3)) + 120 * np.eye(3, dtype=int)[labels][:, None, None]).astype(
        np.uint8
    )
    return data.make_datasets("grown", tuple("abc"), {"train": (images, labels)})["train"]


@pytest.fixture(scope="module")
def whole(train):
    return runs.fit(RECIPE, train, execution=make_execution(steps_per_call=1))


def test_each_size_is_that_of_a_recipe_of_it_alone(train, whole):
    """The first two epochs, 60 images in 8 steps, are those of a crop to the first size, the others of the other."""
    assert RECIPE.stages(len(train)) == {0: 0.0, 8: 0.5}
    engines = []
    for size in SIZES:
        recipe = dataclasses.replace(RECIPE, augment=(RandomResizedCrop(0.3, size=size), Flip()))
        engines.append(Engine(recipe, train, (0,), runs.Execution(steps_per_call=1), None, None))
    state = engines[0].init()
    for step in range(engines[0].total):
        state, _ = engines[step >= 8].train_steps(state, step, 1)
    assert_same_bits(state, whole.state)


@pytest.mark.parametrize("stop", [5, 8, 11])
def test_stopped_before_at_and_after_the_change_it_ends_in_the_same_bits(train, whole, tmp_path, stop):
    for resume in (False, True):
        display = None if resume else SignalAt(stop, signal.SIGTERM)
        with contextlib.closing(make_folder(tmp_path / "run", resume=resume)) as folder:
            result = runs.fit(RECIPE, train, execution=make_execution(steps_per_call=1), folder=folder, display=display)
    assert_same_bits(result.state, whole.state)


def test_streamed_and_with_several_seeds_it_is_the_same(train, whole):
    streamed = runs.fit(RECIPE, train, execution=make_execution(steps_per_call=1, feed="streamed"))
    assert_same_bits(streamed.state, whole.state)
    several = runs.fit(RECIPE, train, seeds=(1, 0))
    assert_close(jax.tree.map(lambda leaf: leaf[1], several.state.params), whole.state.params)


def test_as_one_pure_function_it_is_the_same(train, whole):
    learn = training.make_train(RECIPE, train)
    state, metrics = jax.jit(learn)(jax.random.key(0), {}, training.train_arrays(RECIPE, train, 0))
    assert_close(state.params, whole.state.params)
    assert metrics["loss"].shape == (15,)


def test_what_is_seen_has_the_size_of_its_step(train):
    for step, size in ((7, 6), (8, 9)):
        assert training.see(RECIPE, train, 0, step).images.shape == (8, size, size, 3)
