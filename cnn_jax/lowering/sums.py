"""Sums over windows and their gradient, two linear operations of which each is put to XLA in its own way.

Each is the transpose of the other, so that they can be differentiated any number of times in either mode.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from cnn_jax.lowering import choice, direct
from cnn_jax.lowering.geometry import Windows
from cnn_jax.lowering.primitive import define
from cnn_jax.lowering.products import wide


def window_sum(x: jax.Array, geometry: Windows) -> jax.Array:
    """Sum of x (N, *size, C) over each window, to (N, *out, C)."""
    return window_sum_p.bind(x, geometry=geometry)


def _direct_sum(x: jax.Array, *, geometry: Windows) -> jax.Array:
    return direct.reduce_window(x, "sum", window=geometry.window, strides=geometry.strides, padding=geometry.padding)


def _direct_spread(y: jax.Array, *, geometry: Windows) -> jax.Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.size, y.shape[-1]), y.dtype)
    return jax.linear_transpose(functools.partial(_direct_sum, geometry=geometry), x)(y)[0]


def _sliced_sum(x: jax.Array, *, geometry: Windows) -> jax.Array:
    """Strided slices added up, one dimension after the other.

    The barriers are what makes it fast: without them XLA computes what comes before (an activation, say) again for
    every term, and the sums again for every use.
    """
    total = x.astype(wide(x.dtype))
    for axis in range(1, x.ndim - 1):
        extent, stride = geometry.window[axis - 1], geometry.strides[axis - 1]
        total = lax.optimization_barrier(total) if axis > 1 else total
        config = [(*geometry.padding[axis - 1], 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
        total = lax.pad(total, jnp.zeros((), total.dtype), config)
        last = (geometry.out[axis - 1] - 1) * stride + 1
        total = functools.reduce(lax.add, [lax.slice_in_dim(total, i, i + last, stride, axis) for i in range(extent)])
    return lax.optimization_barrier(total.astype(x.dtype))


def _repeated(y: jax.Array, *, geometry: Windows) -> jax.Array:
    """The transpose, where windows lie side by side: each cotangent repeated over its window."""
    n, *out, c = y.shape
    split = tuple(s for pair in zip(out, geometry.window, strict=True) for s in pair)
    y = lax.broadcast_in_dim(y, (n, *split, c), (0, *range(1, len(split), 2), len(split) + 1))
    covered = [o * w for o, w in zip(out, geometry.window, strict=True)]
    config = [(0, 0, 0), *((0, size - c, 0) for size, c in zip(geometry.size, covered, strict=True)), (0, 0, 0)]
    return lax.pad(y.reshape(n, *covered, c), jnp.zeros((), y.dtype), config)


def _chosen_sum(x: jax.Array, *, geometry: Windows) -> jax.Array:
    return (_sliced_sum if choice.adds_slices(geometry, x.shape) else _direct_sum)(x, geometry=geometry)


def _chosen_spread(y: jax.Array, *, geometry: Windows) -> jax.Array:
    return (_repeated if choice.repeats(geometry, y.shape) else _direct_spread)(y, geometry=geometry)


window_sum_p = define(
    "cnn_window_sum", lambda x, *, geometry: (x.shape[0], *geometry.out, x.shape[-1]), _direct_sum, _chosen_sum
)
spread_p = define(
    "cnn_spread", lambda y, *, geometry: (y.shape[0], *geometry.size, y.shape[-1]), _direct_spread, _chosen_spread
)
ad.deflinear2(window_sum_p, lambda y, _, *, geometry: [spread_p.bind(y, geometry=geometry)])
ad.deflinear2(spread_p, lambda x, _, *, geometry: [window_sum_p.bind(x, geometry=geometry)])
