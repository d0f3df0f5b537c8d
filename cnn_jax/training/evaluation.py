"""The figures of a model on a data set, each image counted exactly once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnn_jax import data, models
from cnn_jax.data.encoded import fitted
from cnn_jax.training.metrics import Metric
from cnn_jax.training.step import Batch, Metrics

EVAL_BATCH = 256
EvalStep = Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's figures on a data set.

    Attributes:
        loss: mean loss over the images, with smoothed labels if they were smoothed in training.
        metrics: by name, each metric of the recipe, and always "accuracy"; where the loss smooths the labels, also
            "cross_entropy", with the labels as they are.
        count: number of images.
        scores: float32 (count, classes), in the order of the data set.
    """

    loss: float
    metrics: dict[str, float]
    count: int
    scores: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the images whose largest score is the label's, from 0 to 1."""
        return self.metrics["accuracy"]

    def values(self) -> dict[str, float]:
        """The loss and all metrics by name, the accuracy last."""
        others = {name: value for name, value in self.metrics.items() if name != "accuracy"}
        return {"loss": self.loss, **others, "accuracy": self.accuracy}


def at_input_size(dataset: data.Dataset, size: tuple[int, int]) -> data.Dataset:
    """The data set with its images brought to a model's input (height, width)."""
    return dataclasses.replace(dataset, images=fitted(dataset.images, size))


def input_size(model: Any, images: Any) -> tuple[int, int]:
    """The (height, width) that images are brought to for a model: its `input_size`, or else that of the images."""
    return models.input_size(model) or tuple(images.shape[-3:-1])


def evaluate(
    eval_step: EvalStep, variables: dict[str, Any], dataset: data.Dataset, metrics: Mapping[str, Metric]
) -> Evaluation:
    """Runs a compiled `eval_step` over a data set whose images have the model's input size."""
    results = jax.device_get([eval_step(variables, batch) for batch in data.eval_batches(dataset, EVAL_BATCH)])
    return collect(results, len(dataset), metrics)


def collect(
    results: Sequence[tuple[dict[str, Any], np.ndarray]], count: int, metrics: Mapping[str, Metric]
) -> Evaluation:
    """The figures of a data set of `count` images from what `eval_step` returned for its batches, in their order."""
    totals = {key: sum(np.asarray(sums[key], np.float64) for sums, _ in results) for key in results[0][0]}
    scores = np.concatenate([scores for _, scores in results])[:count]
    total = totals.pop("count")
    means = {key: value / total for key, value in totals.items()}
    loss = float(means.pop("loss"))
    values = {name: float(metrics[name].finish(mean)) for name, mean in means.items()}
    return Evaluation(loss=loss, metrics=values, count=int(total), scores=scores)


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
