"""Convolution of few input channels as shifted images, each times one number of the kernel per output channel."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, I, O) in kh * kw * I multiply-adds of whole images."""
    (ho, wo), (sh, sw) = geometry.out, geometry.strides
    kh, kw, channels, _ = kernel.shape
    rows, columns = (ho - 1) * sh, (wo - 1) * sw
    (top, _), (left, _) = geometry.padding
    _, height, width, _ = x.shape
    config = ((0, 0, 0), (top, rows + kh - height - top, 0), (left, columns + kw - width - left, 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    terms = []
    for i, j, c in itertools.product(range(kh), range(kw), range(channels)):
        piece = x[:, i : i + rows + 1 : sh, j : j + columns + 1 : sw, c : c + 1]
        terms.append(piece.astype(wide) * kernel[i, j, c].astype(wide))
    total = functools.reduce(lax.add, terms)
    # Without the barrier XLA computes the sum again for every use of each output, in whatever follows.
    return lax.optimization_barrier(total.astype(x.dtype))
