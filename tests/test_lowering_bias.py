"""A bias added by rows of places, against NumPy in float64, and its derivatives against those of plain addition."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering
from cnn_jax.lowering import biases, choice
from tests import quick
from tests.geometries import normal, seeds

UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def shapes():
    return st.integers(1, 3).flatmap(lambda rank: st.tuples(st.integers(0, 3), *[st.integers(1, 5)] * rank))


@settings(max_examples=20, deadline=None)
@given(shapes(), st.integers(1, 20), seeds, st.sampled_from(sorted(UNIT)))
def test_the_gradient_is_the_sum_over_all_places(places, channels, seed, dtype):
    y, bias = (jnp.asarray(a, dtype) for a in normal(seed, (*places, channels), (channels,)))

    @quick.jit
    def value_and_gradients(y, bias):
        total, pull = jax.vjp(biases.add, jnp.zeros_like(y), bias)
        return total, *pull(y)

    total, same, gradient = value_and_gradients(y, bias)
    np.testing.assert_array_equal(total, np.broadcast_to(np.asarray(bias), y.shape))
    np.testing.assert_array_equal(same, y)
    exact, axes = np.asarray(y, np.float64), tuple(range(len(places)))
    # Any order of a sum of m numbers in float32, and one rounding to half precision (Higham, section 4.2).
    error = math.prod(places) * UNIT["float32"] * abs(exact).sum(axes)
    bound = error + (UNIT[dtype] * (abs(exact.sum(axes)) + error) if dtype != "float32" else 0)
    assert gradient.dtype == dtype
    assert (abs(np.asarray(gradient, np.float64) - exact.sum(axes)) <= bound).all()


@pytest.mark.parametrize("channels", [3, 17])
def test_derivatives_and_maps_are_those_of_addition(channels):
    y, dy, bias, db = normal(0, (2, 3, 4, channels), (2, 3, 4, channels), (channels,), (channels,))
    assert choice.adds_rows(y.shape[:-1], channels) == (channels == 3)

    def everything(add):
        def loss(y, bias):
            return jnp.sin(add(y, bias)).sum()

        grad = jax.grad(loss, (0, 1))
        ys, bs = jnp.stack([y, dy], 1), jnp.stack([bias, db], 1)
        return {
            "value and tangent": jax.jvp(loss, (y, bias), (dy, db)),
            "tangent of bias": jax.jvp(functools.partial(loss, y), (bias,), (db,)),
            "gradient": grad(y, bias),
            "gradient of gradient": jax.grad(lambda *a: sum((g**2).sum() for g in grad(*a)), (0, 1))(y, bias),
            "tangent of gradient": jax.jvp(grad, (y, bias), (dy, db)),
            "mapped y": jax.vmap(grad, (1, None))(ys, bias),
            "mapped bias": jax.vmap(grad, (None, 1), -1)(y, bs),
            "mapped both": jax.vmap(grad, (1, 1), 1)(ys, bs),
        }

    with jax.enable_x64(True):
        ours, plain = map(quick.jit(everything, static_argnums=0), (biases.add, jnp.add))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, plain)


def test_a_convolution_adds_its_bias_so_unless_told_otherwise():
    x, kernel, bias = jnp.ones((2, 6, 6, 1)), jnp.ones((3, 3, 1, 4)), jnp.arange(4.0)
    traced = functools.partial(jax.make_jaxpr(F.conv), x, kernel, bias)
    assert "cnn_add_bias" in str(traced())
    with lowering.use("direct"):
        assert "cnn_add_bias" not in str(traced())
