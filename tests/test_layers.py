"""Our layers and stock Flax's stand in for each other: same parameters, same initial values, same results."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import pooling
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import layers
from tests import quick
from tests.geometries import SPATIAL, batches, ints, normal, one_or_each, ranks, seeds

bfloat16 = jnp.bfloat16
zeros = nn.initializers.zeros


def check_interchange(ours, theirs, x, tolerance=1e-5):
    """The same tree and values for the same key; each one's parameters, changed everywhere, work in the other."""
    x = jnp.asarray(x)
    initial, stock = quick.jit(lambda key: [layer.init(key, x) for layer in (ours, theirs)])(jax.random.key(0))
    assert jax.tree.structure(initial) == jax.tree.structure(stock)
    for a, b in zip(jax.tree.leaves(initial), jax.tree.leaves(stock), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    rng = np.random.default_rng(0)
    both = quick.jit(lambda variables: [layer.apply(variables, x) for layer in (ours, theirs)])
    for variables in (initial, stock):
        # A bias begins at zero, and a zero would hide where it is added.
        variables = jax.tree.map(lambda p: (np.asarray(p) + rng.standard_normal(p.shape)).astype(p.dtype), variables)
        y, expected = both(variables)
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(
            np.asarray(y, np.float32), np.asarray(expected, np.float32), rtol=tolerance, atol=tolerance
        )


def both(name, **fields):
    return getattr(layers, name)(**fields), getattr(nn, name)(**fields)


X = normal(0, (2, 9, 8, 4))[0]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_bias": False},
        {"strides": (2, 3), "padding": "VALID"},
        {"strides": 2, "padding": "CIRCULAR", "kernel_dilation": 2},
        {"padding": "REFLECT"},
        {"padding": [(2, 1), 0]},
        {"padding": (1, 2), "input_dilation": (2, 1)},
        {"padding": 1, "strides": None, "kernel_dilation": (1, 2)},
        {"feature_group_count": 2},
        {"feature_group_count": 4, "use_bias": False, "strides": 2},
        {"precision": "highest"},
        {"param_dtype": bfloat16},
        {"dtype": bfloat16},
        {"dtype": bfloat16, "param_dtype": bfloat16, "use_bias": False},
        {"kernel_init": nn.initializers.he_uniform(), "bias_init": nn.initializers.normal()},
        {"mask": np.tril(np.ones((3, 2, 4, 8)))},
    ],
    ids=" ".join,
)
def test_conv(fields):
    low = bfloat16 in (fields.get("dtype"), fields.get("param_dtype"))
    check_interchange(*both("Conv", features=8, kernel_size=(3, 2), **fields), X, 2e-2 if low else 1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_bias": False},
        {"strides": (2, 3)},
        {"strides": (2, 2), "padding": "VALID", "kernel_dilation": (1, 2)},
        {"strides": (2, 3), "padding": "CIRCULAR"},
        {"strides": (3, 1), "padding": "CIRCULAR", "transpose_kernel": True},
        {"strides": (2, 2), "transpose_kernel": True},
        {"padding": 3},
        {"padding": ((1, 2), (0, 3)), "strides": (2, 1)},
        {"dtype": bfloat16, "use_bias": False},
        {"param_dtype": bfloat16},
        {"dtype": bfloat16, "preferred_element_type": jnp.float32},
        {"mask": np.tril(np.ones((4, 3, 4, 8)))},
    ],
    ids=" ".join,
)
def test_conv_transpose(fields):
    low = bfloat16 in (fields.get("dtype"), fields.get("param_dtype"))
    check_interchange(*both("ConvTranspose", features=8, kernel_size=(4, 3), **fields), X, 2e-2 if low else 1e-5)


@pytest.mark.parametrize(
    "fields",
    [{}, {"use_bias": False}, {"dtype": bfloat16}, {"param_dtype": bfloat16}, {"bias_init": nn.initializers.ones}],
    ids=" ".join,
)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 5, 4)])
def test_dense(fields, shape):
    low = bfloat16 in (fields.get("dtype"), fields.get("param_dtype"))
    check_interchange(*both("Dense", features=7, **fields), normal(0, shape)[0], 2e-2 if low else 1e-5)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("shape", [(9, 4), (2, 9, 4), (2, 3, 9, 4), (2, 1, 3, 9, 4)])
def test_any_number_of_batch_dimensions_and_an_int_for_one_spatial(name, shape):
    check_interchange(*both(name, features=3, kernel_size=5), normal(0, shape)[0])


def test_causal_and_three_dimensions():
    check_interchange(*both("Conv", features=3, kernel_size=5, padding="CAUSAL", kernel_dilation=2), X[0])
    x = normal(0, (2, 4, 5, 4, 2))[0]
    check_interchange(*both("Conv", features=3, kernel_size=(2, 3, 2), strides=2, kernel_init=zeros), x)
    check_interchange(
        *both("ConvTranspose", features=3, kernel_size=(2, 3, 2), strides=(2, 1, 2), kernel_init=zeros), x
    )


