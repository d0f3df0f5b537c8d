"""Every accepted form of an argument, turned into plain tuples of ints once, at the door.

Each function takes the name of the caller, which begins the message of any ValueError it raises.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import max_dim

Padding = str | int | Sequence[int | Sequence[int]]
Pairs = tuple[tuple[int, int], ...]

MAX_SPATIAL_DIMENSIONS = 3


def promote(*arrays: jax.Array | None) -> list[Any]:
    """The arrays in their common inexact dtype (integers become float32); None stays None."""
    present = [jnp.asarray(a) for a in arrays if a is not None]
    dtype = jnp.result_type(*present)
    if not jnp.issubdtype(dtype, jnp.inexact):
        dtype = jnp.dtype(jnp.float32)
    return [None if a is None else jnp.asarray(a, dtype) for a in arrays]


def window(caller: str, name: str, value: Sequence[int]) -> tuple[int, ...]:
    """A window's extent in each of one to three spatial dimensions."""
    sizes = _positive_ints(value)
    if sizes is None or not 1 <= len(sizes) <= MAX_SPATIAL_DIMENSIONS:
        raise ValueError(
            f"{caller}: {name} must be 1 to {MAX_SPATIAL_DIMENSIONS} positive ints, one per spatial dimension, "
            f"got {value!r}"
        )
    return sizes


def per_dimension(caller: str, name: str, value: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """One positive int per spatial dimension, from an int for all of them, a sequence, or None for ones."""
    size = _as_int(1 if value is None else value)
    sizes = _positive_ints(value if size is None else (size,) * rank)
    if sizes is None or len(sizes) != rank:
        raise ValueError(f"{caller}: {name} must be a positive int or {_count(rank)} of them, got {value!r}")
    return sizes


def positive(caller: str, name: str, value: int) -> int:
    """`value` as a positive int."""
    number = _as_int(value)
    if number is None or number < 1:
        raise ValueError(f"{caller}: {name} must be a positive int, got {value!r}")
    return number


def padding_mode(caller: str, padding: Padding, modes: Sequence[str], rank: int) -> str | Pairs:
    """The padding as one of `modes` in capitals, or as a (low, high) pair per dimension.

    An int pads both sides of every dimension; within a sequence, an int pads both sides of its dimension.
    """
    if isinstance(padding, str):
        if padding.upper() in modes:
            return padding.upper()
    else:
        pairs = _pairs(padding, rank)
        if pairs is not None:
            return pairs
    raise ValueError(
        f"{caller}: padding must be {', '.join(map(repr, modes))}, an int, "
        f"or {_count(rank)} ints or (low, high) pairs, got {padding!r}"
    )


def same(size: int, extent: int, stride: int) -> tuple[int, int]:
    """The padding that gives ceil(size / stride) outputs; an odd zero goes after, as in XLA and TensorFlow."""
    total = max_dim((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def dilate(size: int, dilation: int) -> int:
    """The extent of `size` elements with `dilation - 1` gaps between neighbours."""
    return size if dilation == 1 else max_dim((size - 1) * dilation + 1, 0)


def output_shape(
    caller: str, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], padding: Pairs
) -> tuple[int, ...]:
    """The number of window positions along each dimension; a window that fits nowhere is an error.

    `sizes` and `extents` are those of the input and the window after dilation. Where a size is symbolic and may be too
    small the number is 0 for such a size, as in `jax.lax`.
    """
    padded = tuple(size + low + high for size, (low, high) in zip(sizes, padding, strict=True))
    if any(map(less, padded, extents)):
        raise ValueError(f"{caller}: a window of {tuple(extents)} does not fit into a padded input of {padded}")
    return tuple(max_dim((p - e) // s + 1, 0) for p, e, s in zip(padded, extents, strides, strict=True))


def less(size: int, bound: int) -> bool:
    """Whether a size is less than a bound, in all cases if it is symbolic (`jax.export.symbolic_shape`)."""
    try:
        return bool(size < bound)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def split_batch(caller: str, x: jax.Array, rank: int) -> tuple[jax.Array, tuple[int, ...]]:
    """`x` (*batch, *spatial, C) with its batch dimensions made one, and the shape they had."""
    if x.ndim < rank + 1:
        raise ValueError(
            f"{caller}: input must have {_count(rank)} spatial and one channel dimension, got shape {x.shape}"
        )
    batch = x.shape[: x.ndim - rank - 1]
    return x.reshape(math.prod(batch), *x.shape[len(batch) :]), batch


def restore_batch(y: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """The inverse of `split_batch`."""
    return y.reshape(*batch, *y.shape[1:])


def _as_int(value: object) -> int | None:
    # A bool is an int to Python, but never a meant size.
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _ints(values: object) -> tuple[int, ...] | None:
    if isinstance(values, str):
        return None
    try:
        numbers = [_as_int(v) for v in values]  # type: ignore[attr-defined]
    except TypeError:
        return None
    return None if None in numbers else tuple(n for n in numbers if n is not None)


def _positive_ints(values: object) -> tuple[int, ...] | None:
    numbers = _ints(values)
    return None if numbers is None or any(n < 1 for n in numbers) else numbers


def _pairs(padding: object, rank: int) -> Pairs | None:
    both = _as_int(padding)
    if both is not None:
        return ((both, both),) * rank
    try:
        entries = list(padding)  # type: ignore[call-overload]
    except TypeError:
        return None
    pairs = []
    for entry in entries:
        both = _as_int(entry)
        pair = _ints(entry) if both is None else (both, both)
        if pair is None or len(pair) != 2:
            return None
        pairs.append((pair[0], pair[1]))
    return tuple(pairs) if len(pairs) == rank else None


def _count(rank: int) -> str:
    return {1: "one", 2: "two", 3: "three"}[rank]
