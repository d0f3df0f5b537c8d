"""A bias added at every place and its gradient, two linear operations of which each is lowered to XLA in its own way.

In the primitives all arrays have one more leading dimension, R, of independent additions. They can be differentiated
any number of times in either mode, and mapped.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from cnn_jax.lowering import choice
from cnn_jax.lowering.primitive import adds_up, define
from cnn_jax.lowering.products import wide

Places = tuple[int, ...]
"""(N, *spatial)."""


def add(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y (N, *spatial, C) with bias (C,), of the same dtype, added at every place."""
    return add_p.bind(y[None], bias[None], geometry=y.shape[:-1])[0]


def _stock_add(y: jax.Array, bias: jax.Array, *, geometry: Places) -> jax.Array:
    return y + lax.expand_dims(bias, range(1, len(geometry) + 1))


def _stock_total(y: jax.Array, *, geometry: Places) -> jax.Array:
    return y.sum(range(1, y.ndim - 1))


def _add(y: jax.Array, bias: jax.Array, *, geometry: Places) -> jax.Array:
    """Row by row of places.

    A row's biases are written down first, and XLA's loops, also those of an activation that comes after, then run
    along whole rows with vectors instead of along the channels of a place.
    """
    if not choice.adds_rows((y.shape[0], *geometry), bias.shape[-1]):
        return _stock_add(y, bias, geometry=geometry)
    row = lax.optimization_barrier(jnp.tile(bias, (1, geometry[-1])))
    rows = y.reshape(y.shape[0], *geometry[:-1], row.shape[-1])
    return _stock_add(rows, row, geometry=geometry[:-1]).reshape(y.shape)


def _total(y: jax.Array, *, geometry: Places) -> jax.Array:
    """Rows of places added up, and then the places of that one row."""
    if not choice.adds_rows((y.shape[0], *geometry), y.shape[-1]):
        return _stock_total(y, geometry=geometry)
    rows = y.reshape(y.shape[0], math.prod(geometry[:-1]), -1).astype(wide(y.dtype))
    return rows.sum(1).reshape(y.shape[0], geometry[-1], -1).sum(1).astype(y.dtype)


def _transpose_add(ct: jax.Array, y: Any, bias: Any, *, geometry: Places) -> list[jax.Array | None]:
    total = total_p.bind(ct, geometry=geometry) if ad.is_undefined_primal(bias) else None
    return [ct if ad.is_undefined_primal(y) else None, total]


def _transpose_total(ct: jax.Array, _: Any, *, geometry: Places) -> list[jax.Array]:
    zeros = jnp.zeros((ct.shape[0], *geometry, ct.shape[1]), ct.dtype)
    return [add_p.bind(zeros, ct, geometry=geometry)]


add_p = define("cnn_add_bias", lambda y, bias, *, geometry: y.shape, _stock_add, _add)
total_p = define("cnn_bias_gradient", lambda y, *, geometry: (y.shape[0], y.shape[-1]), _stock_total, _total)
ad.deflinear2(add_p, _transpose_add)
ad.deflinear2(total_p, _transpose_total)
for _primitive in (add_p, total_p):
    adds_up(_primitive)
