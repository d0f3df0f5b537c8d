"""A square of an image that was brought to a random scale."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, PixelTransform, is_side
from cnn_jax.augment.resized_crop import resampled


@dataclass(frozen=True)
class ScaleCrop(PixelTransform):
    """The image resized so that its shorter side has a random length, and a square at a random place of that.

    Simonyan and Zisserman 2015, "Very deep convolutional networks", section 3.1; He, Zhang, Ren and Sun 2016, section
    3.4, have the shorter side between 256 and 480 pixels. Here both are one step: the square, to whole pixels of the
    image as it is, is brought to its size by `resampled`.
    """

    size: int = 224
    """Side of the square, in pixels."""
    smallest: int = 256
    """Least length of the shorter side, in pixels."""
    largest: int = 480
    """Greatest length of it."""

    def __post_init__(self) -> None:
        self.check("size", is_side, "a whole number of pixels, 1 or more")
        self.check(
            "smallest", lambda value: is_side(value) and value >= self.size, f"pixels, at least size, {self.size}"
        )
        least = self.smallest
        self.check("largest", lambda value: is_side(value) and value >= least, f"pixels, at least smallest, {least}")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The square, uint8 (size, size, C).

        With `lengths, places = jax.random.split(key)`: the shorter side gets the length `jax.random.uniform(lengths,
        (), minval=smallest, maxval=largest)`, so the square has size / length of its pixels, rounded, as its side, and
        begins at `jax.random.randint(places, (2,), 0, (H - side + 1, W - side + 1))`.
        """
        lengths, places = jax.random.split(context.key)
        length = jax.random.uniform(lengths, (), minval=self.smallest, maxval=self.largest)
        side = jnp.maximum(jnp.round(min(image.shape[:2]) * (self.size / length)), 1).astype(jnp.int32)
        top, left = jax.random.randint(places, (2,), 0, jnp.array(image.shape[:2]) - side + 1)
        square = resampled(image.astype(jnp.float32), (top, left), (side, side), self.size)
        return jnp.round(square).astype(jnp.uint8)
