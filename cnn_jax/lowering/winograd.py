"""Convolution with a 3x3 window at stride 1 by Winograd's minimal filtering, F(2x2, 3x3) and F(4x4, 3x3).

With the window g, and the tile d of the input that m x m outputs see, those are A'[(G g G') * (B' d B)]A (Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, arXiv:1509.09308, section 4.1). Of 2x2 outputs this
takes 16 multiplications where the definition takes 36, of 4x4 outputs 36 instead of 144. Over many tiles and channels
the elementwise product is (m + 2)^2 matrix products. What it costs is to write the transformed tiles, four times the
input for m = 2 and 2.25 times for m = 4, the products, likewise, and the transformed windows.

Convolutions and their input gradients take m = 2 only. The products that make an output hold nothing that its own
window does not see, so that its error is bounded by what it sees, as that of the definition is: by (terms + 10) 2^-24
times what the formula gives for absolute values. For m = 4 each product mixes all of a tile, and what cancels in exact
arithmetic leaves its rounding behind: an output near activations 10^4 times as large as those that it sees was off by
10^-2 of its size. An infinity makes NaN of outputs that see it, for m = 2, and leaves the others as they are.

The gradient to the kernel is the transpose of all that in g. Each of its numbers is a sum over all places of all
images, so m = 4 is taken there too, and errs by 10^-6 of the sum of absolute values over all of them. (Only the images'
outermost rows and columns are not seen from every place of the window, and are mixed in all the same.) At the points 0,
3/4, -3/4, 3/2, -3/2 and infinity Toom and Cook's construction errs half as much as at the usual 0, 1, -1, 2, -2 and
infinity (as Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", 2020, arXiv:1803.10986, find for others).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import product, wide
from cnn_jax.lowering.tiles import added, joined

Matrix = tuple[tuple[float, ...], ...]


class Filter(NamedTuple):
    """The matrices of F(m x m, 3x3): B' (m + 2, m + 2), G (m + 2, 3) and A' (m, m + 2)."""

    tile: Matrix
    window: Matrix
    outputs: Matrix


FILTERS = {
    2: Filter(
        tile=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        window=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Filter(
        tile=(
            (81 / 64, 0, -45 / 16, 0, 1, 0),
            (0, -27 / 16, -9 / 4, 3 / 4, 1, 0),
            (0, 27 / 16, -9 / 4, -3 / 4, 1, 0),
            (0, -27 / 32, -9 / 16, 3 / 2, 1, 0),
            (0, 27 / 32, -9 / 16, -3 / 2, 1, 0),
            (0, 81 / 64, 0, -45 / 16, 0, 1),
        ),
        window=(
            (64 / 81, 0, 0),
            (-128 / 243, -32 / 81, -8 / 27),
            (-128 / 243, 32 / 81, -8 / 27),
            (32 / 243, 16 / 81, 8 / 27),
            (32 / 243, -16 / 81, 8 / 27),
            (0, 0, 1),
        ),
        outputs=(
            (1, 1, 1, 1, 1, 0),
            (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2, 0),
            (0, 9 / 16, 9 / 16, 9 / 4, 9 / 4, 0),
            (0, 27 / 64, -27 / 64, 27 / 8, -27 / 8, 1),
        ),
    ),
}


# Outputs, in each dimension, that convolutions and input gradients compute at once.
_SIDE = 2


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (3, 3, I, O), 2x2 outputs at once."""
    return _filtered(x, kernel, FILTERS[_SIDE].window, (1, 0), geometry, tiles)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): a convolution with the window turned round.

    Not the window is turned but G, which saves a copy of the kernel.
    """
    turned = tuple(row[::-1] for row in FILTERS[_SIDE].window)
    return _filtered(y, kernel, turned, (1, 1), geometry.turned, tiles)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, side: int, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O), `side` x `side` of it at once."""
    function = functools.partial(_weight_gradient, geometry=geometry, side=side)
    return added(function, (x, y), tiles).astype(x.dtype)


