"""The models: their volumes and parameters by name, what they compute, and what they say to wrong input."""

from __future__ import annotations

import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.errors import InputError
from cnn_jax.models.activations import ACTIVATIONS
from tests import quick, reference
from tests.drawn import count, draw_variables
from tests.networks import MODERN


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def lenet():
    model = models.build("lenet5")
    return model, draw_variables(model, (1, 32, 32, 1))


def test_every_volume_of_lenet5_by_name(lenet):
    model, variables = lenet
    call = functools.partial(model.apply, capture_intermediates=True)
    scores, state = jax.eval_shape(call, variables, images(2, 32, 32, 1))
    volumes = {name: outputs["__call__"][0].shape for name, outputs in state["intermediates"].items() if name[0] != "_"}
    assert volumes == {
        "C1": (2, 28, 28, 6),
        "S2": (2, 14, 14, 6),
        "C3": (2, 10, 10, 16),
        "S4": (2, 5, 5, 16),
        "C5": (2, 1, 1, 120),
        "F6": (2, 1, 1, 10),
    }
    assert scores.shape == (2, 10)


def test_parameters_of_lenet5_by_name(lenet):
    params = lenet[1]["params"]
    # Filters * (inputs + 1 bias) each.
    assert {name: count(p) for name, p in params.items()} == {
        "C1": 6 * (25 * 1 + 1),
        "C3": 16 * (25 * 6 + 1),
        "C5": 120 * (25 * 16 + 1),
        "F6": 10 * (120 + 1),
    }
    assert count(params) == 51_902


def test_softmax_of_the_scores_sums_to_one(lenet):
    model, variables = lenet
    scores = quick.jit(model.apply)(variables, images(5, 32, 32, 1))
    np.testing.assert_allclose(jax.nn.softmax(scores).sum(-1), 1, atol=1e-6)


def looped_lenet5(params, image, activation):
    """The network on one 32x32 image in float64, written from its table."""

    def conv(x, kernel, bias):
        size = x.shape[0] - 4
        y = np.zeros((size, size, kernel.shape[-1])) + np.asarray(bias, np.float64)
        for i, j in np.ndindex(size, size):
            y[i, j] += np.tensordot(x[i : i + 5, j : j + 5], np.asarray(kernel, np.float64), 3)
        return activation(y)

    def average(x):
        return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4

    x = average(conv(np.asarray(image, np.float64), **params["C1"]))
    x = conv(average(conv(x, **params["C3"])), **params["C5"])[0, 0]
    return x @ np.asarray(params["F6"]["kernel"], np.float64) + np.asarray(params["F6"]["bias"], np.float64)


@pytest.mark.parametrize(
    ("name", "function"), [("tanh", np.tanh), ("scaled_tanh", lambda x: 1.7159 * np.tanh(2 * x / 3))]
)
def test_lenet5_computes_its_table(name, function):
    model, x = models.build("lenet5", activation=name), images(2, 32, 32, 1)
    variables = draw_variables(model, x.shape)
    expected = [looped_lenet5(variables["params"], image, function) for image in x]
    np.testing.assert_allclose(quick.jit(model.apply)(variables, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "grid"), [(32, 44, (1, 4)), (40, 37, (3, 2)), (33, 32, None)])
def test_a_larger_image_gives_the_scores_of_every_window(lenet, height, width, grid):
    model, variables = lenet
    x = images(2, height, width, 1)
    places = list(np.ndindex(grid or (1, 1)))

    @quick.jit
    def everywhere(x):
        windows = jnp.concatenate([x[:, 4 * i : 4 * i + 32, 4 * j : 4 * j + 32] for i, j in places])
        return model.apply(variables, x), model.apply(variables, windows)

    scores, alone = everywhere(x)
    assert scores.shape == (2, *(grid or ()), 10)
    for (i, j), at_window in zip(places, alone.reshape(len(places), 2, 10), strict=True):
        np.testing.assert_allclose(scores[:, i, j] if grid else scores, at_window, rtol=1e-4, atol=1e-5)


def test_lenet5_takes_colours_and_other_numbers_of_classes():
    model, x = models.build("lenet5", num_classes=26), images(2, 32, 32, 3)
    variables = draw_variables(model, x.shape)
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 26)
    assert count(variables) == 51_902 + 2 * 25 * 6 + 16 * 121


def test_mlp_is_its_formula():
    model, x = models.build("mlp"), images(3, 8, 8, 1)
    params = draw_variables(model, x.shape, dtype=np.float64)["params"]
    assert {name: p["kernel"].shape for name, p in params.items()} == {
        "hidden_1": (64, 100),
        "hidden_2": (100, 100),
        "output": (100, 10),
    }
    hidden = np.asarray(x, np.float64).reshape(3, 64)
    for name in ("hidden_1", "hidden_2"):
        hidden = 1 / (1 + np.exp(-(hidden @ params[name]["kernel"] + params[name]["bias"])))
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    scores = quick.jit(model.apply)({"params": jax.tree.map(jnp.asarray, params)}, x)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [(), (7,), (5, 6, 7)])
def test_mlp_of_any_widths(features):
    model = models.build("mlp", features=features, num_classes=3, activation="relu")
    variables = draw_variables(model, (2, 4, 5, 3))
    assert jax.eval_shape(model.apply, variables, images(2, 4, 5, 3)).shape == (2, 3)
    sizes = [60, *features, 3]
    assert count(variables) == sum((a + 1) * b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("pool", ["max", "average"])
def test_convnet_is_its_formula(pool):
    model = models.build(
        "convnet", filters=(3, 2), kernel_size=2, activation="tanh", pool=pool, features=(4,), num_classes=3
    )
    x = images(2, 7, 9, 2)
    params = draw_variables(model, x.shape, dtype=np.float64)["params"]
    hidden = np.asarray(x, np.float64)
    for number in (1, 2):
        kernel, bias = params[f"conv_{number}"]["kernel"], params[f"conv_{number}"]["bias"]
        ones, pairs = (1, 1), ("SAME", "SAME")
        hidden = np.tanh(reference.conv(hidden, kernel, bias, ones, pairs, ones, ones, 1))
        kind = {"max": "max", "average": "avg"}[pool]
        hidden = reference.pool(kind, hidden, (2, 2), (2, 2), ("VALID", "VALID"))
    hidden = hidden.reshape(2, -1)
    assert hidden.shape[1] == 1 * 2 * 2
    hidden = np.tanh(hidden @ params["hidden_1"]["kernel"] + params["hidden_1"]["bias"])
    expected = hidden @ params["output"]["kernel"] + params["output"]["bias"]
    scores = quick.jit(model.apply)({"params": jax.tree.map(jnp.asarray, params)}, x)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(models.MODELS) - set(MODERN)))
