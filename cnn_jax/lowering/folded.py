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

Inner = Callable[[jax.Array, jax.Array, Geometry], jax.Array]
"""An operation on its two operands."""


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, axis: int, inner: Inner) -> jax.Array:
    """Convolution of x (N, *size, I) with kernel (*window, I / groups, O), the dimension `axis` folded."""
    x = _merged(_folded(x, geometry, axis), geometry, axis)
    y = inner(x, _few_taps(kernel, geometry, axis), _over(geometry, axis))
    return y.reshape(-1, *geometry.out, y.shape[-1])


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, axis: int, inner: Inner) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, *out, O); what taps share is added up in float32 at least."""
    like = jax.ShapeDtypeStruct((len(y), *geometry.size, kernel.shape[-2] * geometry.groups), wide(y.dtype))
    fold = functools.partial(_folded, geometry=geometry, axis=axis)
    y, kernel, dtype = y.astype(like.dtype), kernel.astype(like.dtype), y.dtype
    x = inner(_merged(y, geometry, axis), _few_taps(kernel, geometry, axis), _over(geometry, axis))
    x = x.reshape(jax.eval_shape(fold, like).shape)
    return jax.linear_transpose(fold, like)(x)[0].astype(dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, axis: int, inner: Inner) -> jax.Array:
    """Gradient to the kernel, from x (N, *size, I) and the cotangent y (N, *out, O)."""
    x = _merged(_folded(x, geometry, axis), geometry, axis)
    return _all_taps(inner(x, _merged(y, geometry, axis), _over(geometry, axis)), geometry, axis)


def _shares(geometry: Geometry, axis: int) -> tuple[int, int]:
    """How many taps of a dimension are left, and how many become channels of each."""
    window, stride = geometry.window[axis], geometry.strides[axis]
    strided = stride > 1 and window % stride == 0 and geometry.kernel_dilation[axis] == 1
    return (window // stride, stride) if strided else (1, window)


def _over(geometry: Geometry, axis: int) -> Geometry:
    """Of the convolution with the dimension folded, and without it where each of its places has a plane of its own."""
    parts, _ = _shares(geometry, axis)
    ones = {"strides": 1, "kernel_dilation": 1, "input_dilation": 1}
    folded: dict[str, Any] = {"size": geometry.out[axis] + parts - 1, "window": parts, "padding": (0, 0)} | ones
    left = slice(1, None) if _plane(geometry, axis) else slice(None)

    def replaced(key: str) -> tuple[Any, ...]:
        values = getattr(geometry, key)
        return (*values[:axis], folded[key], *values[axis + 1 :])[left]

    return dataclasses.replace(geometry, **{key: replaced(key) for key in folded})


def _plane(geometry: Geometry, axis: int) -> bool:
    """Whether a folded dimension of volumes has one tap left, so that each of its places has a plane of its own."""
    return axis == 0 and len(geometry.size) == 3 and _shares(geometry, axis)[0] == 1


def _merged(a: jax.Array, geometry: Geometry, axis: int) -> jax.Array:
    """Folded volumes (N, d, h, w, C), or cotangents, as planes (N * d, h, w, C); others as they are."""
    return a.reshape(-1, *a.shape[2:]) if _plane(geometry, axis) else a


def _folded(x: jax.Array, geometry: Geometry, axis: int) -> jax.Array:
    """x (N, *size, I) with the dimension folded, the taps of each group before its channels."""
    parts, share = _shares(geometry, axis)
    size, out, stride = geometry.size[axis], geometry.out[axis], geometry.strides[axis]
    step, (low, _), at = geometry.kernel_dilation[axis], geometry.padding[axis], axis + 1
    length = (out + parts - 1) * stride if stride == share else (out - 1) * stride + (share - 1) * step + 1
    config = [(0, 0, 0)] * x.ndim
    config[at] = (low, length - size - low, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    if stride == share:
        x = x.reshape(*x.shape[:at], out + parts - 1, share, *x.shape[at + 1 :])
        taps = jnp.moveaxis(x, at + 1, -2)
    else:
        x = lax.optimization_barrier(x)
        runs = [slice(tap * step, tap * step + (out - 1) * stride + 1, stride) for tap in range(share)]
        taps = jnp.stack([x[*(slice(None),) * at, run] for run in runs], -2)
    grouped = taps.reshape(*taps.shape[:-1], geometry.groups, -1).swapaxes(-2, -3)
    return grouped.reshape(*taps.shape[:-2], -1)


def _few_taps(kernel: jax.Array, geometry: Geometry, axis: int) -> jax.Array:
    """A kernel (*window, I / groups, O) for the folded input; of planes, without the dimension."""
    parts, share = _shares(geometry, axis)
    kernel = kernel.reshape(*kernel.shape[:axis], parts, share, *kernel.shape[axis + 1 :])
    kernel = jnp.moveaxis(kernel, axis + 1, -3)
    kernel = kernel.reshape(*kernel.shape[:-3], -1, kernel.shape[-1])
    return kernel[0] if _plane(geometry, axis) else kernel


def _all_taps(kernel: jax.Array, geometry: Geometry, axis: int) -> jax.Array:
    """The inverse of `_few_taps`."""
    _, share = _shares(geometry, axis)
    kernel = kernel[None] if _plane(geometry, axis) else kernel
    kernel = kernel.reshape(*kernel.shape[:-2], share, -1, kernel.shape[-1])
    kernel = jnp.moveaxis(kernel, -3, axis + 1)
    return kernel.reshape(*geometry.window, *kernel.shape[-2:])
