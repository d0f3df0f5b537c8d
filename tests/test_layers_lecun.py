"""The layers of LeCun et al. (1998) against their definitions in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import initializers

from cnn_jax import layers
from tests import quick, reference
from tests.drawn import count, draw_variables
from tests.geometries import normal

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
# Three, one and two maps of four, not in order; map 1 is seen by nobody.
SEEN = ((2, 0, 3), (3,), (0, 2))


def apply(layer, params, x):
    with jax.enable_x64(True):
        return np.asarray(quick.jit(layer.apply)({"params": params}, x))


def each_map_by_itself(x, kernel, bias, connections, strides, padding):
    """Every output map is a convolution of its own with the maps that it sees."""
    rank, first, maps = kernel.ndim - 1, 0, []
    ones = (1,) * rank
    for seen, offset in zip(connections, bias, strict=True):
        own = kernel[..., first : first + len(seen), None]
        first += len(seen)
        maps.append(reference.conv(x[..., list(seen)], own, [offset], strides, padding, ones, ones, 1))
    assert first == kernel.shape[-1]
    return np.concatenate(maps, axis=-1)


@pytest.mark.parametrize(
    ("fields", "shape", "strides", "padding"),
    [
        ({"kernel_size": (3, 2), "padding": "VALID"}, (2, 6, 5, 4), (1, 1), ("VALID",) * 2),
        ({"kernel_size": (3, 2), "strides": (2, 1)}, (6, 5, 4), (2, 1), ("SAME",) * 2),
        ({"kernel_size": 3, "padding": 1}, (2, 1, 5, 4), (1,), ((1, 1),)),
    ],
)
def test_partial_conv_and_its_gradient_are_a_convolution_for_each_map(fields, shape, strides, padding):
    layer = layers.PartialConv(3, connections=SEEN, **fields)
    params = draw_variables(layer, shape, dtype=np.float64)["params"]
    x, direction = normal(1, shape, params["kernel"].shape)
    geometry = (SEEN, strides, padding)
    expected = each_map_by_itself(x, **params, connections=SEEN, strides=strides, padding=padding)
    np.testing.assert_allclose(apply(layer, params, x), expected, **CLOSE)
    # The outputs are linear in the kernel, so their change along a direction is the gradient's product with it.
    (cotangent,) = normal(2, expected.shape)
    with jax.enable_x64(True):
        gradient = quick.jit(jax.grad(lambda p: jnp.vdot(layer.apply({"params": p}, x), cotangent)))(params)
    change = each_map_by_itself(x, direction, np.zeros(3), *geometry)
    np.testing.assert_allclose(np.vdot(gradient["kernel"], direction), np.vdot(cotangent, change), **CLOSE)


def test_partial_conv_of_all_maps_is_a_convolution_and_has_only_the_weights_that_exist():
    every = ((0, 1, 2, 3),) * 2
    layer = layers.PartialConv(2, (3, 3), every)
    params = draw_variables(layer, (1, 5, 5, 4), dtype=np.float64)["params"]
    (x,) = normal(3, (1, 5, 5, 4))
    whole = {"kernel": params["kernel"].reshape(3, 3, 2, 4).swapaxes(-1, -2), "bias": params["bias"]}
    np.testing.assert_allclose(apply(layer, params, x), apply(layers.Conv(2, (3, 3)), whole, x), **CLOSE)
    assert count(params) == 9 * 8 + 2
    assert count(draw_variables(layers.PartialConv(3, (3, 3), SEEN), (1, 5, 5, 4))) == 9 * 6 + 3


def test_partial_conv_begins_by_each_maps_own_number_of_inputs():
    uniform = initializers.lecun_uniform()
    layer = layers.PartialConv(2, (50, 20), ((0,), (0, 1, 2, 3)), kernel_init=uniform)
    params = quick.jit(layer.init)(jax.random.key(0), np.zeros((50, 20, 4), np.float32))["params"]
    one, four = np.split(np.asarray(params["kernel"]).reshape(1000, 5), [1], axis=1)
    np.testing.assert_allclose([one.std() ** 2 * 1000, four.std() ** 2 * 4000], 1, rtol=0.2)
    assert not params["bias"].any()


@pytest.mark.parametrize("seen", [(), (1, 3), (1, 1), (-1,)])
def test_partial_conv_says_which_maps_there_are(seen):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (JAX adds a note, which `match` would see)
        layers.PartialConv(2, (2, 2), ((0,), seen)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert str(error.value) == (
        "PartialConv: each entry of connections must be one or more of the 3 input maps, counted from 0, each once; "
        f"got {seen}"
    )


def test_partial_conv_wants_connections_for_every_output_map():
    with pytest.raises(ValueError) as error:  # noqa: PT011 (as above)
        layers.PartialConv(2, (2, 2), ((0,),)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert str(error.value) == (
        "PartialConv: connections must name the input maps of each of 2 output maps, got 1 entries"
    )


def test_subsample_is_coefficient_times_sum_plus_bias():
    layer = layers.Subsample((2, 3))
    # A row and a column are left over.
    (x,) = normal(0, (2, 5, 7, 3))
    params = draw_variables(layer, x.shape, dtype=np.float64)["params"]
    assert {name: value.shape for name, value in params.items()} == {"scale": (3,), "bias": (3,)}
    expected = np.zeros((2, 2, 2, 3))
    for i, j in np.ndindex(2, 2):
        expected[:, i, j] = params["scale"] * x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].sum((1, 2)) + params["bias"]
    np.testing.assert_allclose(apply(layer, params, x), expected, **CLOSE)


def test_subsample_begins_as_the_average():
    x = normal(0, (6, 4, 3))[0].astype(np.float32)
    y, _ = quick.jit(layers.Subsample((3, 2)).init_with_output)(jax.random.key(0), x)
    average = quick.jit(layers.AvgPool((3, 2), strides=(3, 2)).apply)({}, x)
    np.testing.assert_allclose(y, average, rtol=1e-5, atol=1e-6)


def test_radial_basis_units_measure_squared_distances_and_learn_nothing():
    x, centres = normal(0, (2, 4, 5), (3, 5))
    layer = layers.RadialBasis(centres)
    assert jax.eval_shape(layer.init, jax.random.key(0), x) == {}
    expected = [[[sum((a - b) ** 2 for a, b in zip(v, c, strict=True)) for c in centres] for v in row] for row in x]
    np.testing.assert_allclose(apply(layer, {}, x), expected, **CLOSE)
