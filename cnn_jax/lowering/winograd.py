"""Convolution with a 3x3 window at stride 1 by Winograd's minimal filtering, F(2x2, 3x3).

Four outputs of a 2x2 tile need 36 multiplications by the definition, and 16 here (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2015, arXiv:1509.09308, section 4.1): with the 4x4 tile d of the input that they see,
and the window g, they are A'[(G g G') * (B' d B)]A. Over many tiles and channels the elementwise product is sixteen
matrix products. What it costs is to write the transformed tiles, four times the input, and the products, four times
the output, so it pays where channels are many.

The transforms of the tiles only add and subtract, at most four numbers each, and those of the window halve exactly.
The results therefore err little more than those of the definition (see the bound in the tests).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import product, wide
from cnn_jax.lowering.tiles import added

Quad = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Grid = Sequence[Sequence[jax.Array]]
"""The 4x4 components of a transform, rows before columns."""


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (3, 3, I, O)."""
    dtype = x.dtype
    x, kernel = _widened(x, kernel)
    tiles = _tiles(x, geometry.padding, geometry.out)
    return _filtered(tiles, _windows(kernel), (1, 0), geometry.out, geometry).astype(dtype)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): a convolution with the window turned round.

    Turning a window round swaps the first and the last component of its transform.
    """
    dtype = y.dtype
    y, kernel = _widened(y, kernel)
    windows = _windows(kernel)
    turned = [[windows[u][v] for v in (3, 1, 2, 0)] for u in (3, 1, 2, 0)]
    padding = tuple((2 - low, 2 - high) for low, high in geometry.padding)
    return _filtered(_tiles(y, padding, geometry.size), turned, (1, 1), geometry.size, geometry).astype(dtype)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): the transpose of all that in g."""
    return added(functools.partial(_weight_gradient, geometry=geometry), x, y, tiles).astype(x.dtype)


def _weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    x, y = _widened(x, y)
    tiles, inputs, outputs = _tiles(x, geometry.padding, geometry.out), x.shape[-1], y.shape[-1]
    config = [(0, 0, 0), *((0, n % 2, 0) for n in geometry.out), (0, 0, 0)]
    y = lax.optimization_barrier(lax.pad(y, jnp.zeros((), y.dtype), config))
    spread = [_spread(row[:, :, 0::2], row[:, :, 1::2]) for row in _spread(y[:, 0::2], y[:, 1::2])]
    sums = [
        [
            product(t.reshape(-1, inputs), s.reshape(-1, outputs), (0, 0), geometry.precision, x.dtype)
            for t, s in zip(*rows, strict=True)
        ]
        for rows in zip(tiles, spread, strict=True)
    ]
    rows = [_to_window(*row) for row in sums]
    columns = [_to_window(*column) for column in zip(*rows, strict=True)]
    return jnp.stack([jnp.stack(row) for row in zip(*columns, strict=True)])


def _widened(*arrays: jax.Array) -> list[jax.Array]:
    """In float32 at least: the transforms add up numbers that half precision would round."""
    return [a.astype(wide(a.dtype)) for a in arrays]


def _tiles(x: jax.Array, padding: tuple[tuple[int, int], ...], out: tuple[int, ...]) -> Grid:
    """B' d B of the tiles of x (N, H, W, C) that give the outputs, 2x2 a tile: (N, th, tw, C) each."""
    config = [(0, 0, 0)]
    for size, (low, _), n in zip(x.shape[1:3], padding, out, strict=True):
        config.append((low, n + n % 2 + 2 - size - low, 0))
    # Without the barrier XLA looks for the padding in every element of every tile.
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)]))
    return [_tile(row, 2) for row in _tile(x, 1)]


def _tile(x: jax.Array, axis: int) -> Quad:
    """B' in one dimension: of each run of four elements, the next beginning two later."""
    a, b, c, d = (lax.slice_in_dim(x, k, x.shape[axis] - 2 + k // 2 * 2, 2, axis) for k in range(4))
    return a - c, b + c, c - b, b - d


def _windows(kernel: jax.Array) -> Grid:
    """G g G' of the kernel's windows: (I, O) each."""
    return [_window(*row) for row in _window(*kernel)]


def _window(a: jax.Array, b: jax.Array, c: jax.Array) -> Quad:
    half = (a + c) * 0.5
    return a, half + b * 0.5, half - b * 0.5, c


def _to_window(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The transpose of `_window`."""
    return a + (b + c) * 0.5, (b - c) * 0.5, d + (b + c) * 0.5


def _spread(a: jax.Array, b: jax.Array) -> Quad:
    """A in one dimension: the transpose of what makes two outputs of four products."""
    return a, a + b, a - b, -b


def _filtered(tiles: Grid, windows: Grid, axes: tuple[int, int], out: tuple[int, ...], geometry: Geometry) -> jax.Array:
    """A'[windows * tiles]A, the outputs (N, *out, O)."""
    shape, dtype = tiles[0][0].shape[:3], tiles[0][0].dtype
    products = [
        [
            product(t.reshape(-1, t.shape[-1]), w, axes, geometry.precision, dtype).reshape(*shape, -1)
            for t, w in zip(*rows, strict=True)
        ]
        for rows in zip(tiles, windows, strict=True)
    ]
    rows = [(a + b + c, b - c - d) for a, b, c, d in products]
    pairs = [jnp.stack((a + b + c, b - c - d), 2) for a, b, c, d in zip(*rows, strict=True)]
    y = jnp.stack(pairs, 4)
    y = y.reshape(shape[0], 2 * shape[1], 2 * shape[2], -1)[:, : out[0], : out[1]]
    return lax.optimization_barrier(y)
