"""Convolution as one product of image patches with a banded matrix, `block` outputs of a row at a time.

XLA:CPU is slow where channels are few: its product has a column per output channel, and its patches are copied in runs
of a window's width times the input channels. Here `block` neighbouring outputs of an image row are computed together.
They see (block - 1) * stride + kw input columns, so with the kernel repeated at each of its `block` places in a banded
(Toeplitz) matrix the product has `block` times as many columns and fewer, wider patches. What it costs is products
with the zeros of the band, about (block - 1) * stride / kw of the useful ones. Times an infinity or NaN these zeros are
NaN, for up to block - 1 outputs beside those that see it, or inputs beside those that it is the gradient of.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import product, wide
from cnn_jax.lowering.tiles import added, joined


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, block: int, tiles: int) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, I, O): patches times band."""
    block, columns = _limited(geometry, block)
    band = _band(kernel, geometry, block, columns)

    def banded(x: jax.Array) -> jax.Array:
        y = product(_patches(x, geometry, block, columns), band, (1, 0), geometry.precision, x.dtype)
        return y.reshape(x.shape[0], geometry.out[0], -1, kernel.shape[-1])[:, :, : geometry.out[1]]

    return joined(banded, x, tiles)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, block: int, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): patches, transposed, times y."""
    block, columns = _limited(geometry, block)

    def gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        patches = _patches(x, geometry, block, columns)
        return product(patches, _blocks(y, block), (0, 0), geometry.precision, wide(x.dtype))

    band = added(gradient, (x, y), tiles)
    band = band.reshape(geometry.window[0], columns, x.shape[-1], block, y.shape[-1])
    return _kernel(band, geometry).astype(x.dtype)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, block: int, tiles: int) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): y times the transposed band, patches added up.

    To be added up, patches are taken `span` columns at a time, the distance from one to the next.
    """
    block, columns = _limited(geometry, block)
    span = block * geometry.strides[1]
    chunks = -(-columns // span)
    band = _band(kernel, geometry, block, chunks * span)
    (kh, _), inputs = geometry.window, kernel.shape[2]

    def gradient(y: jax.Array) -> jax.Array:
        patches = product(_blocks(y, block), band, (1, 1), geometry.precision, wide(y.dtype))
        patches = patches.reshape(*y.shape[:2], -1, kh, chunks, span * inputs)
        return _added(patches, geometry, inputs).astype(y.dtype)

    return joined(gradient, y, tiles)


def _limited(geometry: Geometry, block: int) -> tuple[int, int]:
    """`block`, at most a whole row of outputs, and the input columns that it sees."""
    block = min(block, geometry.out[1])
    return block, (block - 1) * geometry.strides[1] + geometry.window[1]


def _blocks(y: jax.Array, block: int) -> jax.Array:
    """y (N, h, w, O) as a matrix (N * h * ceil(w / block), block * O)."""
    y = jnp.pad(y, [(0, 0), (0, 0), (0, -y.shape[2] % block), (0, 0)])
    return y.reshape(-1, block * y.shape[3])


def _rows(geometry: Geometry) -> int:
    """Padded rows, of which every one is seen by a window."""
    return (geometry.out[0] - 1) * geometry.strides[0] + geometry.window[0]


def _patches(x: jax.Array, geometry: Geometry, block: int, columns: int) -> jax.Array:
    """Patches of x as a matrix (N * h * ceil(w / block), kh * columns * I).

    They are picked from each image by a table, in one pass that XLA runs on all cores.
    """
    (n, height, width, channels), span = x.shape, block * geometry.strides[1]
    (top, _), (left, _) = geometry.padding
    rows, padded = _rows(geometry), (-(-geometry.out[1] // block) - 1) * span + columns
    config = ((0, 0, 0), (top, rows - height - top, 0), (left, padded - width - left, 0), (0, 0, 0))
    if any(map(any, config)):  # written down, or XLA looks for the padding in every element that is picked
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), config))
    if (rows, padded) == (geometry.window[0], columns):  # The whole image is one patch.
        return x.reshape(n, -1)
    index = np.arange(rows * padded * channels, dtype=np.int32).reshape(rows, padded, channels)
    seen = np.lib.stride_tricks.sliding_window_view(index, (geometry.window[0], columns), (0, 1))
    seen = seen[:: geometry.strides[0], ::span].transpose(0, 1, 3, 4, 2)
    picked = x.reshape(n, -1).at[:, seen.reshape(-1)].get(mode="promise_in_bounds")
    return picked.reshape(-1, geometry.window[0] * columns * channels)


def _added(patches: jax.Array, geometry: Geometry, inputs: int) -> jax.Array:
    """Patches (N, h, blocks, kh, chunks, span * I) added up where they lie in the input (N, H, W, I)."""
    (height, width), (top, _), (left, _) = geometry.size, *geometry.padding
    (n, ho, _, kh, chunks, _), stride = patches.shape, geometry.strides[0]
    zero = jnp.zeros((), patches.dtype)
    if patches.shape[1:3] == (1, 1):  # One patch is the whole of the image.
        total = patches
    else:
        last, total = (ho - 1) * stride + 1, zero
        for i in range(kh):
            for j in range(chunks):
                config = ((0, 0, 0), (i, _rows(geometry) - last - i, stride - 1), (j, chunks - 1 - j, 0), (0, 0, 0))
                total += lax.pad(patches[:, :, :, i, j], zero, config)
    # Without the barrier XLA adds the patches up again for every use.
    total = lax.optimization_barrier(total).reshape(n, _rows(geometry), -1, inputs)
    ends = ((-top, height + top - total.shape[1], 0), (-left, width + left - total.shape[2], 0))
    return lax.pad(total, zero, ((0, 0, 0), *ends, (0, 0, 0)))


def _band(kernel: jax.Array, geometry: Geometry, block: int, columns: int) -> jax.Array:
    """The kernel (kh, kw, I, O) at each of `block` places: a matrix (kh * columns * I, block * O).

    A row of length `columns + stride`, repeated `block` times and cut to rows of length `columns`, moves right by the
    stride from row to row.
    """
    (kh, kw, i, o), stride = kernel.shape, geometry.strides[1]
    row = jnp.pad(jnp.transpose(kernel, (0, 2, 3, 1)), [(0, 0)] * 3 + [(0, columns + stride - kw)])
    band = jnp.broadcast_to(row[..., None, :], (kh, i, o, block, columns + stride)).reshape(kh, i, o, -1)
    band = band[..., : block * columns].reshape(kh, i, o, block, columns)
    return jnp.transpose(band, (0, 4, 1, 3, 2)).reshape(kh * columns * i, block * o)


def _kernel(band: jax.Array, geometry: Geometry) -> jax.Array:
    """The transpose of `_band`: a band (kh, columns, I, block, O), added up over its places."""
    (kh, columns, i, block, o), stride = band.shape, geometry.strides[1]
    rows = jnp.transpose(band, (0, 2, 4, 3, 1)).reshape(kh, i, o, block * columns)
    rows = jnp.pad(rows, [(0, 0)] * 3 + [(0, block * stride)]).reshape(kh, i, o, block, columns + stride)
    return jnp.transpose(rows[..., : geometry.window[1]].sum(3), (0, 3, 1, 2))
