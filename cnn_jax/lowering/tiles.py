"""An operation on some images of a batch at a time, in a loop: what it writes on the way stays in the caches."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Function = Callable[..., jax.Array]


def added(function: Function, x: jax.Array, y: jax.Array, tiles: int) -> jax.Array:
    """The sum of `function` over `tiles` runs of the images of x (N, ...) and y (N, ...), N a multiple of `tiles`."""
    if tiles == 1:
        return function(x, y)
    length = len(x) // tiles
    shape = jax.eval_shape(function, x[:length], y[:length])

    def add(tile: jax.Array, total: jax.Array) -> jax.Array:
        a, b = (lax.dynamic_slice_in_dim(z, tile * length, length) for z in (x, y))
        return total + function(a, b)

    return lax.fori_loop(0, tiles, add, jnp.zeros(shape.shape, shape.dtype))


def joined(function: Function, x: jax.Array, tiles: int) -> jax.Array:
    """`function` of `tiles` runs of the images of x (N, ...), one after the other, N a multiple of `tiles`."""
    if tiles == 1:
        return function(x)
    length = len(x) // tiles
    shape = jax.eval_shape(function, x[:length])

    def put(tile: jax.Array, results: jax.Array) -> jax.Array:
        result = function(lax.dynamic_slice_in_dim(x, tile * length, length))
        return lax.dynamic_update_slice_in_dim(results, result, tile * length, 0)

    return lax.fori_loop(0, tiles, put, jnp.zeros((len(x), *shape.shape[1:]), shape.dtype))
