"""Images at other sizes and places, by linear interpolation, with a wider, antialiasing filter when shrinking."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def paste(image: jax.Array, side: int, size: jax.Array | float, corner: jax.Array) -> jax.Array:
    """Lays an image (H, W) at `size` times its size, its corner at `corner` (2,), on an empty canvas (side, side).

    What does not lie on the canvas is cut off.
    """
    scale = jnp.full(2, size, jnp.float32)
    return jax.image.scale_and_translate(image, (side, side), (0, 1), scale, corner, "linear", antialias=True)


def paper(image: jax.Array) -> jax.Array:
    """The brightness of what an image (H, W) is drawn on: the median of every fourth pixel of every fourth row."""
    return jnp.median(image[::4, ::4])


def cut(image: jax.Array, side: int, size: jax.Array, centre: jax.Array) -> jax.Array:
    """Cuts a window (side, side) out of an image (H, W), seen at `size` times its size, round `centre` (2,).

    Where the window reaches beyond the image, the image's `paper` goes on.
    """
    level = paper(image)
    return level + paste(image - level, side, size, side / 2 - size * centre)
