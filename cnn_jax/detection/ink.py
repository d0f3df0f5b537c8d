"""The box round what is drawn in the middle of a window."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_NEAR = 0.2  # of the window's side: the standard deviation of "in the middle"
_INK = 0.4  # of the way from the paper's level to the stroke's: what is above is ink
_INNER = 0.75  # of the window's sides: a digit lies within, and what it touches mostly beyond


def middle_box(window: jax.Array) -> jax.Array:
    """The tight box (4,) round the stroke in the middle of a window (H, W), light on dark.

    The stroke is all ink that hangs together, corner to corner too, with the pixel that is brightest weighted by a
    normal density round the window's centre, within the inner three quarters of the window's height and width. The
    paper's level is the window's median.
    """
    rows, columns = (jnp.arange(side) + 0.5 - side / 2 for side in window.shape)
    squared = (rows[:, None] / window.shape[0]) ** 2 + (columns / window.shape[1]) ** 2
    above = window - jnp.median(window)
    seed = jnp.argmax(above * jnp.exp(-squared / (2 * _NEAR**2)))
    inner_rows, inner_columns = (jnp.abs(axis) < _INNER / 2 * len(axis) for axis in (rows, columns))
    ink = (above > _INK * above.ravel()[seed]) & inner_rows[:, None] & inner_columns
    start = jnp.zeros(window.size, bool).at[seed].set(True).reshape(window.shape)

    def spread(stroke: jax.Array) -> jax.Array:
        padded = jnp.pad(stroke, 1)
        wide = padded[:-2] | padded[1:-1] | padded[2:]
        return ink & (wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:])

    def grew(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(state[0] != state[1])

    _, stroke = jax.lax.while_loop(grew, lambda state: (state[1], spread(state[1])), (start, spread(start)))
    return box_of(stroke)


def box_of(inked: jax.Array) -> jax.Array:
    """The tight box, float32 (4,), round the True pixels of bool (H, W); the whole where there is none."""
    (top, bottom), (left, right) = (_ends(jnp.any(inked, axis=axis)) for axis in (1, 0))
    return jnp.stack([top, left, bottom, right]).astype(jnp.float32)


def _ends(occupied: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.argmax(occupied), len(occupied) - jnp.argmax(occupied[::-1])
