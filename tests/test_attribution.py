"""Class activation and gradient maps against definitions computed by hand in float64."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers, pictures
from cnn_jax.describe import describe
from tests import quick

SIDE, CLASSES = 7, 4


class Net(nn.Module):
    """Two convolutions, a tanh between them, and dense scores: a gradient that differs from place to place."""

    @nn.compact
    def __call__(self, images, train=False):
        x = jnp.tanh(layers.Conv(3, (3, 3), padding="VALID", name="first")(images))
        x = layers.AvgPool((2, 2), strides=(1, 1), name="pool")(x)
        x = jnp.tanh(layers.Conv(5, (2, 2), padding="VALID", name="second")(x))
        return layers.Dense(CLASSES, name="scores")(x.reshape(len(x), -1))


class Pooled(nn.Module):
    """What class activation maps were made for: a convolution, its mean over all places, and dense scores."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(layers.Conv(6, (3, 3), name="conv")(images))
        return layers.Dense(CLASSES, name="scores")(layers.GlobalAvgPool(name="mean")(x))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).standard_normal((SIDE, SIDE, 2))


def variables_of(model, image):
    """Parameters in float64, drawn at random so that no bias is zero."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image[None]))
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape) * 0.5, shapes)


def second_half(params, volume):
    """The scores of `Net` from the output of its layer "first" on, by loops over NumPy arrays."""
    x = np.tanh(volume)
    x = (x[:-1, :-1] + x[1:, :-1] + x[:-1, 1:] + x[1:, 1:]) / 4
    kernel, bias = params["second"]["kernel"], params["second"]["bias"]
    rows, columns = x.shape[0] - 1, x.shape[1] - 1
    y = np.empty((rows, columns, 5))
    for i in range(rows):
        for j in range(columns):
            y[i, j] = np.tensordot(x[i : i + 2, j : j + 2], kernel, 3) + bias
    return np.tanh(y).ravel() @ params["scores"]["kernel"] + params["scores"]["bias"]


def first_half(params, image):
    kernel, bias = params["first"]["kernel"], params["first"]["bias"]
    rows, columns = image.shape[0] - 2, image.shape[1] - 2
    y = np.empty((rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            y[i, j] = np.tensordot(image[i : i + 3, j : j + 3], kernel, 3) + bias
    return y


def finite_differences(function, at, step=1e-5):
    """The gradient of a scalar function of an array, by central differences."""
    gradient = np.empty_like(at)
    for index in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[index] = step
        gradient[index] = (function(at + shift) - function(at - shift)) / (2 * step)
    return gradient


def test_grad_cam_is_what_the_paper_defines(image):
    model, label = Net(), 2
    with jax.enable_x64(True):
        variables = variables_of(model, image)
        found = np.asarray(quick.jit(lambda i, k: pictures.grad_cam(model, variables, i, k, "first"))(image, label))
    params = variables["params"]
    volume = first_half(params, image)
    gradient = finite_differences(lambda v: second_half(params, v)[label], volume)
    weights = gradient.mean(axis=(0, 1))  # equation 1
    expected = np.maximum((weights * volume).sum(axis=-1), 0)  # equation 2
    assert 0 < (expected > 0).mean() < 1  # both sides of the ReLU are seen
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_saliency_is_the_largest_derivative_over_the_channels(image):
    model, label = Net(), 1
    with jax.enable_x64(True):
        variables = variables_of(model, image)
        found = np.asarray(quick.jit(lambda i: pictures.saliency(model, variables, i, label))(image))
    params = variables["params"]
    gradient = finite_differences(lambda i: second_half(params, first_half(params, i))[label], image)
    np.testing.assert_allclose(found, np.abs(gradient).max(axis=-1), rtol=1e-5, atol=1e-9)


def test_layer_outputs_are_those_of_the_layers_one_by_one(image):
    model = Net()
    with jax.enable_x64(True):
        variables = variables_of(model, image)
        both = quick.jit(lambda x: (pictures.layer_outputs(model, variables, x), model.apply(variables, x)))
        found, scores = jax.tree.map(np.asarray, both(image[None]))
    names = pictures.layer_names(model, image.shape)
    assert names == ["first", "pool", "second", "scores"] == [row.layer for row in describe(model, image.shape)]
    shapes = [(1, 5, 5, 3), (1, 4, 4, 3), (1, 3, 3, 5), (1, CLASSES)]
    assert [output.shape for output in found] == shapes
    np.testing.assert_allclose(found[0][0], first_half(variables["params"], image), rtol=1e-9)
    np.testing.assert_allclose(found[-1], scores, rtol=1e-9)
    np.testing.assert_allclose(found[-1][0], second_half(variables["params"], found[0][0]), rtol=1e-9)


@pytest.fixture(scope="module")
def pooled(image):
    model = Pooled()
    with jax.enable_x64(True):
        variables = variables_of(model, image)
        maps = quick.jit(
            lambda i, k: (
                pictures.class_activation_map(model, variables, i, k),
                pictures.grad_cam(model, variables, i, k, "conv"),
                pictures.layer_outputs(model, variables, i[None]),
            )
        )(image, 3)
    return variables["params"], jax.tree.map(np.asarray, maps)


def test_a_class_activation_map_weights_the_channels_by_the_class(pooled):
    params, (cam, _, (convolved, _, scores)) = pooled
    volume = np.maximum(convolved[0], 0)
    kernel, bias = params["scores"]["kernel"], params["scores"]["bias"]
    expected = sum(kernel[k, 3] * volume[..., k] for k in range(6))
    np.testing.assert_allclose(cam, expected, rtol=1e-9, atol=1e-12)
    # The score is the map's mean over the places, and the bias.
    np.testing.assert_allclose(scores[0, 3], cam.mean() + bias[3], rtol=1e-9)


def test_grad_cam_of_a_linear_end_has_the_weights_that_can_be_written_down(pooled):
    params, (_, grad_cam, (convolved, _, _)) = pooled
    kernel = params["scores"]["kernel"]
    places = SIDE * SIDE
    # d score / d A = w / places where A, before the ReLU, is positive, and 0 elsewhere.
    weights = [kernel[k, 3] / places * (convolved[0, ..., k] > 0).mean() for k in range(6)]
    expected = np.maximum(sum(weights[k] * convolved[0, ..., k] for k in range(6)), 0)
    np.testing.assert_allclose(grad_cam, expected, rtol=1e-9, atol=1e-12)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        conv = layers.Conv(images.shape[-1], (3, 3), name="conv")
        x = layers.GlobalAvgPool(name="mean")(conv(conv(images)))
        return layers.Dense(CLASSES, name="scores")(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, v, i: pictures.grad_cam(m, v, i, 0, "absent"), "'absent' has 0 calls"),
        (lambda m, v, i: pictures.grad_cam(m, v, i, 0, "conv"), "'conv' has 2 calls"),
        (lambda m, v, i: pictures.grad_cam(m, v, i, 0, "scores"), r"'scores' has an output of shape \(4,\)"),
        (lambda m, v, i: pictures.class_activation_map(Net(), variables_of(Net(), i), i, 0), r"\['Conv', 'Dense'\]"),
    ],
)
def test_what_cannot_be_explained_is_named(call, message, image):
    model = Twice()
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda i: call(model, variables_of(model, i), i), image.astype(np.float32))
