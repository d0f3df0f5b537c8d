"""Measuring a model on a data set, each image exactly once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnn_jax import data
from cnn_jax.training.step import Batch, Metrics

EVAL_BATCH = 256
EvalStep = Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's figures on a data set.

    Attributes:
        loss: mean loss over the images, with smoothed labels if they were smoothed in training.
        cross_entropy: mean cross-entropy over the images with the labels as they are, where `loss` smooths them; else
            None.
        accuracy: share of the images whose largest score is the label's, from 0 to 1.
        count: number of images.
        scores: float32 (count, classes), in the order of the data set.
    """

    loss: float
    cross_entropy: float | None = None
    accuracy: float
    count: int
    scores: np.ndarray

    def unsmoothed(self) -> dict[str, float]:
        """The cross-entropy by its name, to stand beside the loss where that smooths labels; else nothing."""
        return {} if self.cross_entropy is None else {"cross_entropy": self.cross_entropy}


def at_input_size(dataset: data.Dataset, size: tuple[int, int]) -> data.Dataset:
    """The data set with its images brought to a model's input (height, width)."""
    return dataclasses.replace(dataset, images=data.fit_images(dataset.images, size))


def evaluate(eval_step: EvalStep, variables: dict[str, Any], dataset: data.Dataset) -> Evaluation:
    """Runs a compiled `eval_step` over a data set whose images have the model's input size."""
    results = jax.device_get([eval_step(variables, batch) for batch in data.eval_batches(dataset, EVAL_BATCH)])
    return collect(results, len(dataset))


def collect(results: Sequence[tuple[dict[str, Any], np.ndarray]], count: int) -> Evaluation:
    """The figures of a data set of `count` images from what `eval_step` returned for its batches, in their order."""
    totals = {key: sum(float(sums[key]) for sums, _ in results) for key in results[0][0]}
    scores = np.concatenate([scores for _, scores in results])[:count]
    total = totals.pop("count")
    means = {key: value / total for key, value in totals.items()}
    return Evaluation(accuracy=means.pop("correct"), count=int(total), scores=scores, **means)


def by_class(
    labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Figures of each class, and the confusion matrix, by scikit-learn.

    Args:
        labels: int (N,).
        predicted: int (N,).
        names: of the classes.

    Returns:
        For each class its "name", "count", "precision", "recall" and "f1" (NaN where the denominator is 0), and
        int (classes, classes): how many images of the row's class were taken for the column's.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    indices = list(range(len(names)))
    figures = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=np.nan)
    classes = [
        {"name": name, "count": int(count), "precision": float(precision), "recall": float(recall), "f1": float(f1)}
        for name, precision, recall, f1, count in zip(names, *figures, strict=True)
    ]
    return classes, confusion_matrix(labels, predicted, labels=indices)
