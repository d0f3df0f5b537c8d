"""Operations on the pixels of one image, uint8 (H, W, C): what colour jitter and the random policies are made of.

They are those of Pillow that AutoAugment (Cubuk et al. 2019, table 6) chose from, with the arithmetic of torchvision:
what is no whole number is rounded down, grey is 0.2989 red + 0.587 green + 0.114 blue. Amounts may be traced. Images
have one channel or three.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision writes it


def brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Each value times a factor: 0 is black, 1 the image."""
    return _levels(image.astype(jnp.float32) * factor)


def contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """The image blended with its mean grey: 0 is that grey, 1 the image, more goes away from it."""
    return _blend(image, jnp.mean(_grey(image)), factor)


def saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """The image blended with itself in grey: 0 is grey, 1 the image, more has stronger colours."""
    return _blend(image, _grey(image), factor)


def sharpness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
    """The image blended with a smoothed one: 0 is smooth, 1 the image, more is sharper.

    Smoothed is the mean over 3x3 pixels, the one in the middle counting five times, rounded; the outermost pixels stay.
    """
    if min(image.shape[:2]) < 3:
        return image
    whole = image.astype(jnp.int32)
    rows = whole[:-2] + whole[1:-1] + whole[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * whole[1:-1, 1:-1]
    smooth = (2 * total + 13) // 26  # to the nearest: with 13 as the divisor there is never one halfway
    return image.at[1:-1, 1:-1].set(_blend(image[1:-1, 1:-1], smooth, factor))


def posterize(image: jax.Array, bits: jax.Array | int) -> jax.Array:
    """Only the highest bits of each value, 0 to 8 of them; the others become 0."""
    return image & (255 << (8 - jnp.asarray(bits, jnp.int32)) & 255).astype(jnp.uint8)


def solarize(image: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """Values from a threshold on inverted."""
    return jnp.where(image >= threshold, 255 - image, image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Each channel stretched so that its least value becomes 0 and its greatest 255; one of a single value stays."""
    whole = image.astype(jnp.int32)
    low, high = jnp.min(whole, axis=(0, 1)), jnp.max(whole, axis=(0, 1))
    return jnp.where(high > low, 255 * (whole - low) // jnp.maximum(high - low, 1), whole).astype(jnp.uint8)


def equalize(image: jax.Array) -> jax.Array:
    """Each channel with its levels moved so that they are about equally frequent, as Pillow does it.

    With a step of 1/255 of the pixels that have not the greatest value, rounded down, a level becomes the number of
    whole steps, beginning with half a one, in the pixels below it. Where the step is 0 the channel stays.
    """
    return jax.vmap(_equalize, -1, -1)(image)


def _equalize(channel: jax.Array) -> jax.Array:
    counts = jnp.zeros(256, jnp.int32).at[channel.reshape(-1)].add(1, mode="promise_in_bounds")
    below = jnp.cumsum(counts) - counts
    step = (channel.size - counts[jnp.max(channel)]) // 255
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255).astype(jnp.uint8)
    return jnp.where(step > 0, table.at[channel].get(mode="promise_in_bounds"), channel)


def move(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """The image seen through an affine map of its plane, each pixel taken from the nearest; outside it is black.

    Pixel (row, column) of the result is read at `matrix @ (row, column) + shift` of the image, coordinates being
    counted in pixels from the image's centre.

    Args:
      image: uint8 (H, W, C).
      matrix: float (2, 2), on (row, column).
      shift: float (2,), in pixels.
    """
    high, wide, channels = image.shape
    row, column = ((jnp.arange(side) - (side - 1) / 2) for side in (high, wide))
    # Written out: a product of matrices would be rounded to bfloat16 on some devices.
    places = (
        matrix[n, 0] * row[:, None] + matrix[n, 1] * column + shift[n] + (side - 1) / 2
        for n, side in enumerate((high, wide))
    )
    rows, columns = (jnp.round(place).astype(jnp.int32) for place in places)
    inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
    flat = jnp.where(inside, rows * wide + columns, 0)
    seen = image.reshape(high * wide, channels).at[flat].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], seen, jnp.uint8(0))


def _levels(values: jax.Array) -> jax.Array:
    return jnp.clip(values, 0, 255).astype(jnp.uint8)


def _blend(image: jax.Array, other: jax.Array, factor: jax.Array | float) -> jax.Array:
    values = image.astype(jnp.float32)
    # Exact, rounding down included, where the factor is 1 and where both are the same.
    return _levels(values + (1 - factor) * (other.astype(jnp.float32) - values))


def _grey(image: jax.Array) -> jax.Array:
    """Float32 (H, W, 1), whole numbers."""
    values = image.astype(jnp.float32)
    if image.shape[-1] == 1:
        return values
    red, green, blue = (values[..., n : n + 1] * weight for n, weight in enumerate(_GREY))
    return jnp.floor(red + green + blue)