def _filtered(
    x: jax.Array,
    kernel: jax.Array,
    window: Matrix,
    axes: tuple[int, int],
    geometry: Geometry,
    tiles: int,
) -> jax.Array:
    matrices, dtype, (th, tw) = FILTERS[_SIDE], x.dtype, _counts(geometry, _SIDE)
    # Without the barrier XLA transforms the windows of all layers before the first, and holds them until their turn.
    x, kernel = lax.optimization_barrier((x, kernel.astype(wide(dtype))))
    windows = [_mixed(window, row) for row in _mixed(window, kernel)]

    def filtered(x: jax.Array) -> jax.Array:
        rows = []
        for mixed, row in zip(_tile_rows(x.astype(wide(dtype)), geometry, _SIDE), windows, strict=True):
            products = [
                product(tile.reshape(-1, tile.shape[-1]), mixed_window, axes, geometry.precision, wide(dtype))
                for tile, mixed_window in zip(_row(mixed, _SIDE), row, strict=True)
            ]
            rows.append([_kept(a.reshape(-1, th, tw, a.shape[-1])) for a in _mixed(matrices.outputs, products)])
        columns = [_mixed(matrices.outputs, column) for column in zip(*rows, strict=True)]
        y = jnp.stack([jnp.stack(row, 3) for row in zip(*columns, strict=True)], 2)
        y = y.reshape(-1, th * _SIDE, tw * _SIDE, y.shape[-1])
        return _kept(y[:, : geometry.out[0], : geometry.out[1]].astype(dtype))

    return joined(filtered, x, tiles)


def _weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, side: int) -> jax.Array:
    # In float32 at least: the transforms add up numbers that half precision would round.
    matrices, x, y = FILTERS[side], x.astype(wide(x.dtype)), y.astype(wide(y.dtype))
    (th, tw), inputs, outputs = _counts(geometry, side), x.shape[-1], y.shape[-1]
    config = [(0, 0, 0), *((0, t * side - n, 0) for t, n in zip((th, tw), geometry.out, strict=True)), (0, 0, 0)]
    y = _kept(lax.pad(y, jnp.zeros((), y.dtype), config)).reshape(-1, th, side, tw, side, outputs)
    spread = tuple(zip(*matrices.outputs, strict=True))
    gathered = tuple(zip(*matrices.window, strict=True))
    rows = []
    for mixed, row in zip(_tile_rows(x, geometry, side), _mixed(spread, list(jnp.moveaxis(y, 2, 0))), strict=True):
        cotangents = _mixed(spread, list(jnp.moveaxis(_kept(row), 3, 0)))
        sums = [
            product(a.reshape(-1, inputs), b.reshape(-1, outputs), (0, 0), geometry.precision, x.dtype)
            for a, b in zip(_row(mixed, side), cotangents, strict=True)
        ]
        rows.append(_mixed(gathered, sums))
    columns = [_mixed(gathered, column) for column in zip(*rows, strict=True)]
    return jnp.stack([jnp.stack(row) for row in zip(*columns, strict=True)])


def _counts(geometry: Geometry, side: int) -> tuple[int, ...]:
    """Tiles in each dimension."""
    return tuple(-(-n // side) for n in geometry.out)


def _tile_rows(x: jax.Array, geometry: Geometry, side: int) -> list[jax.Array]:
    """B' d of the tiles of x (N, H, W, C) that give the outputs: rows (N, th, W, C) of their components."""
    config = [(0, 0, 0)]
    for size, (low, _), count in zip(geometry.size, geometry.padding, _counts(geometry, side), strict=True):
        config.append((low, count * side + 2 - size - low, 0))
    # Without the barriers XLA looks for the padding in every element of every tile, and mixes rows anew for each.
    x = _kept(lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)]))
    return [_kept(row) for row in _mixed(FILTERS[side].tile, _strided(x, 1, side))]


def _row(mixed: jax.Array, side: int) -> list[jax.Array]:
    """Of a row of B' d that of B' d B: (N, th, tw, C) each."""
    return _mixed(FILTERS[side].tile, _strided(mixed, 2, side))


def _kept(x: jax.Array) -> jax.Array:
    """x, computed once: XLA does not compute it anew wherever it is used."""
    return lax.optimization_barrier(x)


def _strided(x: jax.Array, axis: int, side: int) -> list[jax.Array]:
    """The elements of each run of side + 2 along an axis, the next run beginning `side` later."""
    last = x.shape[axis] - side - 1
    return [lax.slice_in_dim(x, n, last + n, side, axis) for n in range(side + 2)]


def _mixed(matrix: Matrix, parts: Sequence[jax.Array] | jax.Array) -> list[jax.Array]:
    """The matrix times a column of arrays."""
    results = []
    for row in matrix:
        terms = [(number, part) for number, part in zip(row, parts, strict=True) if number]
        (first, total), *rest = [(n, part if abs(n) == 1 else part * abs(n)) for n, part in terms]
        total = total if first > 0 else -total
        for number, term in rest:
            total = total + term if number > 0 else total - term
        results.append(total)
    return results
