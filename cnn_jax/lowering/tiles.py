"""Weight gradients of a few images at a time, added up."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
from jax import lax


def added(function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, y: jax.Array, tiles: int) -> jax.Array:
    """The sum of `function` over `tiles` runs of the images of x (N, ...) and y (N, ...), as even as may be.

    What a run needs then stays in the caches. The barrier keeps XLA from beginning a run before the last has ended,
    and so from holding what all of them need.
    """
    bounds = [len(x) * k // tiles for k in range(tiles + 1)]
    total = None
    for begin, end in itertools.pairwise(bounds):
        a, b = x[begin:end], y[begin:end]
        if total is None:
            total = function(a, b)
        else:
            a, b, total = lax.optimization_barrier((a, b, total))
            total += function(a, b)
    assert total is not None
    return total
