"""What lies about in a scene and is no digit: bits of strokes, lines, ruled paper, a background that is not even.

Everything is drawn light on dark, ink from 0 to 1, onto canvases (side, side) in float32. What is random is decided by
numbers that are given, uniform from 0 to 1: XLA takes long to compile a program that draws its own at many places.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cnn_jax.detection.boxes import cover
from cnn_jax.detection.resampling import paste

TRIES = 16  # places a thing is tried at before it is left out
OF_FRAGMENT, OF_STROKE, OF_RULING, OF_PAPER = 4 + 2 * TRIES, 5 + 4 * TRIES, 4, 2  # random numbers that each takes
CLEAR = 2.0  # pixels of nothing between a digit's box and bright clutter
_POINTS = 12  # of a stroke's curve, joined by straight lines
_THICKEST = 3.5


def between(share: jax.Array, least: float, greatest: float) -> jax.Array:
    """The number that lies so far, 0 to 1, from `least` to `greatest`."""
    return least + share * (greatest - least)


def place(
    corners: jax.Array, size: jax.Array, side: int, taken: jax.Array, valid: jax.Array, overlap: float
) -> tuple[jax.Array, jax.Array]:
    """Finds room for a box, at the first of some places where it may lie.

    Args:
        corners: (T, 2), from 0 to 1: of all the places where the box lies wholly on the canvas, those to try.
        size: (2,), the box's height and width in pixels.
        side: of the canvas.
        taken: boxes (M, 4) already there.
        valid: bool (M,), which rows of `taken` hold one.
        overlap: the largest share of the smaller box's area that the box may have in common with one of those.

    Returns:
        The box (4,), and whether one of the places would do.
    """
    corners *= side - size
    boxes = jnp.concatenate([corners, corners + size], axis=1)
    fits = jnp.all((cover(boxes, taken) <= overlap) | ~valid, axis=1)
    return boxes[jnp.argmax(fits)], jnp.any(fits)


def grow(boxes: jax.Array, margin: float) -> jax.Array:
    """Boxes (..., 4) with `margin` pixels more on all sides."""
    return boxes + jnp.array([-margin, -margin, margin, margin])


def fragment(random: jax.Array, image: jax.Array, side: int, boxes: jax.Array, valid: jax.Array) -> jax.Array:
    """A small piece of a digit, clear of the digits' boxes; half the time, and where there is no room, nothing.

    A square of 5 to 11 pixels round some inked pixel: shorter than a digit, so that no whole stroke of a 1 is left.

    Args:
        random: (OF_FRAGMENT,).
        image: the digit (H, W).
        side: of the canvas.
        boxes: (M, 4), of the digits in the scene.
        valid: bool (M,).
    """
    ink = jnp.cumsum(image.ravel())
    middle = jnp.searchsorted(ink, random[0] * ink[-1])
    row, column = middle // image.shape[1], middle % image.shape[1]
    reach = between(random[1], 2.5, 5.5)
    rows, columns = jnp.arange(image.shape[0]), jnp.arange(image.shape[1])
    inside = (jnp.abs(rows - row) <= reach)[:, None] & (jnp.abs(columns - column) <= reach)[None, :]
    corners = random[4:].reshape(TRIES, 2)
    box, found = place(corners, jnp.full(2, 2 * reach), side, grow(boxes, CLEAR), valid, 0.0)
    corner = box[:2] + reach - jnp.stack([row, column]) - 0.5
    level = (found & (random[2] < 0.5)) * between(random[3], 0.5, 1.0)
    return level * paste(image * inside, side, 1.0, corner)


def stroke(random: jax.Array, side: int, boxes: jax.Array, valid: jax.Array) -> jax.Array:
    """A stroke clear of the digits' boxes, a tick of 2 to 8 pixels or a long one of 50 to 110; half the time, nothing.

    It is straight or bent to an arc, and wholly on the canvas. Lengths between are left out: a straight stroke as long
    as a digit is a 1, whoever drew it.
    """
    length = jnp.where(random[0] < 0.5, between(random[1], 50.0, 110.0), between(random[1], 2.0, 8.0))
    tries = random[5:].reshape(TRIES, 4)
    # The direction turns evenly along the curve, by two thirds of a full circle at the most.
    angles = 2 * math.pi * tries[:, 2:3] + between(tries[:, 3:], -4.0, 4.0) * jnp.linspace(0, 1, _POINTS - 1)
    steps = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1) * length / (_POINTS - 1)
    points = side * tries[:, None, :2] + jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0), (0, 0)))

    kept_clear, p = grow(boxes, CLEAR + _THICKEST / 2), points[:, :, None]
    in_box = jnp.all((p > kept_clear[:, :2]) & (p < kept_clear[:, 2:]), axis=-1) & valid
    fits = ~jnp.any(in_box, axis=(1, 2)) & jnp.all((points > 0) & (points < side), axis=(1, 2))
    curve = points[jnp.argmax(fits)]
    level = (jnp.any(fits) & (random[2] < 0.5)) * between(random[3], 0.5, 1.0)
    return level * jnp.clip(between(random[4], 1.0, _THICKEST) / 2 + 0.5 - _distance(curve, side), 0.0, 1.0)


def _distance(points: jax.Array, side: int) -> jax.Array:
    """Distances (side, side) of the pixels' centres from the line through points (P, 2)."""
    axis = jnp.arange(side) + 0.5
    begin, along = points[:-1], jnp.diff(points, axis=0)
    y, x = axis[:, None, None] - begin[:, 0], axis[None, :, None] - begin[:, 1]
    squared = jnp.maximum(jnp.sum(along**2, axis=1), 1e-6)
    share = jnp.clip((y * along[:, 0] + x * along[:, 1]) / squared, 0.0, 1.0)
    return jnp.sqrt(jnp.min((y - share * along[:, 0]) ** 2 + (x - share * along[:, 1]) ** 2, axis=-1))


def ruling(random: jax.Array, side: int) -> jax.Array:
    """Faint parallel lines all over, 12 to 40 pixels apart, at any angle, up to 0.2."""
    angle, spacing = math.pi * random[0], between(random[1], 12.0, 40.0)
    axis = jnp.arange(side) + 0.5
    across = axis[:, None] * jnp.cos(angle) + axis[None, :] * jnp.sin(angle)
    offset = jnp.mod(across + random[2] * spacing, spacing)
    return 0.2 * random[3] * jnp.clip(1.5 - jnp.minimum(offset, spacing - offset), 0.0, 1.0)


def paper(random: jax.Array, side: int) -> jax.Array:
    """A background that is lighter towards one side, from 0 to 0.1 at the most."""
    angle = 2 * math.pi * random[0]
    axis = jnp.linspace(-0.5, 0.5, side)
    slope = axis[:, None] * jnp.cos(angle) + axis[None, :] * jnp.sin(angle)
    return 0.1 * random[1] * (0.5 + slope / math.sqrt(2))
