"""The lowerings behind the signature of `lax.conv_general_dilated`: same arguments, results, types and errors."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnn_jax import lowering
from tests import quick
from tests.geometries import ints, normal, seeds

# Channels last, as Linen has them; and others, which are XLA's own.
LAYOUTS = {
    2: [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("NHWC", "OIHW", "NCHW"), None],
    1: [("NWC", "WIO", "NWC")],
    3: [("NDHWC", "DHWIO", "NDHWC")],
}


@st.composite
def calls(draw):
    """Operands of small whole numbers, so that every way of adding their products up is exact, and options."""
    rank = draw(st.sampled_from([2, 2, 2, 1, 3]))
    layout = draw(st.sampled_from(LAYOUTS[rank]))
    numbers = lax.conv_dimension_numbers((1,) * (rank + 2), (1,) * (rank + 2), layout)
    groups = draw(st.sampled_from([1, 1, 2]))
    batches = draw(st.sampled_from([1, 1, 1, 2])) if groups == 1 else 1
    n, i, o = 2 * batches, draw(st.sampled_from([1, 3])) * groups, draw(st.integers(1, 2)) * groups * batches
    size, window = draw(ints(5, 7, rank)), draw(ints(1, 3, rank))
    rng = np.random.default_rng(draw(seeds))
    lhs = rng.integers(-3, 4, np.take((n, i, *size), np.argsort(numbers.lhs_spec)))
    rhs = rng.integers(-3, 4, np.take((o, i // groups, *window), np.argsort(numbers.rhs_spec)))
    dtype = draw(st.sampled_from(["float32", "float32", "bfloat16"]))
    dilation = draw(st.sampled_from([None, (1,) * rank, (2,) * rank]))
    explicit = st.tuples(*[ints(0, 2, 2)] * rank)  # all that the stock function takes with a dilated input
    options = {
        "window_strides": draw(ints(1, 2, rank)),
        "padding": draw(explicit if dilation else st.one_of(st.sampled_from(["SAME", "VALID"]), explicit)),
        "lhs_dilation": dilation,
        "rhs_dilation": draw(st.sampled_from([None, (1,) * rank, (2,) * rank])),
        "dimension_numbers": layout,
        "feature_group_count": groups,
        "batch_group_count": batches,
        "preferred_element_type": draw(st.sampled_from([None, jnp.float32])),
    }
    return jnp.asarray(lhs, dtype), jnp.asarray(rhs, dtype), options


@settings(max_examples=15, deadline=None)
@given(calls())
def test_it_is_the_stock_function_and_so_are_its_gradients(call):
    lhs, rhs, options = call

    @functools.partial(quick.jit, static_argnums=0)
    def results(function, lhs, rhs):
        y, back = jax.vjp(lambda a, b: function(a, b, **options), lhs, rhs)
        return (y, *back(jnp.ones_like(y)))

    ours_and_stock = (results(f, lhs, rhs) for f in (lowering.conv_general_dilated, lax.conv_general_dilated))
    for ours, stock in zip(*ours_and_stock, strict=True):
        assert ours.dtype == stock.dtype
        np.testing.assert_array_equal(ours.astype(jnp.float32), stock.astype(jnp.float32))


def test_what_the_stock_function_refuses_is_refused_in_its_words():
    lhs, rhs = jnp.ones((1, 5, 5, 3)), jnp.ones((3, 3, 2, 4))
    arguments = ((1, 1), "SAME"), {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    said = []
    for function in (lax.conv_general_dilated, lowering.conv_general_dilated):
        with pytest.raises(ValueError, match="feature") as caught:
            function(lhs, rhs, *arguments[0], **arguments[1])
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("window", "options"),
    [
        ((5, 5), {}),
        ((5, 5), {"strides": 2}),
        ((5, 5), {"kernel_dilation": 2}),
        ((5, 5), {"feature_group_count": 3}),
        ((3,), {}),
        ((2, 2, 3), {}),
    ],
)
def test_a_stock_flax_convolution_takes_it(window, options):
    (x,) = normal(0, (*(2, 9, 8, 3, 3)[: len(window) + 1], 3))
    x = jnp.asarray(x, jnp.float32)
    stock = nn.Conv(6, window, **options)
    ours = nn.Conv(6, window, conv_general_dilated=lowering.conv_general_dilated, **options)
    variables = quick.jit(stock.init)(jax.random.key(0), x)
    assert "cnn_conv" in str(jax.make_jaxpr(ours.apply)(variables, x))

    def loss(variables, layer):
        return (layer.apply(variables, x) ** 2).mean()

    gradients = quick.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, found = (gradients(variables, layer) for layer in (stock, ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_a_stock_flax_transposed_convolution_is_an_input_gradient():
    (x,) = normal(1, (2, 5, 4, 3))
    x = jnp.asarray(x, jnp.float32)
    kernel = jnp.asarray(normal(2, (4, 4, 3, 2))[0], jnp.float32)
    numbers = ("NHWC", "HWIO", "NHWC")

    def ours(x, kernel):
        return lowering.conv_general_dilated(
            x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=numbers
        )

    assert "cnn_input_gradient" in str(jax.make_jaxpr(ours)(x, kernel))
    expected = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)
    np.testing.assert_allclose(ours(x, kernel), expected, rtol=1e-4, atol=1e-5)
