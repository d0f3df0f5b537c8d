"""Convolutions against float64 loops written from the definition, finite differences of those loops, and PyTorch."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from tests import quick, reference
from tests.geometries import SPATIAL, batches, ints, normal, one_or_each, paddings, ranks, seeds

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@st.composite
def convs(draw):
    """(x, kernel, bias), arguments as a user writes them, and as the reference takes them."""
    rank = draw(ranks)
    modes = ["SAME", "VALID", "CIRCULAR", "REFLECT", "same"] + ["CAUSAL"] * (rank == 1)
    padding, each_padding = draw(paddings(modes, -1, 2, rank))
    strides, each_stride = draw(one_or_each(1, 3, rank))
    kernel_dilation, each_kernel_dilation = draw(one_or_each(1, 2, rank))
    by_input = padding in ("CIRCULAR", "REFLECT")
    input_dilation, each_input_dilation = draw(one_or_each(1, 1 if by_input else 3, rank))
    groups = draw(st.integers(1, 3))
    ins, outs = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    shape = (*draw(batches), *draw(ints(1, SPATIAL[rank], rank)), groups * ins)
    window = draw(ints(1, 4 if rank < 3 else 3, rank))
    arrays = normal(draw(seeds), shape, (*window, ins, outs), (outs,))
    asked = {
        "strides": strides,
        "padding": padding,
        "input_dilation": input_dilation,
        "kernel_dilation": kernel_dilation,
        "feature_group_count": groups,
    }
    each_padding = [p.upper() if isinstance(p, str) else p for p in each_padding]
    return arrays, asked, (each_stride, each_padding, each_input_dilation, each_kernel_dilation, groups)


@st.composite
def transposes(draw):
    rank = draw(ranks)
    padding, each_padding = draw(paddings(["SAME", "VALID", "CIRCULAR"], -1, 3, rank))
    strides, each_stride = draw(one_or_each(1, 3, rank))
    kernel_dilation, each_dilation = draw(one_or_each(1, 2, rank))
    transpose_kernel = draw(st.booleans())
    ins, outs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = (*draw(batches), *draw(ints(1, SPATIAL[rank] - 1, rank)), ins)
    window = draw(ints(1, 4 if rank < 3 else 3, rank))
    channels = (outs, ins) if transpose_kernel else (ins, outs)
    arrays = normal(draw(seeds), shape, (*window, *channels), (outs,))
    asked = {
        "strides": strides,
        "padding": padding,
        "kernel_dilation": kernel_dilation,
        "transpose_kernel": transpose_kernel,
    }
    return arrays, asked, (each_stride, each_padding, each_dilation, transpose_kernel)


def check_values(function, definition, drawn):
    """Of several geometries in one program, for nearly all of the time is that of compiling it."""
    cases = [(arrays, asked, definition(*arrays, *meant)) for arrays, asked, meant in drawn]
    for arrays, asked, expected in cases:
        if expected is None:
            with pytest.raises(ValueError, match=f"^{function.__name__}: a window of .* does not fit into a padded"):
                function(*arrays, **asked)
    cases = [case for case in cases if case[2] is not None]

    @quick.jit
    def values(given):
        return [function(*arrays, **asked) for arrays, (_, asked, _) in zip(given, cases, strict=True)]

    with jax.enable_x64(True):
        found = values([arrays for arrays, _, _ in cases])
    for y, (_, _, expected) in zip(found, cases, strict=True):
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, expected, **CLOSE)


def check_gradients(function, definition, drawn):
    cases = [(arrays, asked, meant, definition(*arrays, *meant)) for arrays, asked, meant in drawn]
    cases = [case for case in cases if case[3] is not None]
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal(expected.shape) for *_, expected in cases]

    @quick.jit
    def gradients(cotangents, given):
        return [
            jax.vjp(functools.partial(function, **asked), *arrays)[1](cotangent)
            for cotangent, arrays, (_, asked, _, _) in zip(cotangents, given, cases, strict=True)
        ]

    with jax.enable_x64(True):
        found = gradients(cotangents, [arrays for arrays, *_ in cases])
    # The functions are linear in each argument, so a central difference has no truncation error, whatever its step.
    for of_one, cotangent, (arrays, _, meant, _) in zip(found, cotangents, cases, strict=True):
        for which, gradient in enumerate(of_one):
            direction = rng.standard_normal(arrays[which].shape)
            above, below = (
                definition(*[a + step * direction if i == which else a for i, a in enumerate(arrays)], *meant)
                for step in (0.5, -0.5)
            )
            np.testing.assert_allclose(np.vdot(gradient, direction), np.vdot(cotangent, above - below), **CLOSE)


def several(strategy, count):
    return st.lists(strategy, min_size=count, max_size=count)


@settings(max_examples=11, deadline=None)
@given(several(convs(), 6))
def test_conv_is_its_definition(drawn):
    check_values(F.conv, reference.conv, drawn)


@settings(max_examples=6, deadline=None)
@given(several(convs(), 5))
def test_gradients_of_conv_are_finite_differences(drawn):
    check_gradients(F.conv, reference.conv, drawn)


@settings(max_examples=11, deadline=None)
@given(several(transposes(), 6))
def test_conv_transpose_is_its_definition(drawn):
    check_values(F.conv_transpose, reference.conv_transpose, drawn)


@settings(max_examples=6, deadline=None)
@given(several(transposes(), 5))
def test_gradients_of_conv_transpose_are_finite_differences(drawn):
    check_gradients(F.conv_transpose, reference.conv_transpose, drawn)


# Size, window, strides, padding, input dilation: what XLA's own convolution gets wrong, or ends the process over, see
# `direct.py`.
MISREAD = [
    ((3,), (3,), (1,), [(-1, 2)], (1,)),
    ((4, 4), (2, 3), (1, 1), [(-2, 1), (0, -1)], (1, 1)),
    ((3, 4), (3, 2), (1, 1), [(-1, 1), (0, 0)], (1, 1)),
    ((3, 2, 3), (2, 1, 2), (1, 1, 1), [(-1, 1), (0, 0), (-1, 2)], (1, 1, 1)),
    ((3, 1), (2, 3), (1, 2), [(0, 0), (1, 1)], (2, 1)),
    ((1, 2), (4, 3), (1, 2), [(2, 2), (0, 0)], (1, 3)),
    ((3, 2, 3), (2, 3, 3), (1, 1, 1), [(0, 0), (0, 2), (0, 2)], (2, 1, 1)),
    ((4, 1), (2, 3), (2, 1), [(1, 1), (1, 1)], (1, 1)),  # to the input
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_xla_misreads_is_computed(dtype):
    arrays = [
        [np.asarray(jnp.asarray(a, dtype), np.float64) for a in normal(0, (2, *size, 2), (*window, 2, 3))]
        for size, window, *_ in MISREAD
    ]

    @quick.jit
    def computed(given):
        found = []
        for (x, kernel), (*_, strides, padding, dilation) in zip(given, MISREAD, strict=True):
            conv = functools.partial(F.conv, strides=strides, padding=padding, input_dilation=dilation)
            y, back = jax.vjp(conv, x.astype(dtype), kernel.astype(dtype))
            found.append((y, *back(y)))
        return found

    pads = re.findall(r"pad = \[(\[.*?\])\]", computed.lower(arrays).as_text())  # what is read there is often zero
    pairs = [tuple(map(int, pair)) for pad in pads for pair in re.findall(r"\[(-?\d+), (-?\d+)\]", pad)]
    assert pairs
    assert not [pair for pair in pairs if pair[0] < 0 < pair[1]]
    for (x, kernel), (*_, strides, padding, dilation), found in zip(arrays, MISREAD, computed(arrays), strict=True):
        expected = reference.conv(x, kernel, 0.0, strides, padding, dilation, (1,) * len(strides), 1)
        y, *gradients = (np.asarray(a, np.float64) for a in found)
        close = {"float32": 1e-5, "bfloat16": 3e-2}[dtype]
        np.testing.assert_allclose(y, expected, close, close * 10)
        # Linear in each argument: <gradient, argument> is <cotangent, value>, and the cotangent is the value.
        for gradient, argument in zip(gradients, (x, kernel), strict=True):
            np.testing.assert_allclose(np.vdot(gradient, argument), np.vdot(y, y), close, close * 10)


# Linen's circular layers are each other's transposes only at stride two, and at stride one where the window is odd.
@pytest.mark.parametrize(
    ("padding", "stride", "windows"),
    [(padding, stride, (1, 2, 3, 4, 5)) for padding in ("SAME", "VALID") for stride in (1, 2, 3)]
    + [("CIRCULAR", 2, (1, 2, 3, 4, 5)), ("CIRCULAR", 1, (1, 3, 5))],
)
def test_conv_transpose_is_the_gradient_of_conv(padding, stride, windows):
    x, *kernels = normal(0, (2, 4, 3), *[(window, 5, 3) for window in windows])

    @quick.jit
    def pairs(x, kernels):
        found = []
        for kernel in kernels:
            size = 4 * stride + (max(len(kernel) - stride, 0) if padding == "VALID" else 0)
            conv = functools.partial(F.conv, kernel=kernel, strides=stride, padding=padding)
            (gradient,) = jax.vjp(conv, jnp.zeros((2, size, 5)))[1](x)
            found.append(
                (F.conv_transpose(x, kernel, strides=stride, padding=padding, transpose_kernel=True), gradient)
            )
        return found

    with jax.enable_x64(True):
        found = pairs(x, kernels)
    for transposed, gradient in found:
        np.testing.assert_allclose(transposed, gradient, **CLOSE)


def test_bias_is_optional():
    x, kernel = normal(0, (2, 5, 3), (2, 3, 4))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(F.conv(x, kernel), F.conv(x, kernel, np.zeros(4)))
        np.testing.assert_array_equal(F.conv_transpose(x, kernel), F.conv_transpose(x, kernel, np.zeros(4)))


def test_none_means_one_for_strides_and_dilations():
    x, kernel = normal(0, (2, 5, 3), (2, 3, 4))
    y = F.conv(x, kernel, strides=None, input_dilation=None, kernel_dilation=None)
    np.testing.assert_array_equal(y, F.conv(x, kernel, strides=1, input_dilation=1, kernel_dilation=1))


@pytest.mark.parametrize("batch", [(0,), (2, 0)])
def test_an_empty_batch_stays_empty(batch):
    assert F.conv(np.zeros((*batch, 5, 3)), np.zeros((2, 3, 4))).shape == (*batch, 5, 4)
    assert F.conv_transpose(np.zeros((*batch, 5, 3)), np.zeros((2, 3, 4))).shape == (*batch, 5, 4)


@pytest.mark.parametrize(
    ("x", "kernel", "result"),
    [
        (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32, jnp.float32),
        (jnp.uint8, jnp.float32, jnp.float32),
        (jnp.int32, jnp.int32, jnp.float32),
    ],
)
def test_result_has_the_common_inexact_dtype(x, kernel, result):
    assert F.conv(jnp.ones((1, 4, 2), x), jnp.ones((2, 2, 3), kernel)).dtype == result
    assert F.conv_transpose(jnp.ones((1, 4, 2), x), jnp.ones((2, 2, 3), kernel)).dtype == result


def test_conv_transpose_accumulates_in_the_preferred_dtype():
    x, kernel = jnp.ones((1, 4, 2), jnp.bfloat16), jnp.ones((2, 2, 3), jnp.bfloat16)
    assert F.conv_transpose(x, kernel, preferred_element_type=jnp.float32).dtype == jnp.float32


def test_functions_can_be_jitted_and_mapped():
    x, kernel, bias = map(jnp.asarray, normal(0, (4, 6, 6, 2), (3, 3, 2, 5), (5,)))
    expected = F.conv(x, kernel, bias, padding="CIRCULAR")
    np.testing.assert_allclose(jax.jit(lambda *a: F.conv(*a, padding="CIRCULAR"))(x, kernel, bias), expected, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda i: F.conv(i, kernel, bias, padding="CIRCULAR"))(x), expected, atol=1e-5)


X, K, B = np.zeros((2, 8, 8, 4)), np.zeros((3, 3, 4, 6)), np.zeros(6)
PADDINGS = "'SAME', 'VALID', 'CIRCULAR', 'REFLECT', 'CAUSAL', an int, or two ints or (low, high) pairs"


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ((X, np.zeros((3, 3, 3, 6))), {}, "kernel has 3 input channels, input has 4 (feature_group_count=1)"),
        (
            (X, K),
            {"feature_group_count": 2},
            "kernel has 4 input channels, input has 4 (feature_group_count=2)",
        ),
        (
            (X, np.zeros((3, 3, 1, 6))),
            {"feature_group_count": 4},
            "6 output channels cannot be divided into feature_group_count=4",
        ),
        ((X, K, np.zeros(5)), {}, "bias must have shape (6,), one per output channel, got (5,)"),
        ((X, K, np.zeros((1, 6))), {}, "bias must have shape (6,), one per output channel, got (1, 6)"),
        (
            (X, np.zeros((4, 6))),
            {},
            "kernel must have one to three spatial dimensions and then (in, out) channels, none empty, "
            "got shape (4, 6)",
        ),
        (
            (X, np.zeros((2, 2, 2, 2, 4, 6))),
            {},
            "kernel must have one to three spatial dimensions and then (in, out) channels, none empty, "
            "got shape (2, 2, 2, 2, 4, 6)",
        ),
        (
            (X, np.zeros((3, 0, 4, 6))),
            {},
            "kernel must have one to three spatial dimensions and then (in, out) channels, none empty, "
            "got shape (3, 0, 4, 6)",
        ),
        ((X[0, 0], K), {}, "input must have two spatial and one channel dimension, got shape (8, 4)"),
        ((X, K), {"strides": 0}, "strides must be a positive int or two of them, got 0"),
        ((X, K), {"strides": (1, 2, 1)}, "strides must be a positive int or two of them, got (1, 2, 1)"),
        ((X, K), {"strides": 1.0}, "strides must be a positive int or two of them, got 1.0"),
        ((X, K), {"strides": "2"}, "strides must be a positive int or two of them, got '2'"),
        ((X, K), {"strides": True}, "strides must be a positive int or two of them, got True"),
        ((X, K), {"input_dilation": -1}, "input_dilation must be a positive int or two of them, got -1"),
        ((X, K), {"kernel_dilation": (1, 0)}, "kernel_dilation must be a positive int or two of them, got (1, 0)"),
        ((X, K), {"feature_group_count": 0}, "feature_group_count must be a positive int, got 0"),
        ((X, K), {"feature_group_count": 1.5}, "feature_group_count must be a positive int, got 1.5"),
        ((X, K), {"padding": "FULL"}, f"padding must be {PADDINGS}, got 'FULL'"),
        ((X, K), {"padding": None}, f"padding must be {PADDINGS}, got None"),
        ((X, K), {"padding": 1.5}, f"padding must be {PADDINGS}, got 1.5"),
        ((X, K), {"padding": (1, 2, 3)}, f"padding must be {PADDINGS}, got (1, 2, 3)"),
        ((X, K), {"padding": ((1, 2), (3,))}, f"padding must be {PADDINGS}, got ((1, 2), (3,))"),
        ((X, K), {"padding": ("SAME", 1)}, f"padding must be {PADDINGS}, got ('SAME', 1)"),
        ((X, K), {"padding": "CAUSAL"}, "padding 'CAUSAL' needs one spatial dimension, kernel has 2"),
        (
            (X, K),
            {"padding": "CIRCULAR", "input_dilation": 2},
            "padding 'CIRCULAR' cannot go with input_dilation=(2, 2)",
        ),
        (
            (X, K),
            {"padding": "VALID", "kernel_dilation": 4},
            "a window of (9, 9) does not fit into a padded input of (8, 8)",
        ),
        (
            (X[:, :0], K),
            {"padding": "REFLECT"},
            "padding 'REFLECT' needs an input that is not empty, got shape (2, 0, 8, 4)",
        ),
    ],
)
def test_conv_says_what_was_expected_and_what_arrived(arrays, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole message is compared)
        F.conv(*arrays, **arguments)
    assert str(error.value) == f"conv: {message}"


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ((X, np.zeros((3, 3, 3, 6))), {}, "kernel has 3 input channels, input has 4"),
        ((X, K), {"transpose_kernel": True}, "kernel has 6 input channels, input has 4"),
        ((X, K, np.zeros(4)), {}, "bias must have shape (6,), one per output channel, got (4,)"),
        ((X, K), {"strides": (2,)}, "strides must be a positive int or two of them, got (2,)"),
        ((X, K), {"kernel_dilation": 0}, "kernel_dilation must be a positive int or two of them, got 0"),
        (
            (X, K),
            {"padding": "REFLECT"},
            "padding must be 'SAME', 'VALID', 'CIRCULAR', an int, or two ints or (low, high) pairs, got 'REFLECT'",
        ),
        ((X, K), {"padding": -3}, "a window of (3, 3) does not fit into a padded input of (2, 2)"),
        ((X[0, 0], K), {}, "input must have two spatial and one channel dimension, got shape (8, 4)"),
    ],
)
def test_conv_transpose_says_what_was_expected_and_what_arrived(arrays, arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        F.conv_transpose(*arrays, **arguments)
    assert str(error.value) == f"conv_transpose: {message}"
