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
from tests.geometries import ints, normal, seeds
from tests.test_lowerings import REFERENCE, UNIT, make_geometry, operands

WAYS = {
    "conv": winograd.conv,
    "input_gradient": winograd.input_gradient,
    "weight_gradient": functools.partial(winograd.weight_gradient, tiles=1),
}

# F(2x2, 3x3) as published (Lavin and Gray 2015, section 4.1): Y = A'[(G g G') * (B' d B)]A.
A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2


def tiles(x, padding, out):
    """The 4x4 tiles at stride 2 that cover the outputs, (N, th, tw, 4, 4, C)."""
    x = np.pad(x, [(0, 0), *((max(low, 0), 9) for low, _ in padding), (0, 0)])
    x = x[:, max(-padding[0][0], 0) :, max(-padding[1][0], 0) :]
    seen = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (1, 2))
    return seen[:, : out[0] : 2, : out[1] : 2].transpose(0, 1, 2, 4, 5, 3)


def filtered(x, padding, out, kernel, a, b, g):
    """The convolution by the published formula, with the matrices given."""
    d, w = tiles(x, padding, out), np.einsum("ui,ijco,vj->uvco", g, kernel, g)
    d = np.einsum("yu,nhwyxc,xv->nhwuvc", b, d, b)
    y = np.einsum("uy,nhwuvc,uvco,vx->nhywxo", a, d, w, a)
    return y.reshape(x.shape[0], 2 * y.shape[1], 2 * y.shape[3], -1)[:, : out[0], : out[1]]


def kernel_gradient(x, y, geometry, a, b, g):
    d = np.einsum("yu,nhwyxc,xv->nhwuvc", b, tiles(x, geometry.padding, geometry.out), b)
    y = np.pad(y, [(0, 0), *((0, n % 2) for n in geometry.out), (0, 0)])
    y = y.reshape(y.shape[0], y.shape[1] // 2, 2, y.shape[2] // 2, 2, -1)
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


@settings(max_examples=12, deadline=None)
@given(
    ints(3, 8, 2),
    st.tuples(ints(-1, 2, 2), ints(-1, 2, 2)),
    ints(1, 3, 3),
    seeds,
    st.sampled_from(["float32", "bfloat16"]),
)
def test_winograd_is_within_its_rounding_of_the_definition(size, padding, counts, seed, dtype):
    size = tuple(max(n, 3 - sum(pair), 4) for n, pair in zip(size, padding, strict=True))
    geometry, (n, i, o) = make_geometry(size, (3, 3), (1, 1), padding), counts
    shapes = (n, *size, i), (3, 3, i, o), (n, *geometry.out, o)
    arrays = [jnp.asarray(a, dtype) for a in normal(seed, *shapes)]
    exact = [np.asarray(a, np.float64) for a in arrays]
    absolute = [abs(a) for a in exact]
    for operation in REFERENCE:
        found = jax.jit(WAYS[operation], static_argnames="geometry")(*operands(operation, arrays), geometry=geometry)
        expected = REFERENCE[operation](*operands(operation, exact), geometry)
        np.testing.assert_allclose(formula(operation, *exact, geometry, A, B, G), expected, atol=1e-12)
        # On its way to a result each number is rounded at most 2 times in the transform of the tiles, 4 in that of the
        # window, once for each product added up, and 4 in the transform of the result (Higham, Accuracy and Stability
        # of Numerical Algorithms, section 3.1), and is one of the terms that the formula has of absolute values.
        products = {
            "conv": i,
            "input_gradient": o,
            "weight_gradient": n * math.prod((m + 1) // 2 for m in geometry.out),
        }[operation]
        error = (products + 10) * 2.0**-24
        bound = error / (1 - error) * formula(operation, *absolute, geometry, abs(A), abs(B), abs(G))
        if dtype == "bfloat16":  # All that is computed in float32, and rounded once.
            bound += UNIT[dtype] * (abs(expected) + bound)
        assert found.dtype == dtype
        assert (abs(np.asarray(found, np.float64) - expected) <= bound).all(), operation


@pytest.mark.parametrize("operation", list(REFERENCE))
def test_on_whole_numbers_winograd_is_exact(operation):
    # Every step is then exact, halves of sums included: a wrong coefficient cannot hide in the rounding.
    geometry = make_geometry((6, 5), (3, 3), (1, 1), ((1, 1), (1, 1)))
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-8, 9, s).astype(np.float32) for s in ((2, 6, 5, 3), (3, 3, 3, 2), (2, 6, 5, 2))]
    found = WAYS[operation](*operands(operation, [jnp.asarray(a) for a in arrays]), geometry=geometry)
    np.testing.assert_array_equal(found, REFERENCE[operation](*operands(operation, arrays), geometry))
