"""Each way of putting a convolution or a pool to XLA, against NumPy in float64, and its derivatives against XLA's."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import pooling
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering
from cnn_jax.lowering import bilinear, canonical, choice, folded
from cnn_jax.lowering.geometry import Geometry, Windows
from tests import quick
from tests.geometries import ints, normal, seeds

TINY = {"bfloat16": 2.0**-133, "float16": 2.0**-24}
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def make_geometry(size, window, strides=(1, 1), padding=((0, 0), (0, 0)), groups=1):
    return Geometry(
        size=size, window=window, strides=strides, padding=padding, input_dilation=(1, 1), kernel_dilation=(1, 1),
        groups=groups, precision=None,
    )  # fmt: skip


@st.composite
def geometries(draw):
    window, strides = draw(ints(1, 4, 2)), draw(ints(1, 3, 2))
    padding = draw(st.tuples(ints(-1, 2, 2), ints(-1, 2, 2)))
    least = [max(1, w - sum(p), 1 + sum(-q for q in p if q < 0)) for w, p in zip(window, padding, strict=True)]
    size = tuple(draw(st.integers(low, low + 5)) for low in least)
    return make_geometry(size, window, strides, padding)


def patches(x, geometry):
    """A view of padded or cropped x: the elements under each window, (N, h, w, kh, kw, I), in x's memory."""
    view = np.lib.stride_tricks.sliding_window_view(x, geometry.window, (1, 2), writeable=True)
    view = view[:, :: geometry.strides[0], :: geometry.strides[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def padded(x, geometry):
    x = np.pad(x, [(0, 0), *(tuple(max(p, 0) for p in pair) for pair in geometry.padding), (0, 0)])
    crops = [
        slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape[1:3], geometry.padding, strict=True)
    ]
    return x[:, crops[0], crops[1]]


def conv(x, kernel, geometry):
    return np.einsum("nhwklc,klco->nhwo", patches(padded(x, geometry), geometry), kernel)


def weight_gradient(x, y, geometry):
    return np.einsum("nhwklc,nhwo->klco", patches(padded(x, geometry), geometry), y)


def input_gradient(y, kernel, geometry):
    """Each element's share in the outputs, found by looking where its own index went."""
    channels = kernel.shape[2]
    index = np.arange(1, 1 + math.prod(geometry.size)).reshape(1, *geometry.size, 1)  # 0 is padding
    seen = patches(padded(index, geometry), geometry)[0, ..., 0]
    x = np.zeros((y.shape[0], 1 + index.size, channels))
    shares = np.einsum("nhwo,klco->nhwklc", y, kernel)
    for n in range(y.shape[0]):
        np.add.at(x[n], seen.reshape(-1), shares[n].reshape(-1, channels))
    return x[:, 1:].reshape(y.shape[0], *geometry.size, channels)


REFERENCE = {"conv": conv, "input_gradient": input_gradient, "weight_gradient": weight_gradient}


def operands(operation, arrays):
    x, kernel, y = arrays
    return {"conv": (x, kernel), "input_gradient": (y, kernel), "weight_gradient": (x, y)}[operation]


def draw(geometry, counts, seed, dtype):
    """Images, kernel and cotangents, for so many images, inputs and outputs."""
    n, i, o = counts
    shapes = (n, *geometry.size, i), (*geometry.window, i, o), (n, *geometry.out, o)
    return [jnp.asarray(a, dtype) for a in normal(seed, *shapes)]


def definition(operation, arrays, geometry):
    """What an operation is by its definition, the sizes of the products it adds up, and how many at most."""
    exact = [np.asarray(a, np.float64) for a in arrays]
    (n, *_, i), o = arrays[0].shape, arrays[1].shape[-1]
    terms = {
        "conv": math.prod(geometry.window) * i,
        "input_gradient": math.prod(geometry.window) * o,
        "weight_gradient": math.prod(geometry.out) * n,
    }
    values, sizes = operands(operation, exact), operands(operation, [abs(a) for a in exact])
    return REFERENCE[operation](*values, geometry), REFERENCE[operation](*sizes, geometry), terms[operation]


def check_within_rounding(geometry, counts, block, seed, dtype):
    n, i, _ = counts
    arrays = draw(geometry, counts, seed, dtype)

    @quick.jit
    def everything(arrays):
        results = {}
        for operation, ways in bilinear.WAYS.items():
            weighs = operation == "weight_gradient"
            alone = ["toeplitz"] + ["shifted"] * (operation != "input_gradient")
            for name in ["banded", "taps"] + alone * (i == 1) + ["together", "stacked"] * weighs:
                arguments = {
                    "banded": {"block": block, "tiles": n},
                    "shifted": {"tiles": n} if weighs else {},
                    "toeplitz": {"block": block},
                    "stacked": {"tiles": 1, "runs": n} if block % 2 else {"tiles": n, "runs": 1},
                }.get(name, {})
                results[operation, name] = ways[name](*operands(operation, arrays), geometry=geometry, **arguments)
        if dtype == "float32":  # In half precision XLA's own operation rounds as it likes, and a sum of tiles again.
            x, kernel, y = arrays
            results["input_gradient", "canonical"] = canonical.input_gradient(y, kernel, geometry)
            results["weight_gradient", "canonical"] = canonical.weight_gradient(x, y, geometry, tiles=n)
        return results

    for (operation, name), result in everything(arrays).items():
        assert result.dtype == dtype
        expected, size, terms = definition(operation, arrays, geometry)
        # A sum of m products errs by at most gamma_m times the sum of their sizes, in whichever order it is taken
        # (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). All are summed in float32; a result
        # of half precision is then rounded once.
        error = terms * UNIT["float32"]
        bound = error / (1 - error) * size
        if dtype != "float32":
            bound += UNIT[dtype] * (abs(expected) + bound) + TINY[dtype]
        assert (abs(np.asarray(result, np.float64) - expected) <= bound).all(), (operation, name)


@settings(max_examples=12, deadline=None)
@given(geometries(), ints(1, 3, 3), st.integers(1, 5), seeds, st.sampled_from(["float32", "bfloat16", "float16"]))
def test_every_lowering_is_within_rounding_of_the_definition(geometry, counts, block, seed, dtype):
    check_within_rounding(geometry, counts, block, seed, dtype)


@settings(max_examples=10, deadline=None)
@given(geometries(), ints(1, 2, 2), st.booleans(), ints(1, 3, 3), seeds)
def test_gradients_freed_of_strides_are_within_rounding_of_the_definition(geometry, parts, whole, counts, seed):
    window = tuple(map(operator.mul, geometry.strides, parts)) if whole else geometry.window
    size = tuple(map(operator.add, geometry.size, window))  # large enough for any padding
    geometry = dataclasses.replace(geometry, size=size, window=window)
    n, i, o = counts
    y, kernel = (jnp.asarray(a, "float32") for a in normal(seed, (n, *geometry.out, o), (*window, i, o)))
    axes = tuple(axis for axis, stride in enumerate(geometry.strides) if stride > 1)
    way = folded.input_gradient if whole else folded.input_gradient_completed
    found = quick.jit(functools.partial(way, geometry=geometry, axes=axes, inner=canonical.input_gradient))(y, kernel)
    exact = [np.asarray(a, np.float64) for a in (y, kernel)]
    error = o * math.prod(-(-w // s) for w, s in zip(window, geometry.strides, strict=True)) * UNIT["float32"]
    bound = error / (1 - error) * input_gradient(*map(abs, exact), geometry)
    assert (abs(np.asarray(found, np.float64) - input_gradient(*exact, geometry)) <= bound).all()


@settings(max_examples=8, deadline=None)
@given(geometries(), st.integers(2, 9), ints(1, 3, 3), seeds, st.sampled_from(["float32", "bfloat16", "float16"]))
def test_groups_are_within_rounding_of_the_definition(geometry, groups, counts, seed, dtype):
    n, i, o = counts
    shapes = (n, *geometry.size, groups, i), (*geometry.window, i, groups, o), (n, *geometry.out, groups, o)
    arrays = [jnp.asarray(a, dtype) for a in normal(seed, *shapes)]
    flat = [a.reshape(*a.shape[:3], -1) for a in arrays]
    flat[1] = arrays[1].reshape(*geometry.window, i, groups * o)

    @quick.jit
    def everything(flat):
        joined = dataclasses.replace(geometry, groups=groups)
        results = {}
        for operation, ways in bilinear.WAYS.items():
            tiles = {"tiles": n} if operation == "weight_gradient" else {}
            results[operation, "shifted"] = ways["shifted"](*operands(operation, flat), geometry=joined, **tiles)
            inner = functools.partial(lambda a, b, geometry, way: way(a, b, geometry=geometry), way=ways["taps"])
            results[operation, "grouped"] = ways["grouped"](*operands(operation, flat), geometry=joined, inner=inner)
        return results

    for (operation, _), result in everything(flat).items():
        assert result.dtype == dtype
        each = np.asarray(result, np.float64).reshape(*result.shape[:3], groups, -1)
        for group in range(groups):
            expected, size, terms = definition(operation, [a[..., group, :] for a in arrays], geometry)
            error = (terms + 10) * UNIT["float32"]
            bound = error / (1 - error) * size
            if dtype != "float32":
                bound += UNIT[dtype] * (abs(expected) + bound) + TINY[dtype]
            assert (abs(each[..., group, :] - expected) <= bound).all(), operation


def test_products_of_bfloat16_add_up_in_float32():
    check_within_rounding(make_geometry((12, 12), (3, 3)), (2, 32, 32), 2, 0, "bfloat16")


# One for each rule of `choice` and what it leaves to XLA: size, window, strides, padding, (inputs, outputs), the rest.
CASES = [
    ((8, 9), (4, 5), (1, 1), ((0, 0), (2, 1)), (1, 3), {}),
    ((8, 9), (5, 4), (2, 1), ((1, 2), (-1, 2)), (2, 3), {}),
    ((5, 4), (2, 3), (1, 2), ((1, 0), (1, 1)), (17, 2), {}),
    ((6, 5), (3, 2), (2, 1), ((1, 1), (0, 1)), (3, 6), {"feature_group_count": 3}),
    ((6, 5), (3, 2), (2, 1), ((1, 1), (-1, 1)), (4, 6), {"feature_group_count": 2}),
    ((7, 6), (3, 2), (1, 1), ((1, 1), (-1, 1)), (4, 4), {"feature_group_count": 4}),
    ((8, 7), (5, 3), (1, 1), ((2, 2), (-1, 1)), (3, 3), {"feature_group_count": 3}),
    ((5, 4), (5, 4), (1, 1), ((0, 0), (0, 0)), (17, 2), {}),
    ((6, 7), (3, 3), (1, 1), ((1, 1), (0, 1)), (3, 20), {}),
    ((5, 4), (1, 1), (2, 1), ((0, 0), (0, 0)), (17, 2), {}),
    ((9, 8), (4, 6), (2, 3), ((1, 1), (-1, 2)), (7, 2), {}),
    ((5, 4), (3, 2), (1, 2), ((3, 2), (0, 1)), (2, 3), {"kernel_dilation": (2, 1)}),
    ((5, 4), (3, 2), (3, 1), ((3, -1), (0, 1)), (2, 3), {"input_dilation": (2, 3), "kernel_dilation": (1, 2)}),
    ((5, 4), (4, 4), (1, 1), ((2, 2), (2, 2)), (2, 3), {"input_dilation": (2, 2)}),
    ((7,), (3,), (2,), ((1, 2),), (4, 2), {"feature_group_count": 2, "kernel_dilation": (2,)}),
    ((4, 3, 3), (2, 1, 3), (1, 2, 1), ((1, 0), (0, 0), (1, 1)), (2, 3), {}),
    ((4, 3, 5), (2, 3, 2), (2, 1, 1), ((1, 0), (0, 1), (1, 0)), (2, 2), {"feature_group_count": 2}),
    ((4, 6, 3), (2, 4, 1), (2, 2, 1), ((1, 0), (-1, 1), (0, 0)), (3, 2), {}),
    ((4, 3, 3), (3, 2, 2), (1, 1, 1), ((1, 1), (0, 0), (0, 1)), (2, 4), {"feature_group_count": 2}),
    ((9,), (4,), (2,), ((1, 2),), (3, 2), {}),
    ((5, 6), (2, 3), (2, 3), ((1, 0), (0, 2)), (3, 2), {}),
    ((5, 6), (2, 2), (1, 3), ((1, 0), (0, 2)), (4, 8), {"feature_group_count": 4, "kernel_dilation": (2, 2)}),
    ((5, 4), (2, 2), (2, 1), ((1, 0), (0, 1)), (16, 8), {"feature_group_count": 8}),
    ((7, 8), (7, 8), (1, 1), ((1, 2), (3, 3)), (2, 3), {}),
]


@pytest.mark.parametrize("case", CASES)
def test_derivatives_and_maps_are_those_of_the_stock_convolution(case):
    check_derivatives(*case)


@pytest.mark.parametrize("side", [2, 4])
def test_derivatives_and_maps_of_winograds_are_those_of_the_stock_convolution(side, monkeypatch):
    """It is for wide convolutions, but as good for a narrow one, which is as telling and takes a hundredth."""
    asked = set()

    def choose(operation, *_):
        asked.add(operation)
        return "winograd", {"tiles": 1} | ({"side": side} if operation == "weight_gradient" else {})

    monkeypatch.setattr(choice, "choose", choose)
    check_derivatives((9, 10), (3, 3), (1, 1), ((1, 1), (0, 2)), (2, 3), {})
    assert asked == set(bilinear.WAYS)


def check_derivatives(size, window, strides, padding, channels, rest):
    i, o = channels
    kernel_shape = (*window, i // rest.get("feature_group_count", 1), o)
    x, kernel, dx, dk = normal(0, (2, *size, i), kernel_shape, (2, *size, i), kernel_shape)

    def conv(x, kernel):
        return F.conv(x, kernel, strides=strides, padding=padding, **rest)

    def loss(x, kernel):
        y = jnp.tanh(conv(x, kernel))
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

    grad = jax.grad(loss, (0, 1))

    def to_input(y, kernel):
        return jax.linear_transpose(lambda x: conv(x, kernel), x)(y)[0]

    def to_kernel(x, y):
        return jax.linear_transpose(lambda kernel: conv(x, kernel), kernel)(y)[0]

    def everything(x, kernel, dx, dk):
        xs, kernels, y = jnp.stack([x, dx], 1), jnp.stack([kernel, dk]), conv(x, kernel)
        return {
            "gradient of gradient": jax.grad(lambda *a: sum((g**2).sum() for g in grad(*a)), (0, 1))(x, kernel),
            "tangent": jax.jvp(loss, (x, kernel), (dx, dk)),
            "mapped inputs": jax.vmap(grad, (1, None))(xs, kernel),
            "mapped kernels": jax.vmap(grad, (None, 0), -1)(x, kernels),
            "to input, mapped kernels": jax.vmap(to_input, (None, 0))(y, kernels),
            "to kernel, mapped inputs": jax.vmap(to_kernel, (1, None))(xs, y),
        }

    with jax.enable_x64(True):
        ours = quick.jit(everything)(x, kernel, dx, dk)
        with lowering.use("direct"):
            stock = quick.jit(everything)(x, kernel, dx, dk)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), ours, stock)


def pool_everything(x, pool, window, strides, padding):
    def value(x):
        return pool(x, window, strides, padding)

    c = jnp.cos(jnp.arange(value(x).size)).reshape(value(x).shape)
    grad = jax.grad(lambda x: (jnp.sin(value(x)) * c).sum())
    return {
        "value": value(x),
        "gradient": jax.vjp(value, x)[1](c),
        "hessian-vector": jax.jvp(grad, (x,), (x[::-1],)),
        "gradient of gradient": jax.grad(lambda x: (grad(x) ** 2).sum())(x),
        "mapped": jax.vmap(grad, 1)(jnp.stack([x, x[::-1]], 1)),
    }


POOLS = [
    ((2, 2), (2, 2), "VALID"),
    ((3, 2), (2, 1), "SAME"),
    ((2, 3), (3, 1), ((1, 0), (1, 2))),
    ((4, 4), (2, 3), ((2, 1), (3, 3))),
]


@pytest.mark.parametrize(
    ("pool", "geometry"),
    # A minimum is a maximum in all but the comparison.
    [(pool, geometry) for pool in (F.max_pool, F.avg_pool) for geometry in POOLS]
    + [(F.min_pool, geometry) for geometry in POOLS[:2]],
)
def test_derivatives_of_pools_are_those_of_the_stock_pools(pool, geometry):
    x = np.random.default_rng(0).permutation(2 * 7 * 6 * 3).reshape(2, 7, 6, 3) / 100.0
    with jax.enable_x64(True):
        ours = quick.jit(lambda x: pool_everything(x, pool, *geometry))(x)
        with lowering.use("direct"):
            stock = quick.jit(lambda x: pool_everything(x, pool, *geometry))(x)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, stock)


@pytest.mark.parametrize("values", [(0, 1), (0, 1, np.nan), (-np.inf, 0, np.inf)])
@pytest.mark.parametrize("geometry", [((2, 2), (2, 2), "VALID"), ((3, 3), (2, 1), "SAME")])
def test_of_equal_elements_the_one_wins_that_wins_in_flax(values, geometry):
    x = np.random.default_rng(0).choice(values, (2, 7, 6, 3)).astype(np.float32)

    @quick.jit
    def values_and_gradients(x):
        def of(pool):
            y, back = jax.vjp(lambda z: pool(z, *geometry), x)
            return y, *back(jnp.arange(1.0, 1 + y.size).reshape(y.shape))

        return [list(map(of, pools)) for pools in ((F.max_pool, F.min_pool), (pooling.max_pool, pooling.min_pool))]

    jax.tree.map(np.testing.assert_array_equal, *values_and_gradients(x))


def network(x, kernel):
    return F.max_pool(F.avg_pool(F.conv(x, kernel), (2, 2), (2, 2)), (2, 2), (2, 2)).sum()


X, K = jnp.ones((2, 8, 8, 1)), jnp.ones((4, 4, 1, 3))


def test_scanned_and_rematerialised_steps_are_the_steps():
    def step(kernel, _):
        return kernel - 0.1 * jax.grad(jax.checkpoint(network), 1)(X, kernel), None

    scanned = quick.jit(lambda kernel: jax.lax.scan(step, kernel, length=3)[0])(K)
    one = quick.jit(lambda kernel: kernel - 0.1 * jax.grad(network, 1)(X, kernel))
    stepped = functools.reduce(lambda kernel, _: one(kernel), range(3), K)
    np.testing.assert_allclose(scanned, stepped, rtol=1e-5)


STOCK = {"convolution", "reduce_window", "select_and_scatter"}


LOSS_AND_GRADIENTS = jax.value_and_grad(network, (0, 1))


def operations(function=LOSS_AND_GRADIENTS, arguments=(X, K), **lower):
    """XLA operations of a function."""
    text = jax.jit(function).trace(*arguments).lower(**lower).as_text()
    return set(re.findall(r"stablehlo\.(\w+)", text))


def test_other_platforms_get_xlas_own_operations():
    assert not operations() & STOCK
    for platform in ("rocm", "tpu"):
        assert operations(lowering_platforms=(platform,)) >= STOCK
    assert operations(lowering_platforms=("cuda",)) & STOCK == STOCK - {"select_and_scatter"}


def test_kernels_of_many_seeds_are_matrix_products_on_a_gpu():
    def operations_of_seeds(platform, axes):
        arguments = tuple(a if axis is None else jnp.stack([a] * 3) for a, axis in zip((X, K), axes, strict=True))
        return operations(jax.vmap(LOSS_AND_GRADIENTS, axes), arguments, lowering_platforms=(platform,))

    assert "convolution" not in operations_of_seeds("cuda", (0, 0))
    for platform, axes in (("cuda", (0, None)), ("tpu", (0, 0)), ("rocm", (0, 0))):
        assert "convolution" in operations_of_seeds(platform, axes)


@pytest.mark.parametrize("operation", bilinear.WAYS)
def test_those_products_are_the_convolutions(operation):
    geometry = make_geometry((9, 8), (3, 2), (1, 1), ((1, 1), (0, 2)))
    x, kernel, y = normal(0, (4, 5, 9, 8, 3), (4, 3, 2, 3, 6), (4, 5, *geometry.out, 6))
    a, b = {"conv": (x, kernel), "input_gradient": (y, kernel), "weight_gradient": (x, y)}[operation]
    way, arguments = choice.choose_cuda(operation, geometry, (4, 5, 3, 6), jnp.float32)
    assert way in ("taps", "together")
    assert not arguments
    ways = [functools.partial(bilinear.WAYS[operation][name], geometry=geometry) for name in (way, "direct")]
    found, stock = quick.jit(lambda a, b: [jax.vmap(one)(a, b) for one in ways])(a.astype("f4"), b.astype("f4"))
    np.testing.assert_allclose(found, stock, rtol=1e-4, atol=1e-4)
    for changed in ({"strides": (2, 1)}, {"kernel_dilation": (1, 2)}, {"groups": 3}, {"size": (9000, 9000)}):
        other = dataclasses.replace(geometry, **changed)
        assert choice.choose_cuda(operation, other, (4, 5, 3, 6), jnp.float32)[0] == "direct"
    for sizes, dtype in (((1, 5, 3, 6), jnp.float32), ((4, 0, 3, 6), jnp.float32), ((4, 5, 3, 6), jnp.bfloat16)):
        assert choice.choose_cuda(operation, geometry, sizes, dtype)[0] == "direct"


def test_use_overrides_what_is_traced_inside_it():
    function = jax.jit(network)
    assert "cnn_" in str(function.trace(X, K).jaxpr)
    with lowering.use("direct"):
        assert "cnn_" not in str(function.trace(X, K).jaxpr)
        assert operations() >= STOCK
        with lowering.use("auto"):
            assert not operations() & STOCK
    assert not operations() & STOCK


def test_use_names_what_it_knows():
    with pytest.raises(ValueError, match=r"^use: lowering must be 'auto', 'direct' or 'onednn', got 'fast'$"):
        lowering.use("fast")


def test_a_program_does_not_depend_on_when_it_is_made():
    def program():
        jax.clear_caches()
        return jax.jit(jax.grad(network)).lower(X, K).as_text()

    assert program() == program()


SHARDED = """
import jax, numpy as np
from cnn_jax import functional as F
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from tests.test_lowerings import K, X, network
x, kernel = jax.random.normal(jax.random.key(0), X.shape), jax.random.normal(jax.random.key(1), K.shape)
grad = jax.grad(network, (0, 1))
expected = jax.jit(grad)(x, kernel)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    xs, ks = jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(kernel, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        found = jax.jit(grad)(xs, ks)
        mapped = jax.jit(jax.shard_map(grad, in_specs=(P("data"), P()), out_specs=(P("data"), P())))(xs, ks)
    for got in (found, mapped):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, expected)
    assert found[0].sharding.is_equivalent_to(xs.sharding, 4)
# What no type tells of: arrays that lie on both devices. Depthwise, whose gradient would gather them.
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
xs = jax.device_put(np.ones((8, 12, 12, 20), np.float32), NamedSharding(mesh, P("data")))
ks = jax.device_put(np.ones((3, 3, 1, 20), np.float32), NamedSharding(mesh, P()))
depthwise = jax.grad(lambda x, kernel: (F.conv(x, kernel, feature_group_count=20) ** 2).mean(), (0, 1))
divided = jax.jit(depthwise).lower(xs, ks).compile().as_text()
assert divided.count(" all-reduce(") == 1 and "all-gather" not in divided, divided
"""


def test_gradients_over_two_devices_are_the_same_and_gather_no_arrays():
    devices = f"--xla_force_host_platform_device_count=2 {quick.flags()}"
    variables = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices}
    subprocess.run([sys.executable, "-c", SHARDED], env=variables, check=True, cwd=Path(__file__).parent.parent)


