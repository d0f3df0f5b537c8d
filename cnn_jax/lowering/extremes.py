"""Maxima and minima over windows and their derivatives, three operations of which each is put to XLA in its own way.

The derivative of a maximum picks the tangent of the winner of each window; its transpose places each cotangent at
the winner. Of equal elements the first wins, rows before columns, as in XLA's select-and-scatter and hence in Flax's
pools. Both are linear in their second array and constant in the first.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from cnn_jax.lowering import choice, direct
from cnn_jax.lowering.geometry import Windows
from cnn_jax.lowering.primitive import define
from cnn_jax.lowering.products import wide


@dataclass(frozen=True)
class Extremes:
    """Windows of which each gives its maximum or its minimum."""

    windows: Windows
    reducer: Literal["max", "min"]


def window_extreme(x: jax.Array, geometry: Extremes) -> jax.Array:
    """Maximum or minimum of x (N, *size, C) over each window, to (N, *out, C)."""
    return extreme_p.bind(x, geometry=geometry)


def _direct(x: jax.Array, *, geometry: Extremes) -> jax.Array:
    w = geometry.windows
    return direct.reduce_window(x, geometry.reducer, window=w.window, strides=w.strides, padding=w.padding)


def _direct_pick(x: jax.Array, t: jax.Array, *, geometry: Extremes) -> jax.Array:
    return jax.jvp(functools.partial(_direct, geometry=geometry), (x,), (t,))[1]


def _direct_place(x: jax.Array, y: jax.Array, *, geometry: Extremes) -> jax.Array:
    return jax.vjp(functools.partial(_direct, geometry=geometry), x)[1](y)[0]


def _sliced(x: jax.Array, *, geometry: Extremes) -> jax.Array:
    """The maximum of strided slices, one per place in the window.

    The barrier keeps XLA from computing what comes before again for every slice, or without vector instructions.
    """
    if geometry.windows.overlap or x.shape[-1] % 16:
        x = lax.optimization_barrier(x)
    return functools.reduce(
        lax.max if geometry.reducer == "max" else lax.min, _slices(x, geometry.windows, _lowest(x.dtype, geometry))
    )


def _sliced_pick(x: jax.Array, t: jax.Array, *, geometry: Extremes) -> jax.Array:
    winner, zero = _winner(x, geometry), jnp.zeros((), t.dtype)
    picked = [jnp.where(winner == i, s, zero) for i, s in enumerate(_slices(t, geometry.windows, zero))]
    return functools.reduce(lax.add, picked)


def _sliced_place(x: jax.Array, y: jax.Array, *, geometry: Extremes) -> jax.Array:
    """The cotangents of each place in the window, spread out and added up."""
    windows, y, zero = geometry.windows, y.astype(wide(y.dtype)), jnp.zeros((), wide(y.dtype))
    winner = _winner(x, geometry)
    if windows.overlap:  # or XLA looks for the winner again for every place that a window covers
        winner = lax.optimization_barrier(winner)
    dimensions = list(zip(windows.size, windows.out, windows.strides, windows.padding, strict=True))
    total = zero
    for place, offsets in enumerate(_offsets(windows)):
        config = []
        for offset, (size, out, stride, (low, _)) in zip(offsets, dimensions, strict=True):
            start = offset - low
            config.append((start, size - start - (out - 1) * stride - 1, stride - 1))
        total += lax.pad(jnp.where(winner == place, y, zero), zero, [(0, 0, 0), *config, (0, 0, 0)])
    return total.astype(x.dtype)


def _winner(x: jax.Array, geometry: Extremes) -> jax.Array:
    """Which place of each window holds its maximum, counted with rows before columns; int32 (N, *out, C)."""
    windows = geometry.windows
    beats = lax.ge if geometry.reducer == "max" else lax.le
    pieces = _slices(x, windows, _lowest(x.dtype, geometry))
    best, winner = pieces[0], jnp.zeros(pieces[0].shape, jnp.int32)
    for place, piece in enumerate(pieces[1:], start=1):
        keep = beats(best, piece)
        best = jnp.where(keep, best, piece)
        winner = jnp.where(keep, winner, jnp.int32(place))
    return winner


def _offsets(windows: Windows) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, windows.window))


def _slices(x: jax.Array, windows: Windows, outside: jax.Array) -> list[jax.Array]:
    """The elements of x at each place of the window, each (N, *out, C), padded with `outside`."""
    x = lax.pad(x, outside, [(0, 0, 0), *((low, high, 0) for low, high in windows.padding), (0, 0, 0)])
    return [
        x[
            (
                slice(None),
                *(slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(at, windows.out, windows.strides, strict=True)),
            )
        ]
        for at in _offsets(windows)
    ]


def _lowest(dtype: jnp.dtype, geometry: Extremes) -> jax.Array:
    return jnp.array(-jnp.inf if geometry.reducer == "max" else jnp.inf, dtype)


def _choose(
    rule: Callable[[Windows, tuple[int, ...]], bool], sliced: Callable[..., jax.Array], stock: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    def chosen(x: jax.Array, *second: jax.Array, geometry: Extremes) -> jax.Array:
        return (sliced if rule(geometry.windows, x.shape) else stock)(x, *second, geometry=geometry)

    return chosen


def _batch(
    primitive: Primitive, operands: Sequence[jax.Array], mapped: Sequence[int | None], *, geometry: Extremes
) -> tuple[jax.Array, int]:
    """The rule of `jax.vmap`: a larger batch."""
    size = next(a.shape[axis] for a, axis in zip(operands, mapped, strict=True) if axis is not None)
    whole = [batching.bdim_at_front(a, axis, size) for a, axis in zip(operands, mapped, strict=True)]
    result = primitive.bind(*(a.reshape(size * a.shape[1], *a.shape[2:]) for a in whole), geometry=geometry)
    return result.reshape(size, result.shape[0] // size, *result.shape[1:]), 0


def _tangent(primitive: Primitive, t: jax.Array, x: jax.Array, _: jax.Array, *, geometry: Extremes) -> jax.Array:
    return primitive.bind(x, t, geometry=geometry)


def _transpose(other: Primitive, ct: Any, x: jax.Array, _: Any, *, geometry: Extremes) -> list[jax.Array | None]:
    return [None, None if type(ct) is ad.Zero else other.bind(x, ct, geometry=geometry)]


def _out(x: jax.Array, *_: jax.Array, geometry: Extremes) -> tuple[int, ...]:
    return (x.shape[0], *geometry.windows.out, x.shape[-1])


extreme_p = define("cnn_window_extreme", _out, _direct, _choose(choice.compares_slices, _sliced, _direct))
pick_p = define("cnn_pick", _out, _direct_pick, _choose(choice.picks_slices, _sliced_pick, _direct_pick))
place_p = define(
    "cnn_place",
    lambda x, y, *, geometry: x.shape,
    _direct_place,
    _choose(choice.picks_slices, _sliced_place, _direct_place),
)
ad.defjvp(extreme_p, lambda t, x, *, geometry: pick_p.bind(x, t, geometry=geometry))
for _primitive, _other in ((pick_p, place_p), (place_p, pick_p)):
    ad.defjvp(_primitive, None, functools.partial(_tangent, _primitive))
    ad.primitive_transposes[_primitive] = functools.partial(_transpose, _other)
for _primitive in (extreme_p, pick_p, place_p):
    batching.primitive_batchers[_primitive] = functools.partial(_batch, _primitive)
