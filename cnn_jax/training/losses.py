"""Losses and the measures beside them, a value an example."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cnn_jax.training.config import LossConfig

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""(scores (..., classes), integer labels (...)) -> loss (...)."""


def make_loss(config: LossConfig) -> Loss:
    """The loss of a configuration.

    Returns:
        A function of scores, float (..., classes), and labels, int (...), that returns one float loss an example:
        the cross-entropy between the (smoothed) one-hot target and the softmax of the scores, in nats; the squared
        distance, summed over the classes, between the scores and the one-hot target; or, with the penalties
        y = -scores, y_label + log(exp(-j) + sum_i exp(-y_i)) (LeCun et al. 1998, equation 9).
    """

    def softmax_cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, scores.shape[-1]), config.label_smoothing)
        return optax.softmax_cross_entropy(scores, targets)

    def squared_error(scores: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.sum(optax.squared_error(scores, jax.nn.one_hot(labels, scores.shape[-1])), axis=-1)

    def map_criterion(scores: jax.Array, labels: jax.Array) -> jax.Array:
        # The cross-entropy with one class more, "rubbish", whose score is always -j.
        rubbish = jnp.full_like(scores[..., :1], -config.rubbish_penalty)
        return optax.softmax_cross_entropy_with_integer_labels(jnp.concatenate([scores, rubbish], axis=-1), labels)

    losses = {"softmax_cross_entropy": softmax_cross_entropy, "squared_error": squared_error, "map": map_criterion}
    return losses[config.name]


def beside_loss(config: LossConfig) -> dict[str, Loss]:
    """What is measured beside the loss: where it smooths the labels, "cross_entropy", with the labels as they are.

    A loss with smoothing cannot fall to 0 however sure and right the scores are, so by itself it says little.
    """
    return {"cross_entropy": optax.softmax_cross_entropy_with_integer_labels} if config.label_smoothing else {}


def correct(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest score is the label's, else 0.0; shapes as for a `Loss`."""
    return (jnp.argmax(scores, axis=-1) == labels).astype(jnp.float32)