def test_choices_are_lowerings_that_take_the_geometry():
    plain = make_geometry((8, 8), (5, 5))
    for operation, ways in bilinear.WAYS.items():
        few = 1 if operation == "weight_gradient" else 2
        assert choice.choose(operation, plain, (1, 4, few, 16), jnp.float32)[0] == "banded"
        for changed in ({"input_dilation": (2, 1)}, {"kernel_dilation": (1, 2)}):
            other = dataclasses.replace(plain, **changed)
            assert choice.choose(operation, other, (1, 4, 6, 16), jnp.float32)[0] in ("direct", "canonical")
        other = dataclasses.replace(plain, groups=2)
        assert choice.choose(operation, other, (1, 4, 6, 16), jnp.float32)[0] == "grouped"
        for sizes in ((1, 0, 6, 16), (1, 4, 1, 1), (10, 4, 1, 6), (1, 4, 512, 512)):
            assert choice.choose(operation, plain, sizes, jnp.float32)[0] in ways


def test_winograd_is_for_wide_3x3_convolutions_unless_precision_is_raised(monkeypatch):
    monkeypatch.setattr(choice, "cores", lambda: 2)
    geometry, sizes = make_geometry((8, 8), (3, 3), (1, 1), ((1, 1), (1, 1))), (1, 64, 128, 128)
    for operation in bilinear.WAYS:
        assert choice.choose(operation, geometry, sizes, jnp.float32)[0] == "winograd"
        precise = dataclasses.replace(geometry, precision=jax.lax.Precision.HIGHEST)
        assert choice.choose(operation, precise, sizes, jnp.float32)[0] != "winograd"
        # One image does not pay for the transforms of the windows, and small ones of many channels only for smaller.
        assert choice.choose(operation, geometry, (1, 1, 128, 128), jnp.float32)[0] != "winograd"
    small = make_geometry((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)))
    for shape, wide, side in ((geometry, sizes, 4), (small, (1, 32, 512, 512), 2)):
        assert choice.choose("conv", shape, wide, jnp.float32) == ("winograd", {"tiles": 1})
        found = choice.choose("weight_gradient", shape, wide, jnp.float32)
        assert found == ("winograd", {"side": side, "tiles": 1})


def test_with_many_cores_less_is_written_and_more_taken_at_once(monkeypatch):
    """As measured with sixteen: images of 4x4 were faster without Winograd, larger runs, and XLA's own maxima."""
    small, large = (make_geometry((n, n), (3, 3), (1, 1), ((1, 1), (1, 1))) for n in (4, 16))
    few, pool = make_geometry((14, 14), (5, 5)), Windows((32, 32), (2, 2), (2, 2), ((0, 0), (0, 0)))
    found = {}
    for count in (2, 16):
        monkeypatch.setattr(choice, "cores", lambda count=count: count)
        found[count] = [
            choice.choose("weight_gradient", small, (1, 32, 512, 512), jnp.float32)[0],
            choice.choose("weight_gradient", large, (1, 32, 128, 128), jnp.float32)[0],
            choice.choose("input_gradient", few, (1, 1024, 6, 16), jnp.float32)[1]["tiles"],
            choice.compares_slices(pool, (128, 32, 32, 64)),
        ]
    assert found == {2: ["winograd", "winograd", 8, True], 16: ["canonical", "winograd", 1, False]}
