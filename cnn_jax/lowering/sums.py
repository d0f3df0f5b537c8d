"""Sums and means over windows and their gradient, two linear operations of which each is lowered to XLA in its own way.

Each is the transpose of the other, so that they can be differentiated any number of times in either mode.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from cnn_jax.lowering import choice, direct
from cnn_jax.lowering.geometry import Windows
from cnn_jax.lowering.primitive import adds_up, define
from cnn_jax.lowering.products import wide
from cnn_jax.lowering.slices import settled, slices


@dataclass(frozen=True)
class Sums:
    """Windows of which each gives its sum, divided by `divisor`."""

    windows: Windows
    divisor: int


def window_sum(x: jax.Array, geometry: Sums) -> jax.Array:
    """Sum of x (N, *size, C) over each window, divided, to (N, *out, C)."""
    return window_sum_p.bind(x, geometry=geometry)


def _direct_sum(x: jax.Array, *, geometry: Sums) -> jax.Array:
    w, divisor = geometry.windows, geometry.divisor
    return direct.reduce_window(x, "sum", window=w.window, strides=w.strides, padding=w.padding, divisor=divisor)


def _direct_spread(y: jax.Array, *, geometry: Sums) -> jax.Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.windows.size, y.shape[-1]), y.dtype)
    return jax.linear_transpose(functools.partial(_direct_sum, geometry=geometry), x)(y)[0]


def _sliced_sum(x: jax.Array, *, geometry: Sums) -> jax.Array:
    """Strided slices added up, one per place in the window.

    Without the barrier behind XLA adds up again for every use.
    """
    pieces = slices(settled(x, geometry.windows), geometry.windows, jnp.zeros((), x.dtype))
    total = functools.reduce(lax.add, [piece.astype(wide(x.dtype)) for piece in pieces])
    return lax.optimization_barrier(direct.divided(total.astype(x.dtype), geometry.divisor))


def _repeated(y: jax.Array, *, geometry: Sums) -> jax.Array:
    """The transpose, where windows lie side by side: each cotangent repeated over its window."""
    windows = geometry.windows
    n, *out, c = y.shape
    split = tuple(s for pair in zip(out, windows.window, strict=True) for s in pair)
    y = lax.broadcast_in_dim(
        direct.divided(y, geometry.divisor), (n, *split, c), (0, *range(1, len(split), 2), len(split) + 1)
    )
    covered = [o * w for o, w in zip(out, windows.window, strict=True)]
    config = [(0, 0, 0), *((0, size - c, 0) for size, c in zip(windows.size, covered, strict=True)), (0, 0, 0)]
    return lax.pad(y.reshape(n, *covered, c), jnp.zeros((), y.dtype), config)


def _chosen_sum(x: jax.Array, *, geometry: Sums) -> jax.Array:
    return (_sliced_sum if choice.adds_slices(geometry.windows, x.shape) else _direct_sum)(x, geometry=geometry)


def _chosen_spread(y: jax.Array, *, geometry: Sums) -> jax.Array:
    return (_repeated if choice.repeats(geometry.windows, y.shape) else _direct_spread)(y, geometry=geometry)


window_sum_p = define(
    "cnn_window_sum",
    lambda x, *, geometry: (x.shape[0], *geometry.windows.out, x.shape[-1]),
    _direct_sum,
    _chosen_sum,
)
spread_p = define(
    "cnn_spread",
    lambda y, *, geometry: (y.shape[0], *geometry.windows.size, y.shape[-1]),
    _direct_spread,
    _chosen_spread,
)
ad.deflinear2(window_sum_p, lambda y, _, *, geometry: [spread_p.bind(y, geometry=geometry)])
ad.deflinear2(spread_p, lambda x, _, *, geometry: [window_sum_p.bind(x, geometry=geometry)])
for _primitive in (window_sum_p, spread_p):
    adds_up(_primitive)
