"""A square cut out of an image."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, ImageTransform, is_pixels


@dataclass(frozen=True)
class Cutout(ImageTransform):
    """A square of zeros somewhere in the image: DeVries and Taylor 2017, "Improved Regularization of CNNs with Cutout".

    The square's centre is any pixel of the image, each equally likely, so that part of the square may lie outside. It
    is zero in the normalised image.
    """

    size: int = 16
    """Side of the square in pixels; 0 cuts nothing out."""
    inside: bool = False
    """Whether the square lies in the image, at any place equally likely, as in airbench; by default its centre does."""

    def __post_init__(self) -> None:
        self.check("size", is_pixels, "a whole number of pixels, 0 or more")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image with rows and columns from centre - size // 2 to centre - size // 2 + size - 1 set to 0.

        The centre is `jax.random.randint(key, (2,), 0, (H, W))`, (row, column). With `inside` the square begins at
        `jax.random.randint(key, (2,), 0, (H - size + 1, W - size + 1))` instead.

        Raises:
          InputError: if the square is to lie in an image that is smaller.
        """
        sides = image.shape[:2]
        if self.inside:
            side = min(sides)
            self.check("size", lambda size: size <= side, f"at most the smaller side of the images, {side}")
            starts = jax.random.randint(context.key, (2,), 0, jnp.array(sides) - self.size + 1)
        else:
            starts = jax.random.randint(context.key, (2,), 0, jnp.array(sides)) - self.size // 2
        rows, columns = (
            (jnp.arange(side) >= start) & (jnp.arange(side) < start + self.size)
            for side, start in zip(sides, starts, strict=True)
        )
        return jnp.where((rows[:, None] & columns)[..., None], 0.0, image)
