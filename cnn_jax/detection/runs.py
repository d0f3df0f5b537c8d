"""Runs of detectors: whether a run is one, and what it is measured on."""

from __future__ import annotations

from cnn_jax import data
from cnn_jax.data.source import TFDS
from cnn_jax.detection import source
from cnn_jax.detection.measure import Found, find_in_scenes
from cnn_jax.detection.scenes import SceneConfig
from cnn_jax.detection.windows import BACKGROUND, framed
from cnn_jax.errors import InputError
from cnn_jax.runs.load import Run


def check_finds(run: Run) -> None:
    """InputError unless a run has learned to tell digits from background."""
    if run.class_names[-1] != BACKGROUND:
        raise InputError(
            f"{run.path}: expected a run with {BACKGROUND!r} as its last class, its classes are "
            f"{', '.join(run.class_names[:12])}; experiments/detect_digits.py trains one"
        )


def as_trained_on(run: Run, dataset: data.Dataset) -> data.Dataset:
    """A split as a run takes it: `test_windows` of it if the run learned from windows of such digits, else as it is."""
    if run.class_names != (*dataset.class_names, BACKGROUND):
        return dataset
    return source.test_windows(dataset, run.input_size[0])


def load_digits(run: Run, split: str) -> data.Dataset | None:
    """The digits that a run's windows are cut out of scenes of; None of a run that learned from no `source.Windows`.

    Raises:
        InputError: as `Run.load_data`.
    """
    own = run.source()
    return run.load_data(split, TFDS(own.name)) if isinstance(own, source.Windows) else None


def find_in_test_scenes(run: Run, digits: data.Dataset, scenes: int | None = None) -> Found:
    """What a run finds in scenes of test digits, by default `TEST_SCENES`, the same for every run on these digits.

    Raises:
        InputError: the run has no background class, or the images are not one-channel drawings, light on dark.
    """
    check_finds(run)
    digits = framed(digits, run.input_size[0])
    count = source.TEST_SCENES if scenes is None else scenes
    return find_in_scenes(run.model, run.variables, run.statistics, digits, source.test_key(), count, SceneConfig())
