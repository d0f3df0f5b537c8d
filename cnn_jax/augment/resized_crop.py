"""A random part of an image, brought to the image's size or another."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, PixelTransform, is_side
from cnn_jax.augment.rectangles import check_range, draw_rectangle

Number = int | jax.Array
"""A whole number, or an int32 scalar."""


@dataclass(frozen=True)
class RandomResizedCrop(PixelTransform):
    """A rectangle of the image brought to the image's own size, or to a square: Szegedy et al. 2015, "Going Deeper with
    Convolutions", section 6, who take 8 to 100 % of the area and an aspect from 3/4 to 4/3.

    To the image's own size it is interpolated bilinearly, which is all there is to it: a part is never made smaller. To
    a square it is brought by `resampled`. As in torchvision, the logarithm of the aspect is uniform.
    """

    smallest: float = 0.08
    """Least area of the rectangle, as a share of the image's."""
    largest: float = 1.0
    """Greatest area of it, as a share of the image's."""
    aspect: float = 4 / 3
    """Greatest ratio of its longer to its shorter side."""
    size: int | None = None
    """Side of the square that the rectangle becomes, in pixels; by default, or with None, the image keeps its size."""

    def __post_init__(self) -> None:
        check_range(self)
        self.check("size", lambda size: size is None or is_side(size), "a whole number of pixels, 1 or more, or None")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The part is `draw_rectangle(key, ...)`. Returns uint8, (size, size, C) or (H, W, C)."""
        box = draw_rectangle(context.key, (image.shape[0], image.shape[1]), self.smallest, self.largest, self.aspect)
        if self.size is not None:
            part = resampled(image.astype(jnp.float32), (box.top, box.left), (box.height, box.width), self.size)
            return jnp.round(part).astype(jnp.uint8)
        stretched = stretch(image.astype(jnp.float32), box.top, box.height, 0)
        stretched = stretch(stretched, box.left, box.width, 1)
        return jnp.round(stretched).astype(jnp.uint8)


def stretch(image: jax.Array, start: jax.Array, extent: jax.Array, axis: int) -> jax.Array:
    """The part of an image from `start` on along an axis, interpolated linearly over the whole length of it.

    Pixels are little squares: the centre of the n-th is n + 1/2. What would be read outside of the part is read at its
    edge.

    Args:
      image: float (H, W, C).
      start: int32 scalar, the first pixel of the part.
      extent: int32 scalar, how many there are, at most the length of the axis.
      axis: 0 or 1.
    """
    size = image.shape[axis]
    place = jnp.clip((jnp.arange(size) + 0.5) * (extent / size) - 0.5, 0, extent - 1)
    below = jnp.floor(place).astype(jnp.int32)
    share = jnp.expand_dims(place - below, (1, 2) if axis == 0 else (0, 2))
    low = jnp.take(image, start + below, axis, mode="clip")
    high = jnp.take(image, start + jnp.minimum(below + 1, extent - 1), axis, mode="clip")
    return low + share * (high - low)


def resampled(image: jax.Array, corner: tuple[Number, Number], extents: tuple[Number, Number], size: int) -> jax.Array:
    """A rectangle of an image brought to size x size pixels, as Pillow and torchvision do with bilinear filters.

    Along either axis the weights fall linearly from a new pixel's centre to nothing one old or new pixel away,
    whichever is wider, and add up to 1 over the pixels inside the rectangle.

    Args:
      image: float (H, W, C).
      corner: the first row and column of the rectangle, in whole pixels.
      extents: its height and width, in whole pixels.
      size: height and width of the result.

    Returns:
      float (size, size, C).
    """
    sides = zip(image.shape, corner, extents, strict=False)
    rows, columns = (_weights(side, start, extent, size, image.dtype) for side, start, extent in sides)
    product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)  # a level must not be lost to TF32
    return product("bw,awc->abc", columns, product("ah,hwc->awc", rows, image))


def _weights(side: int, start: Number, extent: Number, size: int, dtype: Any) -> jax.Array:
    """What each pixel of an axis counts for in each new one: (size, side)."""
    scale = jnp.asarray(extent, dtype) / size
    centres = start + (jnp.arange(size, dtype=dtype) + 0.5) * scale
    pixels = jnp.arange(side)
    away = jnp.abs(pixels.astype(dtype) + 0.5 - centres[:, None]) / jnp.maximum(scale, 1.0)
    inside = (pixels >= start) & (pixels < start + extent)
    weights = jnp.where(inside, jnp.maximum(1.0 - away, 0.0), 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)
