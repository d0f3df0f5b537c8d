"""A picture moved by whole pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, ImageTransform, is_pixels

Mode = Literal["constant", "reflect", "edge"]


@dataclass(frozen=True)
class Crop(ImageTransform):
    """A window of the image's own size at a random place of the padded image: He, Zhang, Ren and Sun 2016, section 4.2.

    All places, (2 * padding + 1) ** 2 of them, are as likely.
    """

    padding: int = 4
    """Pixels added at each of the four sides; 0 changes nothing."""
    mode: Mode = "constant"
    """What is added: constant, 0 in the normalised image, which is grey, the training set's mean, where images are
    normalised by that; reflect, the picture mirrored at its edge pixels; edge, the edge pixels repeated."""

    def __post_init__(self) -> None:
        self.check("padding", is_pixels, "a whole number of pixels, 0 or more")
        self.check("mode", lambda value: value in get_args(Mode), f"one of {', '.join(get_args(Mode))}")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The window that begins at (row, column) `jax.random.randint(key, (2,), 0, 2 * padding + 1)` of the padded."""
        row, column = jax.random.randint(context.key, (2,), 0, 2 * self.padding + 1)
        sides = ((self.padding, self.padding),) * 2
        padded = jnp.pad(image, (*sides, (0, 0)), mode=self.mode)
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
