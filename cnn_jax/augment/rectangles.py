"""Random rectangles inside an image, of a given range of areas and aspects."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import ImageTransform, is_share

_TRIES = 10


class Rectangle(NamedTuple):
    """Whole pixels of an image, int32 scalars, and whether one was found that fits."""

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    found: jax.Array


def check_range(transform: ImageTransform) -> None:
    """Raises `InputError` unless the fields `smallest`, `largest` and `aspect` of a transform make sense."""
    transform.check("smallest", lambda value: 0 < value <= 1, "a share above 0, at most 1")
    transform.check("largest", is_share, "a share from 0 to 1")
    smallest = getattr(transform, "smallest")  # noqa: B009
    if isinstance(smallest, int | float):
        transform.check("largest", lambda value: value >= smallest, f"at least smallest, {smallest}")
    transform.check("aspect", lambda value: value >= 1 and math.isfinite(value), "a number >= 1")


def draw_rectangle(key: jax.Array, sides: tuple[int, int], smallest: float, largest: float, aspect: float) -> Rectangle:
    """A rectangle of random area and aspect at a random place, all places being equally likely.

    With `sizes, aspects, places = jax.random.split(key, 3)`: the areas of ten candidates are
    `H * W * jax.random.uniform(sizes, (10,), minval=smallest, maxval=largest)`, the logarithms of height over width
    `jax.random.uniform(aspects, (10,), minval=-log(aspect), maxval=log(aspect))`, heights and widths being rounded; the
    first that has pixels and fits into the image is taken, at `jax.random.randint(places, (2,), 0, (H - height + 1,
    W - width + 1))`. Where none fits, it is the largest with a permitted aspect, in the middle.

    Args:
      key: a random key.
      sides: (H, W) of the image.
      smallest: least share of the image's area.
      largest: greatest share of it.
      aspect: greatest ratio of the longer to the shorter side.
    """
    sizes, aspects, places = jax.random.split(key, 3)
    high, wide = sides
    areas = high * wide * jax.random.uniform(sizes, (_TRIES,), minval=smallest, maxval=largest)
    bound = jnp.log(jnp.asarray(aspect, jnp.float32))
    ratios = jnp.exp(jax.random.uniform(aspects, (_TRIES,), minval=-bound, maxval=bound))
    heights, widths = jnp.round(jnp.sqrt(areas * ratios)), jnp.round(jnp.sqrt(areas / ratios))
    fits = (heights >= 1) & (heights <= high) & (widths >= 1) & (widths <= wide)
    found, first = jnp.any(fits), jnp.argmax(fits)
    middle = [jnp.minimum(1.0 * own, jnp.round(other * aspect)) for own, other in ((high, wide), (wide, high))]
    extents = jnp.stack([heights[first], widths[first]])
    extents = jnp.where(found, extents, jnp.stack(middle)).astype(jnp.int32)
    room = jnp.array(sides) - extents
    top, left = jnp.where(found, jax.random.randint(places, (2,), 0, room + 1), room // 2)
    return Rectangle(top, left, extents[0], extents[1], found)
