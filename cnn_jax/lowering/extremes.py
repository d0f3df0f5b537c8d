"""Maxima and minima over windows and their derivatives, three operations, each lowered to XLA in its own way.

The derivative of a maximum picks the tangent of the winner of each window; its transpose places each cotangent at
the winner. Of equal elements the first wins, rows before columns, as in XLA's select-and-scatter and hence in Flax's
pools. Both are linear in their second array and constant in the first.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad

from cnn_jax.lowering import choice, direct
from cnn_jax.lowering.geometry import Windows
from cnn_jax.lowering.primitive import define
from cnn_jax.lowering.products import wide
from cnn_jax.lowering.slices import settled, slices


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

    Without the barrier behind XLA takes it again for every use, as in the two sums of a batch norm.
    """
    pieces = slices(settled(x, geometry.windows), geometry.windows, _lowest(x.dtype, geometry))
    return lax.optimization_barrier(functools.reduce(lax.max if geometry.reducer == "max" else lax.min, pieces))


def _sliced_pick(x: jax.Array, t: jax.Array, *, geometry: Extremes) -> jax.Array:
    winner, zero = _winner(x, geometry), jnp.zeros((), t.dtype)
    picked = [jnp.where(winner == i, s, zero) for i, s in enumerate(slices(t, geometry.windows, zero))]
    return functools.reduce(lax.add, picked)


