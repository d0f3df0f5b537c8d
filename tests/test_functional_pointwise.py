"""The dense layer, squared distances and the scaled tanh against their definitions in float64."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from tests import quick
from tests.geometries import batches, normal, seeds

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def looped_dense(x, kernel, bias):
    y = np.zeros((*x.shape[:-1], kernel.shape[1])) + bias
    for at in np.ndindex(x.shape):
        for o in range(kernel.shape[1]):
            y[(*at[:-1], o)] += x[at] * kernel[at[-1], o]
    return y


@settings(max_examples=25, deadline=None)
@given(batches, st.integers(1, 5), st.integers(1, 5), seeds)
def test_dense_and_its_gradients_are_the_definition(batch, ins, outs, seed):
    arrays = normal(seed, (*batch, ins), (ins, outs), (outs,))
    expected = looped_dense(*arrays)
    rng = np.random.default_rng(0)
    cotangent = rng.standard_normal(expected.shape)
    with jax.enable_x64(True):
        y, gradients = quick.jit(lambda c, *a: (F.dense(*a), jax.vjp(F.dense, *a)[1](c)))(cotangent, *arrays)
        np.testing.assert_allclose(F.dense(*arrays[:2]), expected - arrays[2], **CLOSE)
    np.testing.assert_allclose(y, expected, **CLOSE)
    for which, gradient in enumerate(gradients):
        direction = rng.standard_normal(arrays[which].shape)
        above, below = (
            looped_dense(*[a + step * direction if i == which else a for i, a in enumerate(arrays)])
            for step in (0.5, -0.5)
        )
        np.testing.assert_allclose(np.vdot(gradient, direction), np.vdot(cotangent, above - below), **CLOSE)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((2, 3)), np.zeros((4, 5))), "kernel has 4 input features, input has shape (2, 3)"),
        ((np.zeros(()), np.zeros((4, 5))), "kernel has 4 input features, input has shape ()"),
        ((np.zeros((2, 4)), np.zeros((1, 4, 5))), "kernel must have shape (in, out), got (1, 4, 5)"),
        (
            (np.zeros((2, 4)), np.zeros((4, 5)), np.zeros(4)),
            "bias must have shape (5,), one per output feature, got (4,)",
        ),
    ],
)
def test_dense_says_what_was_expected_and_what_arrived(arrays, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        F.dense(*arrays)
    assert str(error.value) == f"dense: {message}"


def test_squared_distances_and_their_gradients_are_the_definition():
    x, centres, cotangent = normal(0, (2, 3, 4), (5, 4), (2, 3, 5))
    difference = x[..., None, :] - centres
    with jax.enable_x64(True):
        y = F.squared_distances(x, centres)
        gradients = jax.vjp(F.squared_distances, jnp.asarray(x), jnp.asarray(centres))[1](jnp.asarray(cotangent))
    np.testing.assert_allclose(y, np.einsum("abij,abij->abi", difference, difference), **CLOSE)
    pull = 2 * difference * cotangent[..., None]
    np.testing.assert_allclose(gradients[0], pull.sum(-2), **CLOSE)
    np.testing.assert_allclose(gradients[1], -pull.sum((0, 1)), **CLOSE)


def test_the_distance_of_a_point_to_itself_is_zero_however_far_out():
    points = np.float32(1e4) * np.asarray(normal(0, (3, 84))[0], np.float32)
    np.testing.assert_array_equal(np.diag(F.squared_distances(points, points)), 0)
    assert F.squared_distances(np.arange(3), np.ones((2, 3), np.int32)).dtype == jnp.float32


@pytest.mark.parametrize(("x", "centres"), [((2, 3), (4, 2)), ((3,), (3,)), ((), (4, 3)), ((2, 3), (1, 4, 3))])
def test_squared_distances_say_what_was_expected_and_what_arrived(x, centres):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        F.squared_distances(np.zeros(x), np.zeros(centres))
    assert str(error.value) == (
        f"squared_distances: x must be (..., I) and centres (O, I), got shapes {x} and {centres}"
    )


def test_scaled_tanh_is_its_formula_and_keeps_plus_and_minus_one():
    x = np.linspace(-4, 4, 33)
    with jax.enable_x64(True):
        y = F.scaled_tanh(x)
        slopes = jax.vmap(jax.grad(F.scaled_tanh))(jnp.asarray(x))
    np.testing.assert_allclose(y, [1.7159 * math.tanh(2 * v / 3) for v in x], rtol=1e-14)
    np.testing.assert_allclose(slopes, [1.7159 * 2 / 3 / math.cosh(2 * v / 3) ** 2 for v in x], rtol=1e-12)
    # The two constants were chosen for this property, which they meet to four digits.
    np.testing.assert_allclose([F.scaled_tanh(1.0), F.scaled_tanh(-1.0)], [1, -1], atol=1e-4)
    assert F.scaled_tanh(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
