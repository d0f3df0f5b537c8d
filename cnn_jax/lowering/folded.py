"""A convolution as one with a smaller window and more channels: of a dimension, what a window sees becomes channels.

Where the window is whole strides, the image's elements are taken stride by stride, which moves none of them in the last
dimension ("space to depth"): the strides are gone, and so are the zeros between cotangents that XLA:CPU multiplies in
the gradients of a convolution with strides. Elsewhere ("unrolled") what each tap of that dimension meets is copied to
channels of its own: a convolution of volumes becomes one of their planes, for which there are more ways.

All is written for one of the three operations, which is then taken once more by `inner`, in the way that is chosen for
the new shapes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import wide

Axes = tuple[int, ...]
"""Numbers of spatial dimensions: some in which the window is whole strides, or one other."""
Inner = Callable[[jax.Array, jax.Array, Geometry], jax.Array]
"""An operation on its two operands."""


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, axes: Axes, inner: Inner) -> jax.Array:
    """Convolution of x (N, *size, I) with kernel (*window, I / groups, O), some dimensions folded."""
    x = _merged(_folded(x, geometry, axes), geometry, axes)
    y = inner(x, _few_taps(kernel, geometry, axes), _over(geometry, axes))
    return y.reshape(-1, *geometry.out, y.shape[-1])


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, axes: Axes, inner: Inner) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, *out, O); what taps share is added up in float32 at least."""
    like = jax.ShapeDtypeStruct((len(y), *geometry.size, kernel.shape[-2] * geometry.groups), wide(y.dtype))
    fold = functools.partial(_folded, geometry=geometry, axes=axes)
    y, kernel, dtype = y.astype(like.dtype), kernel.astype(like.dtype), y.dtype
    x = inner(_merged(y, geometry, axes), _few_taps(kernel, geometry, axes), _over(geometry, axes))
    x = x.reshape(jax.eval_shape(fold, like).shape)
    return jax.linear_transpose(fold, like)(x)[0].astype(dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, axes: Axes, inner: Inner) -> jax.Array:
    """Gradient to the kernel, from x (N, *size, I) and the cotangent y (N, *out, O)."""
    x = _merged(_folded(x, geometry, axes), geometry, axes)
    return _all_taps(inner(x, _merged(y, geometry, axes), _over(geometry, axes)), geometry, axes)


def input_gradient_completed(
    y: jax.Array, kernel: jax.Array, geometry: Geometry, axes: Axes, inner: Inner
) -> jax.Array:
    """The same where the window is no whole strides of these dimensions: zeros are put behind its taps until it is."""
    dimensions = enumerate(zip(geometry.window, geometry.strides, strict=True))
    more = [-window % stride if axis in axes else 0 for axis, (window, stride) in dimensions]
    kernel = jnp.pad(kernel, [*((0, n) for n in more), (0, 0), (0, 0)])
    padding = tuple((low, high + n) for (low, high), n in zip(geometry.padding, more, strict=True))
    whole = dataclasses.replace(geometry, window=kernel.shape[:-2], padding=padding)
    return input_gradient(y, kernel, whole, axes, inner)


def is_whole(geometry: Geometry, axis: int) -> bool:
    """Whether the window is one or more whole strides of a dimension, these being longer than 1."""
    window, stride = geometry.window[axis], geometry.strides[axis]
    return stride > 1 and window % stride == 0 and geometry.kernel_dilation[axis] == 1


