"""Convolutions of each input channel alone, as shifted images multiplied and added up, with no matrix product.

With one input channel, or with as many groups as input channels (depthwise), a tap of the window meets one number of
the input for each output. XLA:CPU's own convolution then has no product to run fast, and takes one element at a time.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.lowering import taps
from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.padding import written
from cnn_jax.lowering.products import wide
from cnn_jax.lowering.tiles import added

# Taps of which each may look for the padding itself: XLA's loops over more such terms have no vectors.
_MOST_PADDED = 9


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, 1, O) in I groups: a multiply-add of images per tap."""
    numbers = _numbers(kernel, wide(x.dtype))
    if geometry.strides == (1, 1) and x.shape[3] == kernel.shape[3] and len(numbers) <= _MOST_PADDED:
        shifted = [_shift(x.astype(wide(x.dtype)) * number, geometry, tap) for tap, number in numbers]
    else:
        x, geometry = written(x, geometry)  # or XLA looks for padding in every term
        seen = zip(taps.seen(x, geometry), numbers, strict=True)
        shifted = [_repeated(tap, kernel).astype(wide(x.dtype)) * number for tap, (_, number) in seen]
    # Without the barrier XLA computes the sum again for every use of each output, in whatever follows.
    return lax.optimization_barrier(functools.reduce(lax.add, shifted).astype(x.dtype))


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): multiples of y, added up where the taps lie."""
    multiple = y.shape[3] // geometry.groups
    if geometry.strides == (1, 1) and multiple == 1:
        return conv(y, jnp.flip(kernel, (0, 1)), geometry.turned)
    y, each = y.astype(wide(y.dtype)), (*y.shape[:3], geometry.groups, multiple)
    terms = [(y * number).reshape(each).sum(-1) for _, number in _numbers(kernel, y.dtype)]
    return taps.spread(terms, geometry).astype(kernel.dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): sums of products per tap.

    The images of a tile are added up place by place, which are vector loops along the channels, and so are the tiles.
    Only what is left of them, an image a tap, is added up over its places, of which XLA takes one number at a time.
    """
    dtype = wide(x.dtype)

    def images(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        x, padded = written(x.astype(dtype), geometry)
        y = y.astype(dtype)
        repeated = (_repeated(tap, y) for tap in taps.seen(x, padded))
        return [functools.reduce(lax.add, [tap[n] * y[n] for n in range(len(y))]) for tap in repeated]

    sums = [image.sum((0, 1)) for image in added(images, (x, y), tiles)]
    return jnp.stack(sums).reshape(*geometry.window, 1, y.shape[3]).astype(x.dtype)


def _numbers(kernel: jax.Array, dtype: jnp.dtype) -> list[tuple[tuple[int, int], jax.Array]]:
    """The taps, rows before columns, and the kernel's numbers at each, (O,)."""
    return [((i, j), kernel[i, j, 0].astype(dtype)) for i, j in np.ndindex(kernel.shape[:2])]


def _repeated(tap: jax.Array, like: jax.Array) -> jax.Array:
    """A tap's (N, h, w, I), each channel as often as it has outputs; one channel is left to broadcast."""
    return tap if tap.shape[3] == 1 else jnp.repeat(tap, like.shape[3] // tap.shape[3], 3)


def _shift(x: jax.Array, geometry: Geometry, tap: tuple[int, int]) -> jax.Array:
    """What a tap meets of x (N, H, W, C) at stride 1, (N, h, w, C)."""
    config = [(0, 0, 0)]
    for at, (low, _), size, out in zip(tap, geometry.padding, geometry.size, geometry.out, strict=True):
        config.append((low - at, out + at - low - size, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
