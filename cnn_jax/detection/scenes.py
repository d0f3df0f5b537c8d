"""Scenes of digits, as a pure function of a key and of the digits to draw."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.detection import clutter
from cnn_jax.detection.ink import box_of
from cnn_jax.detection.resampling import paste

_OF_DIGIT = 3 + 2 * clutter.TRIES  # random numbers that a digit takes
INKED = 0.25  # of an image's brightest pixel: what is brighter is ink, as for `data.Ink.extent`


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What scenes look like."""

    side: int = 128
    """Height and width in pixels."""
    most: int = 8
    """Digits at the most; their number is uniform from 1 to this, less those for which no room is found."""
    sizes: tuple[float, float] = (0.75, 1.5)
    """Least and greatest size of a digit, uniform between: 1 is the size of its own image."""
    overlap: float = 0.1
    """Share of the smaller of two digits' boxes that they may have in common at the most."""
    fragments: int = 4
    """Pieces of digits, each there with probability one half."""
    strokes: int = 4
    """Ticks and long strokes, each there with probability one half."""


class Scene(NamedTuple):
    """A picture and what there is to find in it, M = `SceneConfig.most` rows.

    Attributes:
        image: uint8 (side, side, 1), light on dark.
        boxes: float32 (M, 4), (top, left, bottom, right) in pixels, as `ink_box`; 0 where not valid.
        labels: int32 (M,); -1 where not valid.
        valid: bool (M,); rows that are False hold no digit.
    """

    image: jax.Array
    boxes: jax.Array
    labels: jax.Array
    valid: jax.Array


def ink_box(image: jax.Array) -> jax.Array:
    """The tight box (4,) round what is drawn in an image (H, W): all pixels above a quarter of the brightest."""
    return box_of(image > INKED * jnp.max(image))


def make_scene(key: jax.Array, images: jax.Array, labels: jax.Array, config: SceneConfig) -> Scene:
    """Draws a scene; equal arguments give equal scenes. Made to be jitted, with `config` static, and vmapped over keys.

    The true box of a digit is the tight box round its ink, `ink_box` of its own image scaled and moved with it, so a 1
    is narrow. Digits are drawn one after another, each at the first of 16 random places where its box lies wholly on
    the canvas and has at most `config.overlap` of the smaller box's area in common with any box there, else not at all.
    Each has 0.65 to 1 of full brightness. Bright clutter (`clutter.fragment`, `clutter.stroke`) stays 2 pixels clear of
    the digits' boxes; ruled lines up to 0.2, a background up to 0.1 and noise of standard deviation up to 0.06 go over
    everything.

    Args:
        key: random key.
        images: uint8 (N, H, W, 1), digits light on dark.
        labels: int (N,).
        config: what scenes look like.
    """
    shapes = [
        (config.most, _OF_DIGIT), (config.fragments, 1 + clutter.OF_FRAGMENT), (config.strokes, clutter.OF_STROKE),
        (clutter.OF_RULING,), (clutter.OF_PAPER,), (2,), (config.side, config.side),
    ]  # fmt: skip
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    pieces = jnp.split(jax.random.uniform(key, (ends[-1],)), ends[:-1])
    digits, fragments, strokes, lines, slope, (count, spread), noise = (
        piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)
    )
    picked = (len(images) * jnp.concatenate([digits[:, 0], fragments[:, 0]])).astype(int)
    inks = jnp.asarray(images)[picked, :, :, 0].astype(jnp.float32) / 255

    def draw_digit(drawn: tuple, inputs: tuple) -> tuple[tuple, None]:
        canvas, boxes, valid = drawn
        row, ink, random = inputs
        size, level = clutter.between(random[1], *config.sizes), clutter.between(random[2], 0.65, 1.0)
        own, corners = ink_box(ink), random[3:].reshape(clutter.TRIES, 2)
        box, found = clutter.place(corners, size * (own[2:] - own[:2]), config.side, boxes, valid, config.overlap)
        there = found & (row < 1 + jnp.floor(config.most * count))
        drawing = there * level * paste(ink, config.side, size, box[:2] - size * own[:2])
        return (jnp.maximum(canvas, drawing), boxes.at[row].set(there * box), valid.at[row].set(there)), None

    empty = jnp.zeros((config.side, config.side)), jnp.zeros((config.most, 4)), jnp.zeros(config.most, bool)
    rows = jnp.arange(config.most), inks[: config.most], digits
    (canvas, boxes, valid), _ = jax.lax.scan(draw_digit, empty, rows)

    def add_fragment(canvas: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
        random, ink = inputs
        return jnp.maximum(canvas, clutter.fragment(random, ink, config.side, boxes, valid)), None

    def add_stroke(canvas: jax.Array, random: jax.Array) -> tuple[jax.Array, None]:
        return jnp.maximum(canvas, clutter.stroke(random, config.side, boxes, valid)), None

    canvas, _ = jax.lax.scan(add_fragment, canvas, (fragments[:, 1:], inks[config.most :]))
    canvas, _ = jax.lax.scan(add_stroke, canvas, strokes)
    canvas = jnp.maximum(canvas, clutter.ruling(lines, config.side)) + clutter.paper(slope, config.side)
    canvas += 0.06 * spread * math.sqrt(2) * jax.lax.erf_inv(2 * jnp.maximum(noise, 1e-6) - 1)  # normal deviates
    image = jnp.rint(255 * jnp.clip(canvas, 0.0, 1.0)).astype(jnp.uint8)[..., None]
    return Scene(
        image, boxes, jnp.where(valid, jnp.asarray(labels)[picked[: config.most]], -1).astype(jnp.int32), valid
    )