def _shares(geometry: Geometry, axes: Axes) -> list[tuple[int, int]]:
    """Of each dimension how many taps are left, and how many become channels of each."""
    return [
        (1, window) if axis in axes and not is_whole(geometry, axis)
        else (window // stride, stride) if axis in axes
        else (window, 1)
        for axis, (window, stride) in enumerate(zip(geometry.window, geometry.strides, strict=True))
    ]  # fmt: skip


def _over(geometry: Geometry, axes: Axes) -> Geometry:
    """Of the convolution with dimensions folded, and without the first where each of its places has its own plane."""
    ones = {"strides": 1, "kernel_dilation": 1, "input_dilation": 1}
    values: dict[str, list[Any]] = {key: list(getattr(geometry, key)) for key in ("size", "window", "padding", *ones)}
    for axis in axes:
        parts = _shares(geometry, axes)[axis][0]
        folded = {"size": geometry.out[axis] + parts - 1, "window": parts, "padding": (0, 0)} | ones
        for key, value in folded.items():
            values[key][axis] = value
    chosen: dict[str, Any] = {key: tuple(value) for key, value in values.items()}
    over = dataclasses.replace(geometry, **chosen)
    return over.without(0) if _plane(geometry, axes) else over


def _plane(geometry: Geometry, axes: Axes) -> bool:
    """Whether a folded dimension of volumes has one tap left, so that each of its places has a plane of its own."""
    return 0 in axes and len(geometry.size) == 3 and _shares(geometry, axes)[0][0] == 1


def _merged(a: jax.Array, geometry: Geometry, axes: Axes) -> jax.Array:
    """Folded volumes (N, d, h, w, C), or cotangents, as planes (N * d, h, w, C); others as they are."""
    return a.reshape(-1, *a.shape[2:]) if _plane(geometry, axes) else a


def _folded(x: jax.Array, geometry: Geometry, axes: Axes) -> jax.Array:
    """x (N, *size, I) with dimensions folded, the taps of each group before its channels."""
    rank, shares, config, split = len(geometry.size), _shares(geometry, axes), [(0, 0, 0)], []
    for axis, (parts, share) in enumerate(shares):
        size, out, stride = geometry.size[axis], geometry.out[axis], geometry.strides[axis]
        step, (low, _) = geometry.kernel_dilation[axis], geometry.padding[axis]
        if axis not in axes:
            length, low = size, 0
        elif is_whole(geometry, axis):
            length = (out + parts - 1) * stride
        else:
            length = (out - 1) * stride + (share - 1) * step + 1
        config.append((low, length - size - low, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
    for axis in axes:
        if not is_whole(geometry, axis):
            (_, share), stride, step = shares[axis], geometry.strides[axis], geometry.kernel_dilation[axis]
            last, x = (geometry.out[axis] - 1) * stride + 1, lax.optimization_barrier(x)
            runs = [slice(tap * step, tap * step + last, stride) for tap in range(share)]
            taps = jnp.stack([x[*(slice(None),) * (axis + 1), run] for run in runs], -2)
            return _by_groups(taps, geometry.groups, 1)
    for axis in range(rank):
        share = shares[axis][1] if axis in axes else 1
        split += [x.shape[axis + 1] // share, share]
    x = x.reshape(len(x), *split, x.shape[-1])
    x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return _by_groups(x, geometry.groups, rank)


def _by_groups(taps: jax.Array, groups: int, shares: int) -> jax.Array:
    """(N, *places, *shares, I) as (N, *places, shares * I), the shares within each group."""
    at = taps.ndim - 1 - shares
    taps = taps.reshape(*taps.shape[:at], -1, groups, taps.shape[-1] // groups).swapaxes(-2, -3)
    return taps.reshape(*taps.shape[:at], -1)


def _few_taps(kernel: jax.Array, geometry: Geometry, axes: Axes) -> jax.Array:
    """A kernel (*window, I / groups, O) for the folded input; of planes, without the dimension."""
    rank, shares = len(geometry.window), _shares(geometry, axes)
    kernel = kernel.reshape(*(n for pair in shares for n in pair), *kernel.shape[-2:])
    kernel = kernel.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)
    kernel = kernel.reshape(*kernel.shape[:rank], -1, kernel.shape[-1])
    return kernel[0] if _plane(geometry, axes) else kernel


def _all_taps(kernel: jax.Array, geometry: Geometry, axes: Axes) -> jax.Array:
    """The inverse of `_few_taps`."""
    rank, shares = len(geometry.window), _shares(geometry, axes)
    parts, each = zip(*shares, strict=True)
    kernel = kernel.reshape(*parts, *each, -1, kernel.shape[-1])
    pairs = [n for axis in range(rank) for n in (axis, rank + axis)]
    return kernel.transpose(*pairs, 2 * rank, 2 * rank + 1).reshape(*geometry.window, -1, kernel.shape[-1])
