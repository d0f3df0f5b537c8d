"""Convolutions of each input channel alone, as shifted images multiplied and added up, with no matrix product.

With one input channel, or with as many groups as input channels (depthwise), a tap of the window meets one number of
the input for each output. XLA:CPU's own convolution then has no product to run fast, and takes one element at a time.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering import taps
from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import wide


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, 1, O) in I groups: a multiply-add of images per tap."""
    dtype = wide(x.dtype)
    pairs = zip(taps.seen(x, geometry), _numbers(kernel, dtype), strict=True)
    terms = [_repeated(tap.astype(dtype), kernel) * number for tap, number in pairs]
    # Without the barrier XLA computes the sum again for every use of each output, in whatever follows.
    return lax.optimization_barrier(functools.reduce(lax.add, terms).astype(x.dtype))


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): multiples of y, added up where the taps lie."""
    each = (*y.shape[:3], geometry.groups, y.shape[3] // geometry.groups)
    terms = [(y.astype(wide(y.dtype)) * k).reshape(each).sum(-1) for k in _numbers(kernel, wide(y.dtype))]
    return taps.spread(terms, geometry).astype(y.dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): sums of products per tap."""
    y = y.astype(wide(x.dtype))
    sums = [(_repeated(tap.astype(y.dtype), y) * y).sum((0, 1, 2)) for tap in taps.seen(x, geometry)]
    return jnp.stack(sums).reshape(*geometry.window, 1, y.shape[3]).astype(x.dtype)


def _numbers(kernel: jax.Array, dtype: jnp.dtype) -> list[jax.Array]:
    """The kernel's numbers at each tap, (O,)."""
    kh, kw = kernel.shape[:2]
    return [kernel[i, j, 0].astype(dtype) for i, j in itertools.product(range(kh), range(kw))]


def _repeated(tap: jax.Array, like: jax.Array) -> jax.Array:
    """A tap's (N, h, w, I), each channel as often as it has outputs; one channel is left to broadcast."""
    return tap if tap.shape[3] == 1 else jnp.repeat(tap, like.shape[3] // tap.shape[3], 3)
