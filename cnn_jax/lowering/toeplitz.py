"""Convolutions of each channel alone with large windows, as one convolution along the rows for each channel.

Depthwise, a place of a window is one multiplication for each output, and a window of 31x31 has a thousand of them. But
a row of the window, at all the places of an image's row where it may lie, is a banded (Toeplitz) matrix from columns to
columns. With columns in the place of channels, what is done with a channel's images is a convolution along the rows
alone, of as many inputs and outputs as there are columns, for which XLA has fast products. So are its gradients; that
to the kernel is one with as large a window as there are rows, and images in the place of channels. It gives the
gradient to the bands, which is added up along their diagonals.

What it costs is products with the zeros of the band. Rows are therefore cut where images are much wider than windows:
`block` neighbouring columns of the result are computed from those that they see. Where they are not cut, zeros of the
padding are left out. Times an infinity or NaN all other zeros are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import sequential_vmap

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import product, wide


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, 1, O) in I groups, `block` columns of the output at a time."""
    columns, multiple = _to_outputs(geometry, block), kernel.shape[3] // geometry.groups
    strides, dilation = geometry.strides[0], geometry.kernel_dilation[0]
    x = _padded(jnp.transpose(x.astype(wide(x.dtype)), (3, 0, 1, 2)), _seen_rows(geometry), columns.padding, (2, 3))

    def channel(x: jax.Array, kernel: jax.Array) -> jax.Array:
        n, rows, _ = x.shape
        bands = jnp.moveaxis(kernel[..., columns.taps], 1, 3).reshape(geometry.window[0], columns.seen, -1)
        y = _along_rows(columns.cut(x, 2, 0).reshape(-1, rows, columns.seen), bands, strides, dilation, geometry)
        return y.reshape(columns.blocks, n, -1, columns.block, multiple)

    y = jnp.transpose(_each(channel, x, _kernels(kernel, geometry)), (2, 3, 1, 4, 0, 5))
    y = y.reshape(len(y), geometry.out[0], columns.blocks * columns.block, -1)
    return y[:, :, : geometry.out[1]].astype(kernel.dtype)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O), `block` columns of the input at a time.

    It is the convolution, with zeros between the rows of a stride, of the kernel turned round.
    """
    columns, dilation, stride = _to_inputs(geometry, block), geometry.kernel_dilation[0], geometry.strides[0]
    low = (geometry.window[0] - 1) * dilation - geometry.padding[0][0]
    rows = (low, geometry.size[0] + geometry.padding[0][0] - (geometry.out[0] - 1) * stride - 1, stride - 1)
    y = y.astype(wide(y.dtype)).reshape(*y.shape[:3], geometry.groups, -1)
    y = _padded(jnp.transpose(y, (3, 0, 1, 2, 4)), rows, columns.padding, (2, 3))

    def channel(y: jax.Array, kernel: jax.Array) -> jax.Array:
        n, rows, _, multiple = y.shape
        bands = jnp.moveaxis(kernel[::-1, :, columns.taps], 1, 2)
        bands = bands.reshape(geometry.window[0], columns.seen * multiple, columns.block)
        y = columns.cut(y, 2, 0).reshape(-1, rows, columns.seen * multiple)
        return _along_rows(y, bands, 1, dilation, geometry).reshape(columns.blocks, n, -1, columns.block)

    x = jnp.transpose(_each(channel, y, _kernels(kernel, geometry)), (2, 3, 1, 4, 0))
    x = x.reshape(len(x), geometry.size[0], columns.blocks * columns.block, -1)
    return x[:, :, : geometry.size[1]].astype(kernel.dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, block: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O), `block` columns of y at a time."""
    columns, dtype, (height, width) = _to_outputs(geometry, block), wide(x.dtype), geometry.window
    strides, dilation, multiple = geometry.strides[0], geometry.kernel_dilation[0], y.shape[3] // geometry.groups
    xs = _padded(jnp.transpose(x.astype(dtype), (3, 2, 1, 0)), _seen_rows(geometry), columns.padding, (2, 1))
    y = jnp.pad(y.astype(dtype), [(0, 0), (0, 0), (0, columns.blocks * columns.block - y.shape[2]), (0, 0)])
    y = y.reshape(*y.shape[:2], columns.blocks, columns.block, geometry.groups, multiple)
    y = jnp.transpose(y, (4, 1, 2, 0, 5, 3)).reshape(geometry.groups, geometry.out[0], -1, multiple * columns.block)
    diagonals = (columns.taps[..., None] == np.arange(width)).reshape(-1, width)

    def channel(x: jax.Array, y: jax.Array) -> jax.Array:
        x = columns.cut(x, 0, 2).reshape(columns.seen, x.shape[1], -1)
        bands = _along_rows(x, y, dilation, strides, geometry).reshape(columns.seen, height * multiple, columns.block)
        bands = jnp.moveaxis(bands, 1, 0).reshape(height * multiple, -1)
        return product(bands, jnp.asarray(diagonals, dtype), (1, 0), geometry.precision, dtype)

    gradient = _each(channel, xs, y).reshape(geometry.groups, height, multiple, width)
    return jnp.transpose(gradient, (1, 3, 0, 2)).reshape(height, width, 1, -1).astype(x.dtype)