def test_integers_become_floats():
    check_interchange(*both("Conv", features=3, kernel_size=(3, 3)), np.arange(32, dtype=np.int32).reshape(1, 4, 4, 2))


@st.composite
def geometries(draw):
    rank = draw(ranks)
    modes = ["SAME", "VALID", "CIRCULAR", "REFLECT", *(["CAUSAL"] if rank == 1 else []), 2]
    fields = {
        "kernel_size": draw(ints(1, 3, rank)),
        "padding": draw(st.sampled_from(modes)),
        "strides": draw(one_or_each(1, 3, rank))[0],
        "kernel_dilation": draw(one_or_each(1, 2, rank))[0],
        "feature_group_count": draw(st.sampled_from([1, 2])),
    }
    return fields, (*draw(batches), *draw(ints(5, max(5, SPATIAL[rank]), rank)), 4)


@settings(max_examples=15, deadline=None)
@given(geometries(), seeds)
def test_conv_on_any_geometry(drawn, seed):
    fields, shape = drawn
    # The normal initialiser is compiled anew for every shape, which takes longer than all else together.
    check_interchange(*both("Conv", features=2, kernel_init=zeros, **fields), normal(seed, shape)[0])


# Linen's pools take pairs of padding only with one batch dimension or none.
@pytest.mark.parametrize(
    ("shape", "padding"),
    [(shape, padding) for shape in [(9, 8, 3), (2, 9, 8, 3), (2, 2, 9, 8, 3)] for padding in ("SAME", "VALID")]
    + [(shape, ((1, 0), (1, 2))) for shape in [(9, 8, 3), (2, 9, 8, 3)]],
)
@pytest.mark.parametrize("strides", [None, (2, 3)])
def test_pools(strides, padding, shape):
    x = jnp.asarray(normal(0, shape)[0], jnp.float32)
    window = (2, 3)
    pairs = [
        (layers.MaxPool, nn.max_pool),
        (layers.MinPool, pooling.min_pool),
        (layers.AvgPool, nn.avg_pool),
        (lambda *a: layers.AvgPool(*a, count_include_pad=False), lambda *a: nn.avg_pool(*a, count_include_pad=False)),
    ]

    @quick.jit
    def pooled(x):
        return [
            (module(window, strides, padding).apply({}, x), function(x, window, strides, padding))
            for module, function in pairs
        ]

    for found, expected in pooled(x):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_global_pools():
    x = jnp.asarray(X)
    np.testing.assert_allclose(layers.GlobalAvgPool().apply({}, x), nn.avg_pool(x, (9, 8))[:, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(layers.GlobalMaxPool().apply({}, x), nn.max_pool(x, (9, 8))[:, 0, 0])


def test_a_whole_network_loads_both_ways():
    def network(library):
        return nn.Sequential(
            [
                library.Conv(8, (3, 3), strides=2, name="stem"),
                nn.relu,
                library.ConvTranspose(4, (2, 2), strides=(2, 2)),
                library.Conv(6, (3, 3), feature_group_count=2, use_bias=False),
                lambda x: x.mean((1, 2)),
                library.Dense(5),
            ]
        )

    check_interchange(network(layers), network(nn), X)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (layers.Conv(4, (3, 0)), (2, 8, 8, 3), "Conv: kernel_size must be 1 to 3 positive ints"),
        (layers.Conv(4, "33"), (2, 8, 8, 3), "Conv: kernel_size must be 1 to 3 positive ints"),
        (layers.ConvTranspose(4, ()), (2, 8, 8, 3), "ConvTranspose: kernel_size must be 1 to 3 positive ints"),
        (
            layers.Conv(4, (3, 3), feature_group_count=2),
            (2, 8, 8, 3),
            "Conv: 3 input channels cannot be divided into feature_group_count=2",
        ),
        (
            layers.Conv(5, (3, 3), feature_group_count=3),
            (2, 8, 8, 3),
            "conv: 5 output channels cannot be divided into feature_group_count=3",
        ),
        (layers.Conv(4, (3, 3), feature_group_count=0), (2, 8, 8, 3), "Conv: feature_group_count must be a positive"),
        (layers.Conv(4, (3, 3)), (8, 3), "conv: input must have two spatial and one channel dimension, got shape"),
        (layers.Dense(4), (), "Dense: input must have a channel dimension, got a scalar"),
        (
            layers.Conv(4, (3, 3), mask=np.ones((3, 3))),
            (2, 8, 8, 3),
            "Conv: mask must have the kernel's shape (3, 3, 3, 4), got (3, 3)",
        ),
        (layers.MaxPool((9, 9)), (2, 8, 8, 3), "max_pool: a window of"),
    ],
    ids=range(10),
)
def test_layers_say_what_was_expected_and_what_arrived(layer, shape, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (JAX adds a note, which `match` would see)
        jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros(shape))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