def test_the_standard_call(name):
    model = models.build(name)
    height, width = model.input_size
    x = images(2, height, width, 1)
    variables = draw_variables(model, x.shape)
    both = quick.jit(lambda x: [model.apply(variables, x, train=train) for train in (True, False)])
    training, evaluating = both(x)
    np.testing.assert_array_equal(training, evaluating)
    assert evaluating.shape == (2, 10)
    assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_by_name(name):
    reference = {
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
        "relu": lambda x: np.maximum(x, 0),
        "scaled_tanh": lambda x: 1.7159 * np.tanh(2 * x / 3),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "softplus": lambda x: np.log1p(np.exp(x)),
        "tanh": np.tanh,
    }[name]
    x = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), reference(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("lenet", {}, f"model must be one of {', '.join(models.MODELS)}; got 'lenet'"),
        ("lenet5", {"width": 3}, "model lenet5 has the fields num_classes, activation; got width"),
        ("mlp", {"parent": None}, "model mlp has the fields features, num_classes, activation; got parent"),
        ("lenet5", {"num_classes": 0}, "LeNet5: num_classes must be an int of at least 1, got 0"),
        ("mlp", {"num_classes": True}, "MLP: num_classes must be an int of at least 1, got True"),
        ("mlp", {"features": (3, -1)}, "MLP: each of features must be an int of at least 1, got -1"),
        ("mlp", {"features": 3}, "MLP: features must be a sequence of ints of at least 1, got 3"),
        ("mlp", {"features": "33"}, "MLP: features must be a sequence of ints of at least 1, got '33'"),
        ("lenet1", {"num_classes": 1.0}, "LeNet1: num_classes must be an int of at least 1, got 1.0"),
        ("lenet4", {"num_classes": -1}, "LeNet4: num_classes must be an int of at least 1, got -1"),
        ("convnet", {"filters": 12}, "ConvNet: filters must be a sequence of ints of at least 1, got 12"),
        ("convnet", {"features": (0,)}, "ConvNet: each of features must be an int of at least 1, got 0"),
        ("convnet", {"kernel_size": 0}, "ConvNet: kernel_size must be an int of at least 1, got 0"),
        ("convnet", {"num_classes": 0}, "ConvNet: num_classes must be an int of at least 1, got 0"),
        ("convnet", {"pool": "min"}, "ConvNet: pool must be one of max, average; got 'min'"),
        ("lenet5", {"activation": "Tanh"}, f"activation must be one of {', '.join(ACTIVATIONS)}; got 'Tanh'"),
        ("mlp", {"activation": ["relu"]}, f"activation must be one of {', '.join(ACTIVATIONS)}; got ['relu']"),
    ],
)
def test_build_says_what_was_expected_and_what_arrived(name, fields, message):
    with pytest.raises(InputError) as error:
        models.build(name, **fields)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "shape", "least"),
    [
        ("lenet5", (2, 28, 28, 1), "32x32"),
        ("lenet5", (2, 32, 31, 1), "32x32"),
        ("lenet5", (32, 32, 1), "32x32"),
        ("lenet5", (2, 32, 32), "32x32"),
        ("lenet5", (1, 2, 32, 32, 1), "32x32"),
        ("lenet1", (2, 27, 28, 1), "28x28"),
        ("lenet4", (2, 32, 28, 1), "32x32"),
        ("lenet5_original", (2, 28, 28, 1), "32x32"),
        ("convnet", (2, 1, 2, 3), "2x2"),
        ("convnet", (2, 32, 32), "2x2"),
    ],
)
def test_models_say_what_images_they_expect(name, shape, least):
    model = models.build(name)
    with pytest.raises(InputError) as error:
        model.init(jax.random.key(0), images(*shape))
    assert str(error.value) == (
        f"{type(model).__name__} expects images (N, H, W, C) of at least {least} pixels, got shape {shape}"
    )


@pytest.mark.parametrize("shape", [(64,), (2, 0), (2, 0, 4, 1), (2, 8, 8), (2, 3, 8, 8, 1)])
def test_mlp_says_what_inputs_it_expects(shape):
    with pytest.raises(InputError) as error:
        models.build("mlp").init(jax.random.key(0), images(*shape))
    assert str(error.value) == (
        f"MLP expects vectors (N, I) or images (N, H, W, C), neither of them empty, got shape {shape}"
    )