@dataclass(frozen=True)
class _Columns:
    """Blocks of columns of the result, and the columns of the operand that they see.

    Attributes:
      block, blocks: columns in each block, and how many blocks there are.
      seen, span: columns that a block sees, and how far the next one's lie behind.
      padding: of the operand's columns, before and after; a negative count crops.
      taps: (seen, block), the place in the kernel's row at which one sees the other; beyond its end where nowhere.
    """

    block: int
    blocks: int
    seen: int
    span: int
    padding: tuple[int, int]
    taps: np.ndarray

    def cut(self, x: jax.Array, axis: int, to: int) -> jax.Array:
        """What the blocks see of padded x, whose columns are dimension `axis`, in a new dimension `to`."""
        each = [lax.slice_in_dim(x, n * self.span, n * self.span + self.seen, axis=axis) for n in range(self.blocks)]
        return jnp.stack(each, to)


def _to_outputs(geometry: Geometry, block: int) -> _Columns:
    block, stride = min(block, geometry.out[1]), geometry.strides[1]
    first = -geometry.padding[1][0]
    last = first + (block - 1) * stride + (geometry.window[1] - 1) * geometry.kernel_dilation[1]
    blocks = -(-geometry.out[1] // block)

    def taps(seen: np.ndarray) -> np.ndarray:
        return _taps(seen[:, None], np.arange(block), geometry)

    return _columns(block, blocks, first, last, block * stride, geometry.size[1], taps)


def _to_inputs(geometry: Geometry, block: int) -> _Columns:
    stride, left = geometry.strides[1], geometry.padding[1][0]
    block = min(-(-block // stride) * stride, geometry.size[1])  # so that all see what lies alike
    first = -(((geometry.window[1] - 1) * geometry.kernel_dilation[1] - left) // stride)
    last = (block - 1 + left) // stride
    blocks = -(-geometry.size[1] // block)

    def taps(seen: np.ndarray) -> np.ndarray:
        return _taps(np.arange(block), seen[:, None], geometry)

    return _columns(block, blocks, first, last, block // stride, geometry.out[1], taps)


def _columns(
    block: int, blocks: int, first: int, last: int, span: int, size: int, taps: Callable[[np.ndarray], np.ndarray]
) -> _Columns:
    """Of an operand of `size` columns, of which the first block sees those from `first` to `last`."""
    if blocks == 1:  # no zeros, and one column where it sees nothing else
        first, last = min(max(first, 0), size - 1), max(min(last, size - 1), 0)
        last = max(first, last)
    padding = (-first, (blocks - 1) * span + last + 1 - size)
    return _Columns(block, blocks, last + 1 - first, span, padding, taps(np.arange(first, last + 1)))


def _taps(inputs: np.ndarray, outputs: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Where in a row of the window columns of the input lie, for columns of the output; beyond its end if nowhere."""
    taps, between = np.divmod(
        inputs - outputs * geometry.strides[1] + geometry.padding[1][0], geometry.kernel_dilation[1]
    )
    return np.where((between == 0) & (taps >= 0) & (taps < geometry.window[1]), taps, geometry.window[1])


def _seen_rows(geometry: Geometry) -> tuple[int, int, int]:
    """The padding of the rows of which every one is seen by a window."""
    (top, _), dilation = geometry.padding[0], geometry.kernel_dilation[0]
    last = (geometry.out[0] - 1) * geometry.strides[0] + (geometry.window[0] - 1) * dilation
    return top, last + 1 - top - geometry.size[0], 0


def _padded(x: jax.Array, rows: tuple[int, int, int], columns: tuple[int, int], axes: tuple[int, int]) -> jax.Array:
    """x with its rows and columns, the dimensions `axes`, padded; written down, or each channel would look for it."""
    config = [(0, 0, 0)] * x.ndim
    config[axes[0]], config[axes[1]] = rows, (*columns, 0)
    return lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), config))


def _kernels(kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The kernel (kh, kw, 1, O) of each channel, (I, kh, O / I, kw + 1), with a zero at the end of each row."""
    kernel = kernel.astype(wide(kernel.dtype)).reshape(*geometry.window, geometry.groups, -1)
    return jnp.pad(jnp.transpose(kernel, (2, 0, 3, 1)), [(0, 0), (0, 0), (0, 0), (0, 1)])


def _along_rows(x: jax.Array, bands: jax.Array, strides: int, dilation: int, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, rows, A) with bands (window, A, B)."""
    return lax.conv_general_dilated(
        x, bands, (strides,), "VALID", rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC"),
        precision=geometry.precision,
    )  # fmt: skip


def _each(function: Callable[..., jax.Array], *operands: jax.Array) -> jax.Array:
    """`function` of each channel, the leading dimension of the operands, one after the other.

    One after the other also under `jax.vmap`, which would make it a convolution in groups.
    """

    @sequential_vmap
    def channel(*operands: jax.Array) -> jax.Array:
        return function(*operands)

    return lax.map(lambda each: channel(*lax.optimization_barrier(each)), operands)
