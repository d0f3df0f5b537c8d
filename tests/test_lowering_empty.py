"""What holds nothing: batches, channels and mapped axes of extent 0, through every primitive, as in stock JAX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering

NUMBERS = ("NHWC", "HWIO", "NHWC")
CONV = {"window_strides": (2, 1), "padding": "SAME", "dimension_numbers": NUMBERS}
TRANSPOSED = {"window_strides": (1, 1), "padding": ((2, 2), (2, 2)), "lhs_dilation": (2, 2)} | {
    "dimension_numbers": NUMBERS
}
IMAGES, KERNEL = (2, 6, 5, 3), (3, 3, 3, 8)


def operations(options):
    return lowering.conv_general_dilated, lax.conv_general_dilated, options


OPERATIONS = {
    "conv": operations(CONV),
    "transposed": operations(TRANSPOSED),
    "pool": (lambda x: F.max_pool(x, (2, 2), 2), lambda x: _direct(F.max_pool, x, (2, 2), 2), {}),
    "average": (lambda x: F.avg_pool(x, (3, 3), 1, "SAME"), lambda x: _direct(F.avg_pool, x, (3, 3), 1, "SAME"), {}),
    "bias": (lowering.add_bias, lambda y, bias: y + bias, {}),
}


def _direct(function, *arguments):
    with lowering.use("direct"):
        return function(*arguments)


CASES = [
    ("conv", [(0, 6, 5, 3), KERNEL]),
    ("conv", [(2, 0, 5, 3), KERNEL]),
    ("conv", [(2, 6, 5, 0), (3, 3, 0, 8)]),
    ("conv", [IMAGES, (3, 3, 3, 0)]),
    ("transposed", [(0, 6, 5, 3), (4, 4, 3, 8)]),
    ("pool", [(0, 6, 5, 3)]),
    ("pool", [(2, 6, 5, 0)]),
    ("average", [(0, 6, 5, 3)]),
    ("average", [(2, 6, 5, 0)]),
    ("bias", [(0, 6, 5, 3), (3,)]),
    ("bias", [(2, 6, 5, 0), (0,)]),
]
MAPPED = [
    ("conv", [IMAGES, KERNEL], (0, None)),
    ("conv", [IMAGES, KERNEL], (None, 0)),
    ("conv", [IMAGES, KERNEL], (0, 0)),
    ("conv", [(0, 6, 5, 3), KERNEL], (0, None)),
    ("conv", [(2, 6, 5, 0), (3, 3, 0, 8)], (None, 0)),
    ("transposed", [IMAGES, (4, 4, 3, 8)], (0, None)),
    ("transposed", [IMAGES, (4, 4, 3, 8)], (None, 0)),
    ("pool", [IMAGES], (0,)),
    ("average", [IMAGES], (0,)),
    ("bias", [IMAGES, (3,)], (0, None)),
    ("bias", [IMAGES, (3,)], (None, 0)),
]


def described(function, operands, axes=None):
    """The shapes of values, gradients and their tangents; what holds numbers is zero."""

    def everything(*operands):
        value, back = jax.vjp(function, *operands)
        return value, back(value), jax.jvp(lambda *a: jax.vjp(function, *a)[1](value), operands, operands)[1]

    everything = jax.vmap(everything, axes) if axes else everything
    results = jax.tree.leaves((everything(*operands), jax.jit(everything)(*operands)))
    assert not any(a.any() for a in results)
    return [a.shape for a in results]


def check(name, shapes, axes=None):
    ours, stock, options = OPERATIONS[name]
    operands = [jnp.zeros(shape) for shape in shapes]
    found, expected = (described(functools.partial(f, **options), operands, axes) for f in (ours, stock))
    assert found == expected


@pytest.mark.parametrize("case", CASES)
def test_empty_arrays_give_what_they_give_in_stock_jax(case):
    check(*case)


@pytest.mark.parametrize("case", MAPPED)
def test_so_does_a_map_over_nothing(case):
    name, shapes, axes = case
    check(name, [(0, *s) if axis == 0 else s for s, axis in zip(shapes, axes, strict=True)], axes)


def test_a_map_over_no_batches():
    assert jax.vmap(F.conv, (0, None))(jnp.zeros((0, 4, 8, 8, 3)), jnp.ones((3, 3, 3, 8))).shape == (0, 4, 8, 8, 8)
