"""Random affine distortions of an image."""

from __future__ import annotations

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from cnn_jax.augment.base import Context, ImageTransform
from cnn_jax.parts import is_non_negative


def warp(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """The image seen through an affine map of its plane, bilinearly interpolated.

    Pixel (row, column) of the result is read at `matrix @ (row, column) + shift` of the image, coordinates being
    counted in pixels from the image's centre. What lies outside continues the nearest pixel of the edge.

    Args:
      image: float (H, W, C).
      matrix: float (2, 2), on (row, column).
      shift: float (2,), in pixels.

    Returns:
      (H, W, C), in the image's dtype.
    """
    height, width, _ = image.shape
    extents = (jnp.arange(size, dtype=matrix.dtype) - (size - 1) / 2 for size in (height, width))
    grid = jnp.stack(jnp.meshgrid(*extents, indexing="ij"), axis=-1) @ matrix.T
    rows, columns = (grid[..., n] + shift[n] + (size - 1) / 2 for n, size in enumerate((height, width)))
    return jax.vmap(lambda c: map_coordinates(c, [rows, columns], order=1, mode="nearest"), -1, -1)(image)


def affine(
    key: jax.Array,
    image: jax.Array,
    *,
    translation: float,
    scale: float,
    squeeze: float,
    shear: float,
) -> jax.Array:
    """A random planar affine distortion of one image; `jax.vmap` over keys and images distorts a batch.

    The kinds are those of LeCun, Bottou, Bengio and Haffner 1998, section III.A: translations in both directions,
    scaling, squeezing (compressing horizontally while stretching vertically, or the reverse) and horizontal shearing.
    The paper names no magnitudes. Each is drawn uniformly and independently; 0 leaves it out.

    Args:
      key: a random key; equal keys give equal distortions.
      image: float (H, W, C); the edge should be background, since it is continued outside.
      translation: largest shift of the picture in either direction, in pixels.
      scale: largest change of size: the picture grows or shrinks by a factor up to 1 + scale.
      squeeze: largest change of the aspect: height is multiplied, and width divided, by a factor up to 1 + squeeze,
        or the reverse.
      shear: largest slant: columns moved per row.

    Returns:
      (H, W, C), in the image's dtype.
    """
    amounts = jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)
    size = (1.0 + scale) ** amounts[0]
    aspect = (1.0 + squeeze) ** amounts[1]
    # The result is read from the image, so the map is the inverse of what happens to the picture.
    matrix = jnp.array([[1.0 / (size * aspect), 0.0], [amounts[2] * shear, aspect / size]])
    return warp(image, matrix, amounts[3:] * translation)


@dataclass(frozen=True)
class Affine(ImageTransform):
    """Planar affine distortions of the kinds of LeCun, Bottou, Bengio and Haffner 1998, section III.A, see `affine`.

    The paper names no magnitudes. Each is a largest amount; 0 leaves its kind out.
    """

    translation: float = 2.0
    """Largest shift in either direction, in pixels."""
    scale: float = 0.1
    """Largest change of size: 0.1 grows or shrinks by up to 10 %."""
    squeeze: float = 0.1
    """Largest change of the aspect: taller and narrower, or the reverse."""
    shear: float = 0.2
    """Largest slant: columns moved per row."""

    def __post_init__(self) -> None:
        for field in fields(self):
            self.check(field.name, is_non_negative, "a number >= 0")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The distorted image: the five amounts are `jax.random.uniform(key, (5,), minval=-1.0, maxval=1.0)`."""
        return affine(
            context.key,
            image,
            translation=self.translation,
            scale=self.scale,
            squeeze=self.squeeze,
            shear=self.shear,
        )
