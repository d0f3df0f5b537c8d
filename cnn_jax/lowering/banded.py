"""Convolution as one product of image patches with a banded matrix, `block` outputs of a row at a time.

XLA:CPU is slow where channels are few: its product has a column per output channel, and its patches are copied in runs
of a window's width times the input channels. Here `block` neighbouring outputs of an image row are computed together.
They see (block - 1) * stride + kw input columns, so with the kernel repeated at each of its `block` places in a banded
(Toeplitz) matrix the product has `block` times as many columns and fewer, wider patches. What it costs is products
with the zeros of the band, about (block - 1) * stride / kw of the useful ones.

Columns are taken `span = block * stride` at a time, `chunks` of which a patch needs; that is a reshape of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.lowering.geometry import Geometry


@dataclass(frozen=True)
class _Blocks:
    """How rows are divided: `count` blocks a row, each of `span` columns and reaching over `chunks` such spans."""

    count: int
    span: int
    chunks: int


def blocks(geometry: Geometry, block: int) -> _Blocks:
    """How output rows are divided into blocks of `block`."""
    stride, kw, wo = geometry.strides[1], geometry.window[1], geometry.out[1]
    reach = (block - 1) * stride + kw
    if block >= wo:
        return _Blocks(1, (wo - 1) * stride + kw, 1)
    return _Blocks(-(-wo // block), block * stride, -(-reach // (block * stride)))


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, I, O): patches times band."""
    b = blocks(geometry, block)
    block = min(block, geometry.out[1])
    patches = _patches(x, geometry, b)
    y = _product(patches, _band(kernel, geometry, b, block), (1, 0), geometry)
    y = y.reshape(x.shape[0], geometry.out[0], b.count * block, kernel.shape[-1])
    return y[:, :, : geometry.out[1]].astype(x.dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): patches, transposed, times y."""
    b = blocks(geometry, block)
    block = min(block, geometry.out[1])
    band = _product(_patches(x, geometry, b), _cotangent(y, b, block), (0, 0), geometry)
    return _unband(band, geometry, b, block, x.shape[-1], y.shape[-1]).astype(x.dtype)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): y times the transposed band, patches added up."""
    b = blocks(geometry, block)
    block = min(block, geometry.out[1])
    patches = _product(_cotangent(y, b, block), _band(kernel, geometry, b, block), (1, 1), geometry)
    return _add_patches(patches, geometry, b, y.shape[0], kernel.shape[2]).astype(y.dtype)


def _product(a: jax.Array, b: jax.Array, axes: tuple[int, int], geometry: Geometry) -> jax.Array:
    """Product over one axis of each, which keeps the sums of half-precision operands in float32."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    dims = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(a, b, dims, precision=geometry.precision, preferred_element_type=wide)


def _cotangent(y: jax.Array, b: _Blocks, block: int) -> jax.Array:
    """y (N, h, w, O) as a matrix (N * h * count, block * O)."""
    n, h, w, o = y.shape
    y = jnp.pad(y, [(0, 0), (0, 0), (0, b.count * block - w), (0, 0)])
    return y.reshape(n * h * b.count, block * o)


def _rows(geometry: Geometry) -> int:
    """Padded rows of which every one is seen by a window."""
    return (geometry.out[0] - 1) * geometry.strides[0] + geometry.window[0]


def _patches(x: jax.Array, geometry: Geometry, b: _Blocks) -> jax.Array:
    """Patches of x as a matrix (N * h * count, kh * chunks * span * I)."""
    n, height, width, channels = x.shape
    (top, _), (left, _) = geometry.padding
    rows, columns = _rows(geometry), (b.count + b.chunks - 1) * b.span
    config = ((0, 0, 0), (top, rows - height - top, 0), (left, columns - width - left, 0), (0, 0, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    index = np.arange(rows * columns * channels, dtype=np.int32).reshape(rows, columns, channels)
    seen = np.lib.stride_tricks.sliding_window_view(index, (geometry.window[0], b.chunks * b.span), (0, 1))
    seen = seen[:: geometry.strides[0], :: b.span].transpose(0, 1, 3, 4, 2).reshape(-1)
    x = x.reshape(n, -1).at[:, seen].get(mode="promise_in_bounds")
    return x.reshape(n * geometry.out[0] * b.count, -1)


def _add_patches(patches: jax.Array, geometry: Geometry, b: _Blocks, n: int, channels: int) -> jax.Array:
    """The transpose of `_patches`."""
    (height, width), (ho, _), (kh, _), (stride, _) = geometry.size, geometry.out, geometry.window, geometry.strides
    (top, _), (left, _) = geometry.padding
    rows, wide = _rows(geometry), b.span * channels
    patches = patches.reshape(n, ho, b.count, kh * b.chunks, wide)
    zero = jnp.zeros((), patches.dtype)
    total = None
    for i in range(kh):
        for j in range(b.chunks):
            last = (ho - 1) * stride + 1
            config = ((0, 0, 0), (i, rows - last - i, stride - 1), (j, b.chunks - 1 - j, 0), (0, 0, 0))
            piece = lax.pad(patches[:, :, :, i * b.chunks + j], zero, config)
            total = piece if total is None else total + piece
    # Without the barrier XLA adds the patches up again for every use.
    total = lax.optimization_barrier(total).reshape(n, rows, -1, channels)
    config = ((0, 0, 0), (-top, height + top - rows, 0), (-left, width + left - total.shape[2], 0), (0, 0, 0))
    return lax.pad(total, zero, config)


def _band(kernel: jax.Array, geometry: Geometry, b: _Blocks, block: int) -> jax.Array:
    """The kernel (kh, kw, I, O) at each of `block` places: a matrix (kh * chunks * span * I, block * O).

    A row of length `columns + stride` repeated `block` times and cut to rows of length `columns` moves right by the
    stride from row to row.
    """
    kh, kw, i, o = kernel.shape
    columns, stride = b.chunks * b.span, geometry.strides[1]
    row = jnp.pad(jnp.transpose(kernel, (0, 2, 3, 1)), [(0, 0)] * 3 + [(0, columns + stride - kw)])
    band = jnp.broadcast_to(row[..., None, :], (kh, i, o, block, columns + stride)).reshape(kh, i, o, -1)
    band = band[..., : block * columns].reshape(kh, i, o, block, columns)
    return jnp.transpose(band, (0, 4, 1, 3, 2)).reshape(kh * columns * i, block * o)


def _unband(band: jax.Array, geometry: Geometry, b: _Blocks, block: int, i: int, o: int) -> jax.Array:
    """The transpose of `_band`."""
    (kh, kw), columns, stride = geometry.window, b.chunks * b.span, geometry.strides[1]
    band = jnp.transpose(band.reshape(kh, columns, i, block, o), (0, 2, 4, 3, 1)).reshape(kh, i, o, block * columns)
    rows = jnp.pad(band, [(0, 0)] * 3 + [(0, block * stride)]).reshape(kh, i, o, block, columns + stride)
    return jnp.transpose(rows[..., :kw].sum(3), (0, 3, 1, 2))
