"""The mirror image, left to right."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, ImageTransform


@dataclass(frozen=True)
class Flip(ImageTransform):
    """An image or, at random, its mirror image, left and right exchanged."""

    probability: float = 0.5
    """How often an image is mirrored, from 0 to 1."""

    def __post_init__(self) -> None:
        self.check("probability", lambda value: 0 <= value <= 1, "a number from 0 to 1")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image or its mirror image: `jax.random.bernoulli(key, probability)` says which."""
        return jnp.where(jax.random.bernoulli(context.key, self.probability), image[:, ::-1], image)
