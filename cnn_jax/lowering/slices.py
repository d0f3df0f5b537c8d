"""A volume as seen from each place of its windows."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Windows


def settled(x: jax.Array, windows: Windows) -> jax.Array:
    """x (N, *size, C), behind a barrier where XLA would otherwise compute what comes before (an activation, say) again
    for every slice, or without vector instructions."""
    return lax.optimization_barrier(x) if windows.overlap or x.shape[-1] % 16 else x


def slices(x: jax.Array, windows: Windows, outside: jax.Array) -> list[jax.Array]:
    """The elements of x at each place of the window, rows before columns, each (N, *out, C), padded with `outside`.

    Each is sliced first and padded then. A slice of the padded array is as slow as a loop that has no vectors.
    """
    return [_slice(x, windows, place, outside) for place in itertools.product(*map(range, windows.window))]


def _slice(x: jax.Array, windows: Windows, place: tuple[int, ...], outside: jax.Array) -> jax.Array:
    cuts, config = [slice(None)], [(0, 0, 0)]
    for at, size, out, stride, (low, _) in zip(
        place, windows.size, windows.out, windows.strides, windows.padding, strict=True
    ):
        first, last = max(0, -(-(low - at) // stride)), min(out - 1, (size - 1 + low - at) // stride)
        if first > last:  # This place lies in padding in all windows.
            return jnp.full((x.shape[0], *windows.out, x.shape[-1]), outside)
        start = first * stride + at - low
        cuts.append(slice(start, start + (last - first) * stride + 1, stride))
        config.append((first, out - 1 - last, 0))
    return lax.pad(x[*cuts], outside, [*config, (0, 0, 0)])
