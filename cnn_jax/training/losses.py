"""Losses, a value an example, of scores and the distributions that they should give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from cnn_jax.errors import InputError
from cnn_jax.parts import Part, is_concrete, is_non_negative, is_positive, is_share


class Loss(Part):
    """What is minimised: the base of all losses."""

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        """One loss an example.

        Args:
            scores: float (..., classes), as the model gives them.
            targets: float (..., classes), the distribution of each example over the classes.

        Returns:
            float (...), in the scores' dtype.
        """
        raise NotImplementedError

    def floor(self, classes: int) -> float | None:
        """What the loss cannot fall below with certain targets, where that is above 0 because they are smoothed."""
        return None


def _smoothed(share: float, classes: int) -> list[float]:
    """A certain target after smoothing, that of the right class first."""
    return [1 - share + share / classes] + (classes - 1) * [share / classes]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """Cross-entropy between the targets and the softmax of the scores, in nats."""

    label_smoothing: float = 0.0
    """Share of the targets spread evenly over all classes (Szegedy et al. 2016, section 7)."""
    class_weights: tuple[float, ...] = ()
    """What the loss of each class's share of a target counts for; with none, all count alike."""

    def __post_init__(self) -> None:
        self.check("label_smoothing", is_share, "a share from 0 to below 1")
        self.check("class_weights", lambda weights: all(map(is_non_negative, weights)), "numbers >= 0, one a class")

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(targets, self.label_smoothing)
        classes, weights = targets.shape[-1], self.class_weights
        if len(weights) not in (0, classes):
            raise InputError(f"class_weights: expected {classes}, one a class, got {len(weights)}")
        if len(weights):
            targets = targets * jnp.array(weights, targets.dtype)
        return optax.softmax_cross_entropy(scores, targets)

    def floor(self, classes: int) -> float | None:
        share = self.label_smoothing
        if not is_concrete(share) or not share or self.class_weights:
            return None
        return -sum(p * math.log(p) for p in _smoothed(share, classes))


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Cross-entropy of each class by itself, between the targets and the sigmoid of the scores, summed over classes.

    Wightman, Touvron and Jegou 2021, "ResNet strikes back", section 4.1, in place of the softmax. Their figures are
    means over the classes.
    """

    label_smoothing: float = 0.0
    """Share of the targets spread evenly over all classes."""
    threshold: float | None = None
    """Targets above it, mixed and smoothed, count as 1 and the others as 0: of a mixed image all classes that are
    enough of it are right. By default, or with None, they stay as they are."""

    def __post_init__(self) -> None:
        self.check("label_smoothing", is_share, "a share from 0 to below 1")
        self.check("threshold", lambda value: value is None or is_share(value), "a share from 0 to below 1, or None")

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(targets, self.label_smoothing)
        if self.threshold is not None:
            targets = (targets > self.threshold).astype(targets.dtype)
        return jnp.sum(optax.sigmoid_binary_cross_entropy(scores, targets), axis=-1)

    def floor(self, classes: int) -> float | None:
        share = self.label_smoothing
        if not is_concrete(share) or not share or self.threshold is not None:
            return None
        return -sum(p * math.log(p) + (1 - p) * math.log1p(-p) for p in _smoothed(share, classes))


@dataclass(frozen=True)
class Focal(Loss):
    """Focal loss of each class by itself, summed over classes (Lin et al. 2017, equation 5)."""

    gamma: float = 2.0
    """How much less an example counts that is nearly right already; 0 is `BinaryCrossEntropy`."""
    alpha: float | None = None
    """Weight of the right class, with 1 - alpha for the others; None weighs all alike."""

    def __post_init__(self) -> None:
        self.check("gamma", is_non_negative, "a number >= 0")
        self.check("alpha", lambda alpha: alpha is None or 0 < alpha < 1, "a share between 0 and 1, or None")

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        each = optax.sigmoid_focal_loss(scores, targets, alpha=self.alpha, gamma=self.gamma)
        return jnp.sum(each, axis=-1)


@dataclass(frozen=True)
class SquaredError(Loss):
    """Squared distance between scores and targets, summed over the classes."""

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.sum(optax.squared_error(scores, targets), axis=-1)


@dataclass(frozen=True)
class MAP(Loss):
    """The maximum a posteriori criterion for penalties, the negative scores (LeCun et al. 1998, equation 9).

    With penalties y = -scores: y_label + log(exp(-j) + sum_i exp(-y_i)), and for targets that are not certain its mean
    over the labels that they give.
    """

    rubbish_penalty: float = 10.0
    """The constant j, the penalty of a class for everything that is no digit: wrong classes whose penalty is well above
    it are not pushed further up."""

    def __post_init__(self) -> None:
        self.check("rubbish_penalty", is_positive, "a positive number")

    def __call__(self, scores: jax.Array, targets: jax.Array) -> jax.Array:
        # The cross-entropy with one class more, "rubbish", whose score is always -j and which no target has.
        rubbish = jnp.full_like(scores[..., :1], -self.rubbish_penalty)
        none = jnp.zeros_like(targets[..., :1])
        scores, targets = (jnp.concatenate(pair, axis=-1) for pair in ((scores, rubbish), (targets, none)))
        return optax.softmax_cross_entropy(scores, targets)
