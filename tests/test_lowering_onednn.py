"""Programs compiled with oneDNN, where XLA has it, compute what others do; where it has not, they are the others."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering, models, training
from cnn_jax.lowering import bilinear, choice, onednn
from tests.geometries import ints, normal, seeds
from tests.test_lowerings import UNIT, definition, draw, geometries, make_geometry, operands

needs_onednn = pytest.mark.skipif(not onednn.compiler_options(), reason="this XLA has no oneDNN")
PRIMITIVES = {
    "conv": bilinear.conv_p,
    "input_gradient": bilinear.input_gradient_p,
    "weight_gradient": bilinear.weight_gradient_p,
}


def check_within_rounding(geometry, counts, seed, dtype):
    """As `test_lowerings.check_within_rounding`, for what is chosen."""
    arrays = draw(geometry, counts, seed, dtype)

    def everything(arrays):
        pairs = {operation: operands(operation, arrays) for operation in PRIMITIVES}
        compiled_so = dataclasses.replace(geometry, onednn=True)
        return {
            operation: PRIMITIVES[operation].bind(a[None], b[None], geometry=compiled_so)[0]
            for operation, (a, b) in pairs.items()
        }

    for operation, result in lowering.jit(everything)(arrays).items():
        expected, size, terms = definition(operation, arrays, geometry)
        # 30 more terms for what Winograd's transforms may err (test_lowering_winograd.py); sums of half precision are
        # taken in single, but XLA's own may round twice.
        bound = (terms + 30) * UNIT["float32"] * size + (2 * UNIT[dtype] * size if dtype != "float32" else 0)
        assert result.dtype == dtype
        assert (abs(np.asarray(result, np.float64) - expected) <= bound).all(), operation


@settings(max_examples=12, deadline=None)
@given(geometries(), ints(1, 3, 3), seeds, st.sampled_from(["float32", "bfloat16"]))
def test_what_is_chosen_is_within_rounding_of_the_definition(geometry, counts, seed, dtype):
    check_within_rounding(geometry, counts, seed, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("counts", [(4, 1, 6), (3, 6, 16), (2, 64, 64)])
@pytest.mark.parametrize(
    "geometry",
    [
        make_geometry((14, 13), (5, 5)),
        make_geometry((12, 12), (3, 3), (1, 1), ((1, 1), (1, 1))),
        make_geometry((12, 11), (3, 3), (2, 2), ((1, 1), (1, 1))),
        make_geometry((8, 8), (2, 2)),
        make_geometry((5, 5), (5, 5)),
    ],
    ids=lambda g: f"{g.size[0]}-{g.window[0]}-{g.strides[0]}",
)
def test_so_it_is_for_the_shapes_of_networks(geometry, counts, dtype):
    check_within_rounding(geometry, counts, 0, dtype)


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "geometry",
    [  # oneDNN 3.12 errs in the first and brings the process down in the others
        make_geometry((10, 1), (4, 2), (1, 2), ((2, 0), (0, 1))),
        make_geometry((6, 1), (3, 1), (2, 2), ((1, 1), (3, 2))),
        make_geometry((2, 2), (3, 1), (1, 1), ((0, 1), (0, 1))),
    ],
    ids=lambda g: f"{g.size[0]}x{g.size[1]}",
)
def test_padding_that_onednn_cannot_take_is_written_down(geometry, dtype):
    assert geometry.narrow
    check_within_rounding(geometry, (3, 1, 32), 0, dtype)
    check_within_rounding(geometry, (2, 24, 64), 0, dtype)


def test_the_geometries_of_networks_are_taken_as_they_are():
    for size, window, strides, padding in ((15, 3, 1, 1), (4, 3, 2, 1), (32, 7, 2, 3), (14, 5, 1, 0), (3, 3, 1, 1)):
        assert not make_geometry((size,) * 2, (window,) * 2, (strides,) * 2, ((padding,) * 2,) * 2).narrow


def chosen(operation, window, inputs, outputs, dtype="float32", size=16, images=32):
    geometry = make_geometry((size, size), (window, window), (1, 1), ((window // 2,) * 2,) * 2)
    geometry = dataclasses.replace(geometry, onednn=True)
    return choice.choose_cpu(operation, geometry, (1, images, inputs, outputs), jnp.dtype(dtype))[0]


def test_its_convolution_is_taken_where_others_were():
    assert chosen("conv", 5, 6, 16) == "direct"
    assert chosen("conv", 5, 1, 6) == "shifted"
    assert chosen("conv", 5, 1, 6, "bfloat16") == "direct"
    assert chosen("conv", 3, 256, 256) == chosen("input_gradient", 3, 256, 256) == "winograd"
    assert chosen("conv", 3, 256, 256, "bfloat16") == "direct"
    assert chosen("input_gradient", 3, 256, 256, "bfloat16") == "canonical"
    assert chosen("conv", 1, 64, 64) == "taps"


def test_steps_are_those_of_other_programs():
    model = models.build("lenet5")
    batch = {"image": jnp.asarray(normal(0, (8, 32, 32, 1))[0], jnp.float32), "label": jnp.arange(8) % 10}
    optimizer = training.SGD()(lambda step: 0.1)
    take = training.make_train_step(model, optimizer, training.SoftmaxCrossEntropy(), lambda images: images)
    state = training.create_state(model, optimizer, (32, 32, 1), seed=0)

    def steps(state):
        return jax.lax.scan(lambda state, _: take(state, batch), state, length=3)

    expected, found = jax.jit(steps)(state), lowering.jit(steps)(state)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, (found[0].params, found[1]), (expected[0].params, expected[1]))


def test_derivatives_and_maps_are_those_of_other_programs():
    xs, kernels = (jnp.asarray(a, jnp.float32) for a in normal(0, (3, 2, 9, 9, 3), (3, 3, 3, 3, 16)))

    def loss(x, kernel):
        return (F.max_pool(jnp.tanh(F.conv(x, kernel, padding="SAME")), (2, 2), (2, 2)) ** 2).sum()

    def everything(xs, kernels):
        grad = jax.grad(loss, (0, 1))
        tangents = (xs[1], kernels[1])
        return {
            "gradient of gradient": jax.grad(lambda *a: sum((g**2).sum() for g in grad(*a)))(xs[0], kernels[0]),
            "hessian-vector": jax.jvp(grad, (xs[0], kernels[0]), tangents)[1],
            "mapped inputs": jax.vmap(grad, (0, None))(xs, kernels[0]),
            "mapped kernels": jax.vmap(grad, (None, 0))(xs[0], kernels),
            "mapped": jax.vmap(grad)(xs, kernels),
            "again": jax.checkpoint(loss)(xs[0], kernels[0]),
        }

    with lowering.use("direct"):
        expected = jax.jit(everything)(xs, kernels)
    found = lowering.jit(everything)(xs, kernels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), found, expected)


@needs_onednn
def test_a_convolution_with_its_bias_and_activation_is_one_call_of_onednn():
    x, kernel, bias = (jnp.ones(shape) for shape in ((8, 12, 12, 6), (5, 5, 6, 16), (16,)))
    layer = lowering.jit(lambda x, kernel, bias: jnp.tanh(F.conv(x, kernel, bias)))
    text = layer.lower(x, kernel, bias).compile().as_text()
    assert text.count('custom_call_target="__onednn$convolution"') == 1
    assert '"BIAS","TANH"' in text


def test_without_onednn_it_is_plain_jit(monkeypatch):
    monkeypatch.setattr(onednn, "_has_onednn", lambda: False)
    assert onednn.compiler_options() == {}
    assert lowering.jit(lambda x: choice.current() == "auto")(1)


def test_options_that_xla_does_not_know_are_not_given(monkeypatch):
    monkeypatch.setattr(onednn, "_OPTIONS", {"xla_cpu_no_such_option": True})
    onednn._has_onednn.cache_clear()
    try:
        assert onednn.compiler_options() == {}
    finally:
        onednn._has_onednn.cache_clear()


def test_on_another_platform_it_is_plain_jit(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert onednn.compiler_options() == {}
