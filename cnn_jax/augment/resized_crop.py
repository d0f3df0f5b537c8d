"""A random part of an image, stretched to the image's size."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, PixelTransform
from cnn_jax.augment.rectangles import check_range, draw_rectangle


@dataclass(frozen=True)
class RandomResizedCrop(PixelTransform):
    """A rectangle of the image brought to the image's own size: Szegedy et al. 2015, "Going Deeper with Convolutions",
    section 6, who take 8 to 100 % of the area and an aspect from 3/4 to 4/3.

    It is interpolated bilinearly, which is all there is to it: a part is never made smaller. As in torchvision, the
    logarithm of the aspect is uniform.
    """

    smallest: float = 0.08
    """Least area of the rectangle, as a share of the image's."""
    largest: float = 1.0
    """Greatest area of it, as a share of the image's."""
    aspect: float = 4 / 3
    """Greatest ratio of its longer to its shorter side."""

    def __post_init__(self) -> None:
        check_range(self)

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The part is `draw_rectangle(key, ...)`."""
        box = draw_rectangle(context.key, (image.shape[0], image.shape[1]), self.smallest, self.largest, self.aspect)
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
