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

    All (2 * padding + 1) ** 2 places are equally likely. The padding is part of the compiled program's shapes: unlike
    the numbers of other transforms it cannot be traced.
    """

    padding: int = 4
    """Pixels added at each of the four sides; 0 changes nothing."""
    mode: Mode = "constant"
    """What is added: constant, 0 in the normalised image (whatever grey that is in the original); reflect, the picture
    mirrored at its edge pixels; edge, the edge pixels repeated."""

    def __post_init__(self) -> None:
        self.check("padding", is_pixels, "a whole number of pixels, 0 or more")
        self.check("mode", lambda value: value in get_args(Mode), f"one of {', '.join(get_args(Mode))}")

    @property
    def takes_pixels(self) -> bool:
        return self.mode != "constant"

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The window that begins at (row, column) `jax.random.randint(key, (2,), 0, 2 * padding + 1)` of the padded.

        Raises:
          InputError: if the padding is more than the image's smaller side.
        """
        side = min(image.shape[:2])
        self.check("padding", lambda value: value <= side, f"at most the smaller side of the images, {side}")
        row, column = jax.random.randint(context.key, (2,), 0, 2 * self.padding + 1)
        sides = ((self.padding, self.padding),) * 2
        padded = jnp.pad(image, (*sides, (0, 0)), mode=self.mode)
        return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
