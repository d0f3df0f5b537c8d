"""Metrics: what is measured of scores beside the loss, a value an example, and its mean over the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from cnn_jax.parts import Part, snake


class Metric(Part):
    """The base of all metrics.

    Attributes:
        higher_is_better: which way is up, where a metric chooses the best checkpoint.
        is_share: whether values are from 0 to 1 and shown in percent.
    """

    higher_is_better: ClassVar[bool] = True
    is_share: ClassVar[bool] = False

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        """A value an example, or several.

        Args:
            scores: float32 (..., classes).
            targets: float32 (..., classes), the distribution of each example over the classes.

        Returns:
            float32 (...), or (..., k) where `finish` makes the metric of k means.
        """
        raise NotImplementedError

    def finish(self, means: Any) -> Any:
        """The metric, a scalar, from the mean over all examples of what a call gives: that mean itself."""
        return means

    @property
    def name(self) -> str:
        """What records and tables call it."""
        return snake(type(self).__name__)

    def shown(self, value: float) -> str:
        """A value for a table."""
        return f"{value:.2%}" if self.is_share else f"{value:.4f}"

    def rank(self, value: float) -> float:
        """The higher, the better."""
        return value if self.higher_is_better else -value


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of the examples whose largest score is that of their most likely class."""

    is_share: ClassVar[bool] = True

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        return (jnp.argmax(scores, axis=-1) == jnp.argmax(targets, axis=-1)).astype(jnp.float32)


@dataclass(frozen=True)
class TopK(Metric):
    """Share of the examples whose most likely class is among the k with the largest scores; called top5 for k = 5."""

    k: int = 5
    """How many."""
    is_share: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check("k", lambda k: k >= 1, "a whole number >= 1")

    @property
    def name(self) -> str:
        return f"top{self.k}"

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        label = jnp.argmax(targets, axis=-1, keepdims=True)
        own = jnp.take_along_axis(scores, label, axis=-1)
        # Ties go to the class that is named first, as in argmax.
        before = (scores > own) | ((scores == own) & (jnp.arange(scores.shape[-1]) < label))
        return (jnp.sum(before, axis=-1) < self.k).astype(jnp.float32)


@dataclass(frozen=True)
class CrossEntropy(Metric):
    """Log-loss: cross-entropy between the targets, not smoothed, and the softmax of the scores, in nats."""

    higher_is_better: ClassVar[bool] = False

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(scores, targets)


@dataclass(frozen=True)
class CalibrationError(Metric):
    """Expected calibration error: how far confidence is from accuracy, over bins of confidence (Guo et al. 2017).

    A bin's part is |accuracy - mean confidence| times its share of the examples.
    """

    bins: int = 15
    """Intervals of equal width that the largest probability of an example, its confidence, falls into."""
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check("bins", lambda bins: bins >= 1, "a whole number >= 1")

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        confidence = jnp.max(jax.nn.softmax(scores), axis=-1)
        right = Accuracy()(scores, targets)
        # Intervals are open below and closed above, as in the paper.
        own = jnp.clip(jnp.ceil(confidence * self.bins) - 1, 0, self.bins - 1).astype(jnp.int32)
        return jax.nn.one_hot(own, self.bins) * (right - confidence)[..., None]

    def finish(self, means: Any) -> Any:
        return abs(means).sum()
