"""Pools: the maximum, minimum, average or sum of each channel over a window, or over the whole volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax import lowering
from cnn_jax.functional import arguments
from cnn_jax.functional.arguments import Padding


def max_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Maximum over each window; padding never wins.

    Args:
      x: (*batch, *spatial, C), with one, two or three spatial dimensions (as many as the window has) and any number
        of batch dimensions, also none. Any real dtype.
      window_shape: extent of the window in each spatial dimension.
      strides: step of the window, an int or one per dimension; None is 1 (not the window's extent), as in Flax.
      padding: `'VALID'`, none; `'SAME'`, so that ceil(size / stride) outputs remain; an int, on every side; or a
        sequence with an int or a (low, high) pair per dimension. Each must be smaller than the window, so that no
        window lies in the padding alone.

    Returns:
      (*batch, *out, C), in x's dtype.

    Raises:
      ValueError: in one line, for a malformed argument or a window larger than the padded input.
    """
    return _pool("max_pool", "max", jnp.asarray(x), window_shape, strides, padding)


def min_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Minimum over each window; arguments, result and errors as for `max_pool`."""
    return _pool("min_pool", "min", jnp.asarray(x), window_shape, strides, padding)


def avg_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """Average over each window; arguments and errors as for `max_pool`.

    Args:
      count_include_pad: divide by the size of the window, padding counted as zeros; otherwise by the number of the
        window's elements that lie in the input.

    Returns:
      (*batch, *out, C), in x's dtype; integers are first converted to float32. (Flax returns float32 for bfloat16
      where `count_include_pad` is False.)
    """
    (x,) = arguments.promote(x)
    return _pool("avg_pool", "sum", x, window_shape, strides, padding, "window" if count_include_pad else "seen")


def sum_pool(
    x: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """Sum over each window, padding counted as zeros; arguments, result and errors as for `max_pool`."""
    return _pool("sum_pool", "sum", jnp.asarray(x), window_shape, strides, padding)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Average of x (N, *spatial, C) over all one to three spatial dimensions, to (N, C).

    Integers are first converted to float32. Raises ValueError for any other rank, and for an empty volume.
    """
    (x,) = arguments.promote(x)
    return x.mean(_spatial_axes("global_avg_pool", x))


def global_max_pool(x: jax.Array) -> jax.Array:
    """Maximum of x (N, *spatial, C) over all one to three spatial dimensions, to (N, C), in x's dtype.

    Raises ValueError for any other rank, and for an empty volume.
    """
    x = jnp.asarray(x)
    return x.max(_spatial_axes("global_max_pool", x))


def _pool(
    caller: str,
    reducer: Literal["sum", "max", "min"],
    x: jax.Array,
    window_shape: Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
    over: Literal["window", "seen"] | None = None,
) -> jax.Array:
    """The reduction of every window, divided by the window's size, or by how many of its elements lie in the input."""
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ValueError(f"{caller}: input must hold real numbers, got dtype {x.dtype}")
    window = arguments.window(caller, "window_shape", window_shape)
    rank = len(window)
    x, batch = arguments.split_batch(caller, x, rank)
    sizes = x.shape[1:-1]
    strides = arguments.per_dimension(caller, "strides", strides, rank)
    mode = arguments.padding_mode(caller, padding, ("SAME", "VALID"), rank)
    if mode == "SAME":
        pairs = tuple(map(arguments.same, sizes, window, strides))
    elif isinstance(mode, str):
        pairs = ((0, 0),) * rank
    else:
        pairs = mode
        if any(not 0 <= p < w for pair, w in zip(pairs, window, strict=True) for p in pair):
            raise ValueError(
                f"{caller}: padding must be at least 0 and less than window_shape={window}, got {padding!r}"
            )
    arguments.output_shape(caller, sizes, window, strides, pairs)
    divisor = math.prod(window) if over == "window" else 1
    y = lowering.reduce_window(x, reducer, window=window, strides=strides, padding=pairs, divisor=divisor)
    if over == "seen":
        # One axis at a time, so that no array of all windows' counts has to be kept.
        for axis, counts in enumerate(map(_counts, sizes, window, strides, pairs), start=1):
            along = [dimension for dimension in range(rank + 2) if dimension != axis]
            y = y / lax.expand_dims(counts.astype(y.dtype), along)
    return arguments.restore_batch(y, batch)


def _counts(size: int, window: int, stride: int, padding: tuple[int, int]) -> jax.Array:
    """Of each window along a dimension, how many of its elements lie in the input: float32."""
    ones = jnp.ones((1, size, 1), jnp.float32)
    count = lowering.reduce_window(ones, "sum", window=(window,), strides=(stride,), padding=(padding,))
    return count.reshape(-1)


def _spatial_axes(caller: str, x: jax.Array) -> tuple[int, ...]:
    rank = x.ndim - 2
    if not 1 <= rank <= arguments.MAX_SPATIAL_DIMENSIONS or 0 in x.shape[1:-1]:
        raise ValueError(
            f"{caller}: input must be (N, *spatial, C) with one to three spatial dimensions, none empty, "
            f"got shape {x.shape}"
        )
    return tuple(range(1, x.ndim - 1))
