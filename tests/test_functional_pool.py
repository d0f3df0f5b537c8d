"""Pools against float64 loops written from the definition and finite differences of those loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from tests import quick, reference
from tests.geometries import SPATIAL, batches, ints, normal, one_or_each, paddings, ranks, seeds

POOLS = {"max": F.max_pool, "min": F.min_pool, "avg": F.avg_pool, "sum": F.sum_pool}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@st.composite
def pools(draw):
    """The kind of pool, its input, arguments as a user writes them, and as the reference takes them."""
    rank = draw(ranks)
    kind = draw(st.sampled_from(list(POOLS)))
    window = draw(ints(1, 4 if rank < 3 else 3, rank))
    strides, each_stride = draw(one_or_each(1, 3, rank))
    padding, each_padding = draw(paddings(["SAME", "VALID", "valid"], 0, 2, rank))
    # Larger padding is refused, which has a test of its own.
    assume(all(isinstance(p, str) or max(p) < w for p, w in zip(each_padding, window, strict=True)))
    shape = (*draw(batches), *draw(ints(1, SPATIAL[rank], rank)), draw(st.integers(1, 3)))
    (x,) = normal(draw(seeds), shape)
    asked, meant = {"strides": strides, "padding": padding}, {}
    if kind == "avg":
        asked["count_include_pad"] = meant["count_include_pad"] = draw(st.booleans())
    each_padding = [p.upper() if isinstance(p, str) else p for p in each_padding]
    definition = functools.partial(
        reference.pool, kind, window=window, strides=each_stride, padding=each_padding, **meant
    )
    return POOLS[kind], x, {"window_shape": window, **asked}, definition


@settings(max_examples=80, deadline=None)
@given(pools())
def test_pool_is_its_definition(drawn):
    function, x, asked, definition = drawn
    expected = definition(x)
    with jax.enable_x64(True):
        if expected is None:
            with pytest.raises(ValueError, match=r"a window of .* does not fit into a padded input"):
                function(x, **asked)
            return
        y = quick.jit(lambda z: function(z, **asked))(x)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(pools())
def test_gradients_of_pools_are_finite_differences(drawn):
    function, x, asked, definition = drawn
    # Distinct values far apart, so that a small step changes no maximum and the central difference is exact.
    x = np.argsort(np.argsort(x, axis=None)).reshape(x.shape).astype(np.float64)
    expected = definition(x)
    assume(expected is not None)
    rng = np.random.default_rng(0)
    cotangent, direction = rng.standard_normal(expected.shape), rng.standard_normal(x.shape)
    with jax.enable_x64(True):
        (gradient,) = quick.jit(lambda c, x: jax.vjp(lambda z: function(z, **asked), x)[1](c))(cotangent, x)
    difference = (definition(x + 0.01 * direction) - definition(x - 0.01 * direction)) / 0.02
    np.testing.assert_allclose(np.vdot(gradient, direction), np.vdot(cotangent, difference), **CLOSE)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pools_reduce_all_spatial_dimensions(rank):
    (x,) = normal(rank, (2, *(3, 4, 5)[:rank], 3))
    average, maximum = np.zeros((2, 3)), np.full((2, 3), -np.inf)
    positions = list(np.ndindex(x.shape[1:-1]))
    for at in positions:
        average += x[(slice(None), *at)] / len(positions)
        maximum = np.maximum(maximum, x[(slice(None), *at)])
    with jax.enable_x64(True):
        np.testing.assert_allclose(F.global_avg_pool(x), average, **CLOSE)
        np.testing.assert_array_equal(F.global_max_pool(x), maximum)
        shares = jax.grad(lambda z: F.global_avg_pool(z)[0, 1])(jnp.asarray(x))
    assert np.allclose(shares[0, ..., 1], 1 / len(positions))
    assert np.count_nonzero(shares) == len(positions)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_padding_never_wins_among_integers(dtype):
    limits = np.iinfo(dtype)
    low, high = np.full((1, 3, 1), limits.min, dtype), np.full((1, 3, 1), limits.max, dtype)
    for pool, x in [(F.max_pool, low), (F.min_pool, high)]:
        y = pool(x, (2,), padding=1)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, np.full((1, 4, 1), x[0, 0, 0]))


def test_averages_of_integers_are_floats_that_do_not_overflow():
    x = np.full((1, 4, 1), 255, np.uint8)
    np.testing.assert_array_equal(F.avg_pool(x, (4,)), np.full((1, 1, 1), 255.0, np.float32))
    np.testing.assert_array_equal(F.global_avg_pool(x), np.full((1, 1), 255.0, np.float32))
    assert F.avg_pool(x, (4,)).dtype == F.global_avg_pool(x).dtype == jnp.float32


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_averages_keep_low_precision(count_include_pad):
    x = jnp.ones((1, 4, 1), jnp.bfloat16)
    y = F.avg_pool(x, (2,), padding="SAME", count_include_pad=count_include_pad)
    assert y.dtype == F.global_avg_pool(x).dtype == jnp.bfloat16


def test_an_empty_batch_stays_empty():
    assert F.max_pool(np.zeros((0, 4, 3)), (2,)).shape == (0, 3, 3)
    assert F.avg_pool(np.zeros((2, 0, 4, 3)), (2,), padding="SAME", count_include_pad=False).shape == (2, 0, 4, 3)


X = np.zeros((2, 6, 6, 3))


@pytest.mark.parametrize("pool", POOLS.values())
@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (X, {"window_shape": 2}, "window_shape must be 1 to 3 positive ints, one per spatial dimension, got 2"),
        (X, {"window_shape": ()}, "window_shape must be 1 to 3 positive ints, one per spatial dimension, got ()"),
        (
            X,
            {"window_shape": (2, 0)},
            "window_shape must be 1 to 3 positive ints, one per spatial dimension, got (2, 0)",
        ),
        (
            X,
            {"window_shape": (1, 1, 1, 1)},
            "window_shape must be 1 to 3 positive ints, one per spatial dimension, got (1, 1, 1, 1)",
        ),
        (
            X,
            {"window_shape": "22"},
            "window_shape must be 1 to 3 positive ints, one per spatial dimension, got '22'",
        ),
        (
            X[0, 0],
            {"window_shape": (2, 2)},
            "input must have two spatial and one channel dimension, got shape (6, 3)",
        ),
        (
            X,
            {"window_shape": (2, 2), "strides": (2,)},
            "strides must be a positive int or two of them, got (2,)",
        ),
        (X, {"window_shape": (2, 2), "strides": 0}, "strides must be a positive int or two of them, got 0"),
        (
            X,
            {"window_shape": (2, 2), "padding": "CIRCULAR"},
            "padding must be 'SAME', 'VALID', an int, or two ints or (low, high) pairs, got 'CIRCULAR'",
        ),
        (
            X,
            {"window_shape": (2, 3), "padding": ((0, 0), (3, 0))},
            "padding must be at least 0 and less than window_shape=(2, 3), got ((0, 0), (3, 0))",
        ),
        (
            X,
            {"window_shape": (2, 3), "padding": -1},
            "padding must be at least 0 and less than window_shape=(2, 3), got -1",
        ),
        (X * 1j, {"window_shape": (2, 2)}, "input must hold real numbers, got dtype complex64"),
        (X, {"window_shape": (7, 2)}, "a window of (7, 2) does not fit into a padded input of (6, 6)"),
    ],
)
def test_pools_say_what_was_expected_and_what_arrived(pool, x, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        pool(x, **arguments)
    assert str(error.value) == f"{pool.__name__}: {message}"


@pytest.mark.parametrize("pool", [F.global_avg_pool, F.global_max_pool])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0, 3), (1, 2, 2, 2, 2, 3)])
def test_global_pools_say_what_was_expected_and_what_arrived(pool, shape):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        pool(np.zeros(shape))
    assert str(error.value) == (
        f"{pool.__name__}: input must be (N, *spatial, C) with one to three spatial dimensions, none empty, "
        f"got shape {shape}"
    )
