"""What a report on a run is made of, read from the run's folder and measured on its test images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from cnn_jax import data, detection
from cnn_jax.errors import InputError
from cnn_jax.runs.code import code_of
from cnn_jax.runs.folder import read_config
from cnn_jax.runs.load import Run, load_run
from cnn_jax.runs.records import read_records
from cnn_jax.runs.texts import recipe_from_json
from cnn_jax.training import Evaluation, Seen, see

_SCENES = 32  # that are looked at for false alarms and digits that were missed


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A run, and how it does on its test images.

    Attributes:
        run: the trained model.
        config: the run's `config.json`.
        records: the run's records.
        test: the test images, their labels and what the model makes of them; None if they are not available.
        missing: why they are not available, or "".
        detected: what a detector finds in scenes of test images; None for any other run.
        detection: its figures, as `detection.figures`: those that it recorded, else those of what is `detected`.
        seen: the batch of the first step, as the network was shown it; None if the training images are not available.
        unseen: why they are not, or "".
    """

    run: Run
    config: dict[str, Any]
    records: list[dict[str, Any]]
    test: Measured | None
    missing: str
    detected: detection.Found | None = None
    detection: dict[str, Any] | None = None
    seen: Seen | None = None
    unseen: str = ""

    def last(self, split: str) -> dict[str, Any] | None:
        """The last record of a split, if there is one."""
        return next((record for record in reversed(self.records) if record.get("split") == split), None)

    @property
    def seed(self) -> int | None:
        """The seed of the run; None where the configuration does not say."""
        found = seeds_of(self.config)
        return found[0] if found else None

    @property
    def steps_per_epoch(self) -> float | None:
        """Steps in which every training image is seen once; None where the configuration does not say."""
        batch = mapping(self.config["recipe"]).get("batch_size")
        return self.images / batch if self.images and isinstance(batch, int) and batch > 0 else None

    @property
    def images(self) -> int | None:
        """The number of training images; None where the configuration does not say."""
        images = mapping(self.config["data"]).get("images")
        return images if isinstance(images, int) and images > 0 else None

    @property
    def least_loss(self) -> float | None:
        """What the loss cannot fall below where labels are smoothed, the entropy of a target; else None."""
        return self.run.loss.floor(len(self.run.class_names))

    def beside_loss(self, names: Container[str]) -> list[str]:
        """Which of these are metrics with figures of their own, not accuracy nor what is shown with a smoothed loss."""
        apart = {"accuracy"} if self.least_loss is None else {"accuracy", "cross_entropy"}
        return [name for name in self.run.measures if name in names and name not in apart]

    @property
    def seconds(self) -> float | None:
        """How long training took, over all starts; None where no epoch has been recorded."""
        return (self.last("train") or {}).get("seconds")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Test images and what a model makes of them.

    Attributes:
        dataset: the images as they are in the data set, and their labels.
        evaluation: figures and scores.
        probabilities: float32 (N, classes).
    """

    dataset: data.Dataset
    evaluation: Evaluation
    probabilities: np.ndarray = field(repr=False)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """The class found most likely, int (N,)."""
        return self.probabilities.argmax(axis=1)


def mapping(value: Any) -> dict[str, Any]:
    """A value of a configuration that should be a mapping; an empty one if it is not."""
    return value if isinstance(value, dict) else {}


def seeds_of(config: dict[str, Any]) -> list[int]:
    """The seeds of the run whose `config.json` this is; none where it does not say."""
    seeds = config.get("seeds")
    return seeds if isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds) else []


def gather(path: Path) -> Findings:
    """Reads and measures a run.

    Raises:
        InputError: the folder holds no run, or one that is damaged or has no checkpoint.
    """
    run, config = load_run(path), read_config(path)
    test, missing, detected, figures = None, "", None, detection.read_figures(path)
    try:
        dataset = run.load_data("test")
        evaluation = run.evaluate(dataset)
        digits = detection.load_digits(run, "test")
    except InputError as error:
        missing = str(error)
    else:
        test = Measured(dataset=dataset, evaluation=evaluation, probabilities=softmax(evaluation.scores, axis=1))
        if digits is not None:
            # All scenes take as long as the report; where the run recorded its figures, a few are enough to look at.
            detected = detection.find_in_test_scenes(run, digits, _SCENES if figures else None)
            figures = figures or detection.figures(detected, digits.class_names)
    seen, unseen = None, ""
    try:
        seen = first_batch(run, config)
    except InputError as error:
        unseen = str(error)
    return Findings(
        run=run, config=config, records=read_records(path), test=test, missing=missing, detected=detected,
        detection=figures, seen=seen, unseen=unseen,
    )  # fmt: skip


def first_batch(run: Run, config: dict[str, Any]) -> Seen:
    """What the network was shown in the first step of a run, whose `config.json` this is.

    Raises:
        InputError: the training images are not available, or are others than those the run learned from.
    """
    try:
        recipe = recipe_from_json(config["recipe"], code_of(run.path, config))
        fingerprint = config["data"]["fingerprint"]
    except (KeyError, TypeError):
        raise InputError(f"{run.path}: expected a recipe of this version, found another") from None
    train = run.load_data("train")
    if train.fingerprint != fingerprint:
        raise InputError(f"{train.name}: expected the training images of the run, found others")
    train = dataclasses.replace(train, statistics=run.statistics)
    return see(recipe, train, seeds_of(config)[0])
