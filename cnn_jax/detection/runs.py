"""Runs that learned to tell digits from background: what they learn from, and what they are measured on."""

from __future__ import annotations

import jax

from cnn_jax import data
from cnn_jax.detection.measure import Found, find_in_scenes
from cnn_jax.detection.scenes import SceneConfig
from cnn_jax.detection.windows import BACKGROUND, framed, window_dataset
from cnn_jax.errors import InputError
from cnn_jax.training import Run

TEST_SCENES = 256
_TRAIN, _TEST = 1, 2  # streams of keys, so that training and test scenes have nothing in common


def _test_key() -> jax.Array:
    """Of test scenes: the same for all runs, whatever seeds they were trained with."""
    return jax.random.fold_in(jax.random.key(0), _TEST)


def check_finds(run: Run) -> None:
    """InputError unless a run has learned to tell digits from background."""
    if run.class_names[-1] != BACKGROUND:
        raise InputError(
            f"{run.path}: expected a run with {BACKGROUND!r} as its last class, its classes are "
            f"{', '.join(run.class_names[:12])}; experiments/detect_digits.py trains one"
        )


def train_windows(digits: data.Dataset, side: int, seed: int, scenes: int) -> data.Dataset:
    """What a detector learns from: the windows, (side, side), of so many scenes of training digits.

    Raises:
        InputError: the images are not one-channel drawings, light on dark.
    """
    return window_dataset(framed(digits, side), jax.random.fold_in(jax.random.key(seed), _TRAIN), scenes, SceneConfig())


def test_windows(digits: data.Dataset, side: int) -> data.Dataset:
    """What its reading of single windows is tested on: the windows of `TEST_SCENES` scenes of test digits.

    Raises:
        InputError: the images are not one-channel drawings, light on dark.
    """
    return window_dataset(framed(digits, side), _test_key(), TEST_SCENES, SceneConfig())


def as_trained_on(run: Run, dataset: data.Dataset) -> data.Dataset:
    """A split as a run takes it: `test_windows` of it if the run learned from windows, else as it is."""
    if run.class_names != (*dataset.class_names, BACKGROUND):
        return dataset
    return test_windows(dataset, run.model.input_size[0])


def find_in_test_scenes(run: Run, digits: data.Dataset, scenes: int | None = None) -> Found:
    """What a run finds in scenes of test digits, by default `TEST_SCENES`, the same for every run on these digits.

    Raises:
        InputError: the run has no background class, or the images are not one-channel drawings, light on dark.
    """
    check_finds(run)
    digits = framed(digits, run.model.input_size[0])
    count = TEST_SCENES if scenes is None else scenes
    return find_in_scenes(run.model, run.variables, run.statistics, digits, _test_key(), count, SceneConfig())
