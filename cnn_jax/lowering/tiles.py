"""An operation on some images of a batch at a time, in a loop: what it writes on the way stays in the caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def equal_tiles(images: int, wanted: int) -> int:
    """A number of equal runs of so many images, as many as wanted or up to twice that; 1 where there is none."""
    return next((n for n in range(wanted, 2 * wanted) if images % n == 0), 1)


def added(function: Callable[..., Any], operands: tuple[Any, ...], tiles: int) -> Any:
    """The sum of `function` over `tiles` runs of the images of its operands, arrays (N, ...) or trees of them.

    N is a multiple of `tiles`; the function returns an array or a tree of them.
    """
    if tiles == 1:
        return function(*operands)
    length = len(jax.tree.leaves(operands)[0]) // tiles

    def part(tile: jax.Array | int) -> Any:
        return function(*jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, tile * length, length), operands))

    def add(tile: jax.Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, part(threaded(tile)))

    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(part, 0))
    return lax.fori_loop(0, tiles, add, zeros)


def joined(function: Callable[[jax.Array], jax.Array], x: jax.Array, tiles: int) -> jax.Array:
    """`function` of `tiles` runs of the images of x (N, ...), one after the other, N a multiple of `tiles`."""
    if tiles == 1:
        return function(x)
    length = len(x) // tiles
    shape = jax.eval_shape(function, x[:length])

    def put(tile: jax.Array, results: jax.Array) -> jax.Array:
        start = threaded(tile) * length
        result = function(lax.dynamic_slice_in_dim(x, start, length))
        return lax.dynamic_update_slice_in_dim(results, result, start, 0)

    return lax.fori_loop(0, tiles, put, jnp.zeros((len(x), *shape.shape[1:]), shape.dtype))


def threaded(tile: jax.Array) -> jax.Array:
    """The number of a tile, in a loop that is computed by all cores.

    XLA:CPU of JAX 0.12 compiles a loop in which nothing needs its libraries into one function, however much there is to
    do in it, and one core computes that. A sort needs them: of two numbers it takes no time.
    """
    return lax.sort(jnp.stack([tile, jnp.iinfo(tile.dtype).max]))[0]
