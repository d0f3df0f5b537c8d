"""Functions exported with symbolic sizes, by `jax.export`: wherever stock Flax can be, and to the same numbers."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import pooling
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering, models
from tests.geometries import ints, normal

KERNEL, BIAS = (jnp.asarray(a, jnp.float32) for a in normal(0, (3, 3, 3, 4), (4,)))
PARAMS = {"params": {"kernel": KERNEL, "bias": BIAS}}


def conv(**options):
    """Ours and stock Flax's."""
    return functools.partial(F.conv, kernel=KERNEL, bias=BIAS, **options), functools.partial(
        nn.Conv(4, (3, 3), **options).apply, PARAMS
    )


def conv_transpose(**options):
    strides = (options["strides"],) * 2
    return functools.partial(F.conv_transpose, kernel=KERNEL, bias=BIAS, **options), functools.partial(
        nn.ConvTranspose(4, (3, 3), **options | {"strides": strides}).apply, PARAMS
    )


def pool(name, *arguments, **options):
    def of(module):
        return lambda x: getattr(module, name)(x, *arguments, **options)

    return of(F), of(pooling)


PAIRS = {
    "same": conv(),
    "same, strided": conv(strides=2, kernel_dilation=(1, 2)),
    "valid": conv(padding="VALID", strides=(1, 2)),
    "padded": conv(padding=((2, 0), (1, 1)), strides=3),
    "cropped": conv(padding=((-1, 0), (0, -1))),
    "dilated": conv(input_dilation=(2, 1), padding=1),
    "transposed": conv_transpose(strides=2),
    "transposed, valid": conv_transpose(strides=2, padding="VALID"),
    "maximum": pool("max_pool", (3, 2), (2, 2), "SAME"),
    "minimum": pool("min_pool", (2, 2), (2, 2)),
    "average": pool("avg_pool", (3, 3), (2, 1), ((1, 1), (0, 1))),
    "average of what is seen": pool("avg_pool", (3, 3), (2, 2), "SAME", count_include_pad=False),
    "means": (F.global_avg_pool, lambda x: x.mean((1, 2))),
}


def check(function, stock, *shapes, symbols="b, h, w, 3"):
    spec = jax.ShapeDtypeStruct(export.symbolic_shape(symbols), jnp.float32)
    exported = export.export(jax.jit(function))(spec)
    for shape in shapes:
        (x,) = normal(1, shape)
        x = jnp.asarray(x, jnp.float32)
        np.testing.assert_allclose(exported.call(x), stock(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", PAIRS)
def test_all_sizes_are_those_of_flax(case):
    check(*PAIRS[case], (2, 7, 6, 3), (1, 4, 9, 3))


def test_so_it_is_under_a_mode_for_onednn():
    function, stock = PAIRS["same, strided"]
    with lowering.use("onednn"):
        check(function, stock, (2, 5, 6, 3))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["SAME", "VALID", 1, ((1, 0), (2, 1)), ((0, -1), (1, 1))]),
    ints(1, 3, 2),
    ints(1, 2, 2),
    st.sampled_from(["b, h, w, 3", "2, h, h, 3", "b, 8, 2*w, 3", "1, h + 2, 7, 3"]),
)
def test_all_geometries_are_those_of_flax(padding, strides, dilation, symbols):
    shape = {"b": (1, 8, 8, 3), "2": (2, 8, 8, 3), "1": (1, 8, 7, 3)}[symbols[0]]
    check(*conv(padding=padding, strides=strides, kernel_dilation=dilation), shape, symbols=symbols)


def test_what_fits_in_no_size_is_refused():
    spec = jax.ShapeDtypeStruct(export.symbolic_shape("b, 2, w, 3"), jnp.float32)
    with pytest.raises(ValueError, match=r"^conv: a window of \(3, 3\) does not fit into a padded input of \(2, w\)"):
        export.export(jax.jit(functools.partial(F.conv, kernel=KERNEL, padding="VALID")))(spec)


@pytest.mark.parametrize("case", ["same", "maximum"])
def test_so_are_gradients_where_flax_has_them(case):
    ours, stock = (jax.grad(lambda x, f=f: (f(x) ** 2).sum()) for f in PAIRS[case])
    check(ours, stock, (2, 6, 5, 3))


@pytest.mark.parametrize(
    ("network", "symbols", "rank"),
    [
        (models.ConvNet(filters=(2, 3)), "b, 8, 9, 1", 2),
        (models.LeNet5(), "b, h, w, 1", 4),
    ],
    ids=["ConvNet", "LeNet5"],
)
def test_networks_take_what_they_take_in_numbers(network, symbols, rank):
    constraints = ["h >= 36", "w >= 36"] if "h" in symbols else []
    images = jax.ShapeDtypeStruct(export.symbolic_shape(symbols, constraints=constraints), jnp.float32)
    size = tuple(n if isinstance(n, int) else 36 for n in images.shape)
    variables = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(size, jnp.float32))
    (found,) = export.export(jax.jit(network.apply))(variables, images).out_avals
    assert (found.ndim, str(found.shape[0]), found.shape[-1]) == (rank, "b", 10)