def _sliced_place(x: jax.Array, y: jax.Array, *, geometry: Extremes) -> jax.Array:
    """Each cotangent where its window's winner lies.

    The input is taken as blocks of one stride. A place of a block is seen by the windows that begin in its own block
    or in some near it, each of which has it at another place: for each of these distances there is a term, the
    cotangents compared with a table of places and moved that far. All are loops along the channels, with vectors.
    """
    windows, y, zero = geometry.windows, y.astype(wide(y.dtype)), jnp.zeros((), wide(y.dtype))
    # Without the barrier XLA looks for the winner again for every place of a block.
    winner = lax.optimization_barrier(_winner(x, geometry))
    split = tuple(extent for pair in zip(windows.out, windows.strides, strict=True) for extent in pair)
    shape, rank = (x.shape[0], *split, x.shape[-1]), len(windows.out)
    kept, within = (0, *range(1, 2 * rank, 2), 2 * rank + 1), tuple(range(2, 2 * rank + 1, 2))
    winner, y = (lax.broadcast_in_dim(a, shape, kept) for a in (winner, y))
    blocks = [-(-size // stride) for size, stride in zip(windows.size, windows.strides, strict=True)]
    total = zero
    for shift in itertools.product(*_shifts(windows)):
        place = lax.broadcast_in_dim(jnp.asarray(_places(windows, shift), winner.dtype), shape, within)
        config = [(0, 0, 0)]
        for distance, count, out in zip(shift, blocks, windows.out, strict=True):
            config += [(distance, count - distance - out, 0), (0, 0, 0)]
        total += lax.pad(jnp.where(winner == place, y, zero), zero, [*config, (0, 0, 0)])
    total = total.reshape(x.shape[0], *(n * s for n, s in zip(blocks, windows.strides, strict=True)), x.shape[-1])
    return total[:, *(slice(size) for size in windows.size)].astype(x.dtype)


def _shifts(windows: Windows) -> list[range]:
    """In each dimension, how many blocks after that of its own number a window may have a place."""
    return [
        range(-((low + stride - 1) // stride), (window - 1 - low) // stride + 1)
        for window, stride, (low, _) in zip(windows.window, windows.strides, windows.padding, strict=True)
    ]


def _places(windows: Windows, shift: tuple[int, ...]) -> np.ndarray:
    """The place, in a window so many blocks before, of each element of a block; -1 where it lies in none."""
    at = np.zeros((), int)
    inside = np.ones((), bool)
    for distance, window, stride, (low, _) in zip(shift, windows.window, windows.strides, windows.padding, strict=True):
        offset = np.arange(stride) + distance * stride + low
        at = at[..., None] * window + offset
        inside = inside[..., None] & (offset >= 0) & (offset < window)
    return np.where(inside, at, -1)


def _winner(x: jax.Array, geometry: Extremes) -> jax.Array:
    """Which place of each window holds its maximum, counted with rows before columns; int8 (N, *out, C).

    Windows that reach into padding are looked at apart: for their sake XLA would write down all of x with its padding.
    """
    windows = geometry.windows
    for axis, (size, out, window, stride, (low, _)) in enumerate(
        zip(windows.size, windows.out, windows.window, windows.strides, windows.padding, strict=True)
    ):
        first, last = -(-low // stride), (size + low - window) // stride + 1
        if (first, last) != (0, out) and first < last:
            runs = [run for run in ((0, first), (first, last), (last, out)) if run[0] < run[1]]
            return jnp.concatenate([_winner_of_run(x, geometry, axis, run) for run in runs], axis + 1)
    beats = lax.ge if geometry.reducer == "max" else lax.le
    pieces = slices(x, windows, _lowest(x.dtype, geometry))
    best, winner = pieces[0], jnp.zeros(pieces[0].shape, jnp.int8)
    for place, piece in enumerate(pieces[1:], start=1):
        keep = beats(best, piece)
        best = jnp.where(keep, best, piece)
        winner = jnp.where(keep, winner, jnp.int8(place))
    return winner


def _winner_of_run(x: jax.Array, geometry: Extremes, axis: int, run: tuple[int, int]) -> jax.Array:
    """`_winner` of the windows from one number to another in a dimension."""
    w = geometry.windows
    start = run[0] * w.strides[axis] - w.padding[axis][0]
    stop = (run[1] - 1) * w.strides[axis] - w.padding[axis][0] + w.window[axis]
    inner = max(start, 0), min(stop, w.size[axis])
    size, padding = list(w.size), list(w.padding)
    size[axis], padding[axis] = inner[1] - inner[0], (inner[0] - start, stop - inner[1])
    part = dataclasses.replace(w, size=tuple(size), padding=tuple(padding))
    x = lax.slice_in_dim(x, *inner, axis=axis + 1)
    return lax.optimization_barrier(_winner(x, dataclasses.replace(geometry, windows=part)))


def _lowest(dtype: jnp.dtype, geometry: Extremes) -> jax.Array:
    return jnp.array(-jnp.inf if geometry.reducer == "max" else jnp.inf, dtype)


def _choose(
    rule: Callable[[Windows, tuple[int, ...]], bool], sliced: Callable[..., jax.Array], stock: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    def chosen(x: jax.Array, *second: jax.Array, geometry: Extremes) -> jax.Array:
        return (sliced if rule(geometry.windows, x.shape) else stock)(x, *second, geometry=geometry)

    return chosen


def _tangent(primitive: Primitive, t: jax.Array, x: jax.Array, _: jax.Array, *, geometry: Extremes) -> jax.Array:
    return primitive.bind(x, t, geometry=geometry)


def _transpose(other: Primitive, ct: Any, x: jax.Array, _: Any, *, geometry: Extremes) -> list[jax.Array | None]:
    return [None, None if type(ct) is ad.Zero else other.bind(x, ct, geometry=geometry)]


def _out(x: jax.Array, *_: jax.Array, geometry: Extremes) -> tuple[int, ...]:
    return (x.shape[0], *geometry.windows.out, x.shape[-1])


extreme_p = define("cnn_window_extreme", _out, _direct, _choose(choice.compares_slices, _sliced, _direct))
_pick, _place = (
    _choose(choice.picks_slices, sliced, stock)
    for sliced, stock in ((_sliced_pick, _direct_pick), (_sliced_place, _direct_place))
)
# XLA's own derivatives on a GPU write down places of all elements three times over, and add cotangents one by one.
pick_p = define("cnn_pick", _out, _direct_pick, cpu=_pick, cuda=_pick)
place_p = define("cnn_place", lambda x, y, *, geometry: x.shape, _direct_place, cpu=_place, cuda=_place)
ad.defjvp(extreme_p, lambda t, x, *, geometry: pick_p.bind(x, t, geometry=geometry))
for _primitive, _other in ((pick_p, place_p), (place_p, pick_p)):
    ad.defjvp(_primitive, None, functools.partial(_tangent, _primitive))
    ad.primitive_transposes[_primitive] = functools.partial(_transpose, _other)
