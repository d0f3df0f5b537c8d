"""Winograd's convolution against the definition in float64, within the rounding that its own sums allow."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.lowering import winograd
from tests import quick
from tests.geometries import ints, normal, seeds
from tests.test_lowerings import REFERENCE, UNIT, make_geometry, operands


def toom_cook(points):
    """A, B and G of F(m, 3) from m + 1 points and infinity (Lavin and Gray 2015, section 4; Toom 1963, Cook 1966).

    The product of two polynomials is known by its values at the points and by its highest coefficient; B has the
    polynomials that vanish at all points but one, A and G the powers of the points.
    """
    m = len(points) - 1
    values = [np.prod([p - q for q in points if q != p]) for p in points]
    a = np.array([[float(p) ** n for n in range(m)] for p in points] + [[0.0] * (m - 1) + [1.0]])
    g = np.array([[float(p) ** n / value for n in range(3)] for p, value in zip(points, values, strict=True)])
    others = [[q for q in points if q != p] for p in points]
    b = [np.append(np.polynomial.polynomial.polyfromroots(roots), 0.0) for roots in others]
    b.append(np.polynomial.polynomial.polyfromroots(points))
    return a, np.array(b).T, np.vstack([g, [0, 0, 1]])


# Y = A'[(G g G') * (B' d B)]A: of 2x2 outputs as published (Lavin and Gray 2015, section 4.1), of 4x4 by construction.
MATRICES = {
    2: (
        np.array([[1, 0], [1, 1], [1, -1], [0, -1]]),
        np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]]),
        np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    ),
    4: toom_cook([0, 3 / 4, -3 / 4, 3 / 2, -3 / 2]),
}


def tiles(x, padding, out, side):
    """The tiles of side + 2 at stride side that cover the outputs, (N, th, tw, side + 2, side + 2, C)."""
    x = np.pad(x, [(0, 0), *((max(low, 0), 9) for low, _ in padding), (0, 0)])
    x = x[:, max(-padding[0][0], 0) :, max(-padding[1][0], 0) :]
    seen = np.lib.stride_tricks.sliding_window_view(x, (side + 2, side + 2), (1, 2))
    return seen[:, : out[0] : side, : out[1] : side].transpose(0, 1, 2, 4, 5, 3)


def filtered(x, padding, out, kernel, a, b, g):
    """The convolution by the published formula, with the matrices given."""
    side = a.shape[1]
    d, w = tiles(x, padding, out, side), np.einsum("ui,ijco,vj->uvco", g, kernel, g)
    d = np.einsum("yu,nhwyxc,xv->nhwuvc", b, d, b)
    y = np.einsum("uy,nhwuvc,uvco,vx->nhywxo", a, d, w, a)
    return y.reshape(x.shape[0], side * y.shape[1], side * y.shape[3], -1)[:, : out[0], : out[1]]


def kernel_gradient(x, y, geometry, a, b, g):
    side = a.shape[1]
    d = np.einsum("yu,nhwyxc,xv->nhwuvc", b, tiles(x, geometry.padding, geometry.out, side), b)
    y = np.pad(y, [(0, 0), *((0, -n % side) for n in geometry.out), (0, 0)])
    y = y.reshape(y.shape[0], y.shape[1] // side, side, y.shape[2] // side, side, -1)
    y = np.einsum("uy,nhywxo,vx->nhwuvo", a, y, a)
    return np.einsum("ui,nhwuvc,nhwuvo,vj->ijco", g, d, y, g)


def formula(operation, x, kernel, y, geometry, a, b, g):
    if operation == "weight_gradient":
        return kernel_gradient(x, y, geometry, a, b, g)
    if operation == "conv":
        return filtered(x, geometry.padding, geometry.out, kernel, a, b, g)
    turned = np.flip(kernel, (0, 1)).swapaxes(2, 3)
    padding = [(2 - low, 2 - high) for low, high in geometry.padding]
    return filtered(y, padding, geometry.size, turned, a, b, g)


def filtered_by_winograd(geometry, side, tiles):
    """A compiled function of images, kernel and cotangents; of 4x4 outputs only the gradient to the kernel is taken."""
    ways = {"weight_gradient": functools.partial(winograd.weight_gradient, side=side)}
    if side == 2:
        ways |= {"conv": winograd.conv, "input_gradient": winograd.input_gradient}

    @quick.jit
    def everything(arrays):
        return {
            operation: way(*operands(operation, arrays), geometry=geometry, tiles=tiles)
            for operation, way in ways.items()
        }

    return everything


@settings(max_examples=12, deadline=None)
@given(
    ints(3, 8, 2),
    st.tuples(ints(-1, 2, 2), ints(-1, 2, 2)),
    ints(1, 3, 3),
    seeds,
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from(list(MATRICES)),
)
def test_winograd_is_within_its_rounding_of_the_definition(size, padding, counts, seed, dtype, side):
    size = tuple(max(n, 3 - sum(pair), 4) for n, pair in zip(size, padding, strict=True))
    a, b, g = MATRICES[side]
    geometry, (n, i, o) = make_geometry(size, (3, 3), (1, 1), padding), counts
    shapes = (n, *size, i), (3, 3, i, o), (n, *geometry.out, o)
    arrays = [jnp.asarray(a, dtype) for a in normal(seed, *shapes)]
    exact = [np.asarray(a, np.float64) for a in arrays]
    absolute = [abs(a) for a in exact]
    results = filtered_by_winograd(geometry, side, n)(arrays)
    for operation, found in results.items():
        expected = REFERENCE[operation](*operands(operation, exact), geometry)
        np.testing.assert_allclose(formula(operation, *exact, geometry, a, b, g), expected, atol=1e-12)
        # On its way to a result each number is rounded once for each product added up, and in the transforms of tile,
        # window and result, each in two dimensions, by every factor and every addition, and for side 4 by the factors
        # of the window being rounded themselves: 2 + 4 + 4 times for side 2; for side 4 at most 8 (four terms a row),
        # 8 (three terms, rounded factors) and 14 (six terms). It is one of the terms that the formula has of absolute
        # values (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
        products = {
            "conv": i,
            "input_gradient": o,
            "weight_gradient": n * math.prod(-(-m // side) for m in geometry.out),
        }[operation]
        error = (products + {2: 10, 4: 30}[side]) * 2.0**-24
        bound = error / (1 - error) * formula(operation, *absolute, geometry, abs(a), abs(b), abs(g))
        if dtype == "bfloat16":  # All that is computed in float32, and rounded once.
            bound += UNIT[dtype] * (abs(expected) + bound)
        assert found.dtype == dtype
        assert (abs(np.asarray(found, np.float64) - expected) <= bound).all(), operation


@pytest.mark.parametrize("side", list(MATRICES))
def test_in_float64_a_wrong_coefficient_cannot_hide_in_the_rounding(side):
    geometry = make_geometry((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)))
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-8, 9, s).astype(np.float64) for s in ((2, 6, 5, 3), (3, 3, 3, 2), (2, 6, 5, 2))]
    with jax.enable_x64(True):
        results = filtered_by_winograd(geometry, side, 1)(arrays)
    for operation, found in results.items():
        expected = REFERENCE[operation](*operands(operation, arrays), geometry)
        np.testing.assert_allclose(found, expected, atol=1e-10, err_msg=operation)
