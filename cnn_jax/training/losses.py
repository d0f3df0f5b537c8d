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
        the cross-entropy between the (smoothed) one-hot target and the softmax of the scores, in nats; or the squared
        distance, summed over the classes, between the scores and the one-hot target.
    """

    def softmax_cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, scores.shape[-1]), config.label_smoothing)
        return optax.softmax_cross_entropy(scores, targets)

    def squared_error(scores: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.sum(optax.squared_error(scores, jax.nn.one_hot(labels, scores.shape[-1])), axis=-1)

    return {"softmax_cross_entropy": softmax_cross_entropy, "squared_error": squared_error}[config.name]


def correct(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """1.0 where the largest score is the label's, else 0.0; shapes as for a `Loss`."""
    return (jnp.argmax(scores, axis=-1) == labels).astype(jnp.float32)
