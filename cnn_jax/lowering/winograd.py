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

How it is written decides how long programs take to compile, of which XLA:CPU spends most on its loops, one after the
other. All components of a transform are therefore one array, and one loop; and the images lie next to the channels, so
that the innermost extent is long: of one with some hundred numbers LLVM unrolls all, and takes seconds over what it
then finds side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.products import wide, wide_products
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
    channels = kernel.shape[2:]
    rows = _mixed(window, kernel.reshape(3, -1)).reshape(len(window), 3, -1)
    windows = _mixed(window, jnp.moveaxis(rows, 1, 0)).reshape(-1, *channels)

    def filtered(x: jax.Array) -> jax.Array:
        components = _components(x.astype(wide(dtype)), geometry, _SIDE).reshape(len(windows), -1, x.shape[-1])
        y = wide_products(components, windows, axes, geometry.precision)
        n, outputs = len(x), y.shape[-1]
        columns = _mixed(matrices.outputs, y.reshape(_SIDE + 2, -1)).reshape(_SIDE, _SIDE + 2, -1)
        y = jnp.stack(_sums(matrices.outputs, jnp.moveaxis(columns, 1, 0)))  # rows of a tile, its columns, tiles
        y = y.reshape(_SIDE, _SIDE, th, tw, n, outputs).transpose(4, 2, 0, 3, 1, 5)
        y = y.reshape(n, th * _SIDE, tw * _SIDE, outputs)
        return _kept(y[:, : geometry.out[0], : geometry.out[1]].astype(dtype))

    return joined(filtered, x, tiles)


def _weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, side: int) -> jax.Array:
    # In float32 at least: the transforms add up numbers that half precision would round.
    matrices, x, y = FILTERS[side], x.astype(wide(x.dtype)), y.astype(wide(y.dtype))
    (th, tw), inputs, outputs = _counts(geometry, side), x.shape[-1], y.shape[-1]
    spread = tuple(zip(*matrices.outputs, strict=True))
    gathered = tuple(zip(*matrices.window, strict=True))
    ends = [(0, count * side - n) for count, n in zip((th, tw), geometry.out, strict=True)]
    rows = _mixed(spread, jnp.moveaxis(_laid(y, ends).reshape(th, side, -1), 1, 0))
    rows = rows.reshape((side + 2) * th * tw, side, -1)
    cotangents = _mixed(spread, jnp.moveaxis(rows, 1, 0)).reshape((side + 2) ** 2, -1, outputs)
    components = _components(x, geometry, side).reshape((side + 2) ** 2, -1, inputs)
    sums = wide_products(components, cotangents, (0, 0), geometry.precision)
    columns = _mixed(gathered, sums.reshape(side + 2, -1)).reshape(3, side + 2, -1)
    return jnp.stack(_sums(gathered, jnp.moveaxis(columns, 1, 0))).reshape(3, 3, inputs, outputs)


def _counts(geometry: Geometry, side: int) -> tuple[int, ...]:
    """Tiles in each dimension."""
    return tuple(-(-n // side) for n in geometry.out)


def _components(x: jax.Array, geometry: Geometry, side: int) -> jax.Array:
    """B' d B of the tiles of x (N, H, W, C) that give the outputs: (columns of it, its rows and th, tw, N C)."""
    th, tw = _counts(geometry, side)
    ends = [
        (low, count * side + 2 - size - low)
        for size, (low, _), count in zip(geometry.size, geometry.padding, (th, tw), strict=True)
    ]
    x, tile = _laid(x, ends), FILTERS[side].tile
    # Rows are written down before columns: XLA mixes them anew for each otherwise.
    rows = _mixed(tile, _strided(x.reshape(len(x), -1), 0, side)).reshape(-1, *x.shape[1:])
    return _mixed(tile, _strided(rows, 1, side))


def _laid(x: jax.Array, ends: Iterable[tuple[int, int]]) -> jax.Array:
    """x (N, H, W, C) with zeros before and after each of its spatial dimensions, as rows of places (H, W, N C)."""
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in ends), (0, 0, 0)])
    # Without the barrier XLA looks for the padding in every element of every tile.
    x = _kept(jnp.moveaxis(x, 0, 2))
    return x.reshape(*x.shape[:2], -1)


def _kept(x: jax.Array) -> jax.Array:
    """x, computed once: XLA does not compute it anew wherever it is used."""
    return lax.optimization_barrier(x)


def _strided(x: jax.Array, axis: int, side: int) -> list[jax.Array]:
    """The elements of each run of side + 2 along an axis, the next run beginning `side` later."""
    last = x.shape[axis] - side - 1
    return [lax.slice_in_dim(x, n, last + n, side, axis) for n in range(side + 2)]


def _mixed(matrix: Matrix, parts: Sequence[jax.Array] | jax.Array) -> jax.Array:
    """The matrix times a column of arrays, written down as one array."""
    return _kept(jnp.stack(_sums(matrix, parts)))


def _sums(matrix: Matrix, parts: Sequence[jax.Array] | jax.Array) -> list[jax.Array]:
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
