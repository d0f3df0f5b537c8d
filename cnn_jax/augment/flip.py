"""The mirror image, left to right: at random, or every other epoch."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, ImageTransform, is_share


@dataclass(frozen=True)
class Flip(ImageTransform):
    """An image or, at random, its mirror image, left and right exchanged."""

    probability: float = 0.5
    """How often an image is mirrored, from 0 to 1."""

    def __post_init__(self) -> None:
        self.check("probability", is_share, "a number from 0 to 1")

    @property
    def takes_pixels(self) -> bool:
        return True

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image or its mirror image: `jax.random.bernoulli(key, probability)` says which."""
        return jnp.where(jax.random.bernoulli(context.key, self.probability), image[:, ::-1], image)


@dataclass(frozen=True)
class AlternatingFlip(ImageTransform):
    """An image in one epoch and its mirror image in the next: Jordan 2024, arXiv:2404.00498, "alternating flip".

    Which of the two comes first is drawn once a run for every image. So in each pair of epochs the network sees both,
    where random flips would show every other image the same way twice.
    """

    @property
    def takes_pixels(self) -> bool:
        return True

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The mirror image in even epochs if `jax.random.bernoulli(jax.random.fold_in(run, index))`, else in odd."""
        first = jax.random.bernoulli(jax.random.fold_in(context.run, context.index))
        return jnp.where(first ^ (context.epoch % 2 == 1), image[:, ::-1], image)
