"""What holds nothing: batches, channels and mapped axes of extent 0, through every primitive, as in stock JAX."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering
from tests import quick

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


def everything(function, axes):
    """Of operands: value, gradients and their tangents; mapped over `axes` unless None."""

    def of(*operands):
        value, back = jax.vjp(function, *operands)
        return value, back(value), jax.jvp(lambda *a: jax.vjp(function, *a)[1](value), operands, operands)[1]

    return jax.vmap(of, axes) if axes else of


def ours_and_stock(name, shapes, axes=None):
    """Functions of the same operands, and these: what axes are mapped over holds nothing."""
    *functions, options = OPERATIONS[name]
    operands = [np.zeros((0, *s) if a == 0 else s, np.float32) for s, a in zip(shapes, axes or shapes, strict=True)]
    return *(everything(functools.partial(f, **options), axes) for f in functions), operands


def check(found, stock, operands):
    """The shapes and dtypes are those of stock JAX, and what holds numbers is zero."""
    expected = jax.eval_shape(stock, *operands)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), found) == jax.tree.map(lambda a: (a.shape, a.dtype), expected)
    assert not any(np.asarray(a).any() for a in jax.tree.leaves(found))


@pytest.mark.parametrize("case", CASES + MAPPED)
def test_empty_arrays_and_maps_over_nothing_give_what_they_give_in_stock_jax(case):
    ours, stock, operands = ours_and_stock(*case)
    check(ours(*operands), stock, operands)


def test_so_they_do_in_a_program():
    several = [ours_and_stock(*case) for case in CASES + MAPPED]
    found = quick.jit(lambda *given: [ours(*a) for (ours, _, _), a in zip(several, given, strict=True)])(
        *(operands for *_, operands in several)
    )
    for one, (_, stock, operands) in zip(found, several, strict=True):
        check(one, stock, operands)


def test_a_map_over_no_batches():
    assert jax.vmap(F.conv, (0, None))(jnp.zeros((0, 4, 8, 8, 3)), jnp.ones((3, 3, 3, 8))).shape == (0, 4, 8, 8, 8)
