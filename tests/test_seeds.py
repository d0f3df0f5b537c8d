"""What an introduction to convolutional networks says, each statement as something to run.

It goes from a sigmoid network by way of patches to the volumes 32x32x3 -> 16x16x12. Each test's docstring gives the
statement in our words. `test_seeds_lenet` does the same for a text that describes LeNet.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import layers, models
from cnn_jax.describe import describe
from cnn_jax.training import SoftmaxCrossEntropy, SquaredError
from tests import quick
from tests.drawn import count, draw_variables
from tests.geometries import normal

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(model, x):
    return draw_variables(model, x.shape, dtype=np.float64)


# The neural network: three numbers, two hidden layers, sigmoid, linear output.
NETWORK = models.build("mlp", features=(5, 4), num_classes=2, activation="sigmoid")
WEIGHTS = {"hidden_1": ("W1", "b1"), "hidden_2": ("W2", "b2"), "output": ("W3", "b3")}


@pytest.fixture
def network():
    """A batch of seven random inputs, their labels, and the network's variables."""
    (x,) = normal(0, (7, 3))
    return x, np.array([0, 1, 1, 0, 1, 0, 0]), draw(NETWORK, x)


def by_name(tree):
    """The kernels transposed, as the text multiplies them from the left: W x + b."""
    pairs = {WEIGHTS[layer]: leaves for layer, leaves in tree["params"].items()}
    kernels = {w: np.asarray(leaves["kernel"]).T for (w, _), leaves in pairs.items()}
    return kernels | {b: np.asarray(leaves["bias"]) for (_, b), leaves in pairs.items()}


def feed_forward(x, p):
    hidden_1 = sigmoid(p["W1"] @ x + p["b1"])
    hidden_2 = sigmoid(p["W2"] @ hidden_1 + p["b2"])
    return hidden_1, hidden_2, p["W3"] @ hidden_2 + p["b3"]


def test_each_layer_is_a_matrix_product_plus_a_bias_then_the_sigmoid_and_the_output_is_linear(network):
    """Inputs are fed forward: hidden 1, hidden 2, output, each from the one before; W1..W3, b1..b3 are learnable."""
    x, _, variables = network
    parameters = by_name(variables)
    expected = [feed_forward(vector, parameters)[2] for vector in x]
    np.testing.assert_allclose(NETWORK.apply(variables, x), expected, **CLOSE)
    assert sorted(parameters) == ["W1", "W2", "W3", "b1", "b2", "b3"]
    assert count(variables) == (3 * 5 + 5) + (5 * 4 + 4) + (4 * 2 + 2)


@pytest.mark.parametrize("loss", [SquaredError(), SoftmaxCrossEntropy()])
def test_backpropagation_by_hand_gives_the_gradients(network, loss):
    """The error is a cross-entropy or a squared loss; backpropagation is its derivatives, layer by layer backwards."""
    x, labels, variables = network
    p = by_name(variables)
    expected = {key: np.zeros_like(value) for key, value in p.items()}
    error = 0.0
    for vector, label in zip(x, labels, strict=True):
        hidden_1, hidden_2, output = feed_forward(vector, p)
        target = np.eye(2)[label]
        if isinstance(loss, SquaredError):
            error += ((output - target) ** 2).sum() / len(x)
            d_output = 2 * (output - target) / len(x)
        else:
            probabilities = np.exp(output) / np.exp(output).sum()
            error -= np.log(probabilities[label]) / len(x)
            d_output = (probabilities - target) / len(x)
        # The slope of the sigmoid h is h (1 - h).
        d_2 = p["W3"].T @ d_output * hidden_2 * (1 - hidden_2)
        d_1 = p["W2"].T @ d_2 * hidden_1 * (1 - hidden_1)
        for number, d, below in [("3", d_output, hidden_2), ("2", d_2, hidden_1), ("1", d_1, vector)]:
            expected["W" + number] += np.outer(d, below)
            expected["b" + number] += d

    targets = np.eye(2)[labels]
    value, gradient = quick.jit(jax.value_and_grad(lambda v: loss(NETWORK.apply(v, x), targets).mean()))(variables)
    np.testing.assert_allclose(value, error, **CLOSE)
    for key, of_ours in by_name(gradient).items():
        np.testing.assert_allclose(of_ours, expected[key], err_msg=key, **CLOSE)
    # "Basically used to minimise the loss": a step against the gradient lowers it.
    lower = jax.tree.map(lambda w, g: w - 0.1 * g, variables, gradient)
    assert loss(NETWORK.apply(lower, x), targets).mean() < value


def test_the_activation_is_what_makes_the_network_nonlinear(network):
    """Without hidden layers and their activations the network is affine; with them it is not."""
    x, _, variables = network

    def bend(model, variables):
        a, b, middle = x[0], x[1], (x[0] + x[1]) / 2
        y = model.apply(variables, np.stack([a, b, middle]))
        return abs(y[2] - (y[0] + y[1]) / 2).max()

    linear = models.build("mlp", features=())
    assert bend(linear, draw(linear, x)) < 1e-12
    assert bend(NETWORK, variables) > 1e-6


def test_the_input_layer_has_a_neuron_for_every_pixel():
    """As many input neurons as features, the pixels of an image; each hidden layer its own number of neurons."""
    model = models.build("mlp", features=(2000, 50))
    shapes = {name: p["kernel"].shape for name, p in draw(model, np.zeros((1, 32, 32, 3)))["params"].items()}
    assert shapes == {"hidden_1": (32 * 32 * 3, 2000), "hidden_2": (2000, 50), "output": (50, 10)}


def test_sigmoid_or_softmax_turn_the_output_into_probabilities(network):
    """A logistic function makes each class's score a probability; the softmax's sum to one."""
    x, _, variables = network
    scores = NETWORK.apply(variables, x)
    for probabilities in (jax.nn.sigmoid(scores), jax.nn.softmax(scores)):
        assert ((probabilities > 0) & (probabilities < 1)).all()
        np.testing.assert_array_equal(probabilities.argmax(-1), scores.argmax(-1))
    np.testing.assert_allclose(jax.nn.softmax(scores).sum(-1), 1, **CLOSE)


# Convolution.
def patches(x, a, stride):
    """Every patch (h, w, a, a, C) of an image (H, W, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (a, a), (0, 1))[::stride, ::stride]
    return np.moveaxis(windows, 2, -1)


def test_convolution_is_a_small_network_with_k_outputs_slid_over_the_image():
    """Run a small network on a patch, put its k outputs on top of each other, slide it over the whole image.

    There are then k channels instead of red, green and blue, and less width and height.
    """
    x, kernel, bias = normal(1, (9, 8, 3), (4, 4, 3, 5), (5,))
    small = layers.Dense(5)
    variables = {"params": {"kernel": kernel.reshape(48, 5), "bias": bias}}
    slid = [[small.apply(variables, patch.reshape(48)) for patch in row] for row in patches(x, 4, 1)]
    y = F.conv(x, kernel, bias, padding="VALID")
    np.testing.assert_allclose(y, np.array(slid), **CLOSE)
    assert y.shape == (6, 5, 5)


def test_a_patch_as_large_as_the_image_makes_it_a_regular_network():
    """With the patch as large as the image there is one position, and the convolution is a dense layer."""
    x, kernel, bias = normal(2, (4, 6, 5, 3), (6, 5, 3, 7), (7,))
    dense = F.dense(x.reshape(4, 90), kernel.reshape(90, 7), bias)
    np.testing.assert_allclose(F.conv(x, kernel, bias, padding="VALID")[:, 0, 0], dense, **CLOSE)


def test_small_patches_need_fewer_weights_because_they_are_shared():
    """Convolutional networks share their parameters, so that they have fewer than a dense layer of these volumes."""
    row = next(iter(describe(layers.Conv(12, (5, 5)), (32, 32, 3))))
    assert row.parameters == 5 * 5 * 3 * 12 + 12
    assert row.dense_parameters == (32 * 32 * 3 + 1) * 32 * 32 * 12
    # Sharing also means that what is seen does not depend on where: a moved image gives the moved result.
    x, kernel = normal(3, (12, 12, 3), (5, 5, 3, 2))
    y, moved = (F.conv(z, kernel, padding="VALID") for z in (x, np.roll(x, (2, 1), (0, 1))))
    np.testing.assert_allclose(moved[2:, 1:], y[:-2, :-1], **CLOSE)


@pytest.mark.parametrize("a", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_filters_of_a_by_a_by_3_slide_over_34x34x3_in_strides(a, stride):
    """At each step the output is the dot product of a filter's weights and the patch; (n + 2p - a) / s + 1 steps.

    Each filter gives a two-dimensional output; stacked, they are as deep as there are filters.
    """
    x, kernel = normal(a, (34, 34, 3), (a, a, 3, 4))
    without_and_with = quick.jit(lambda x, k: [F.conv(x, k, strides=stride, padding=padding) for padding in (0, 1)])
    for padding, y in enumerate(without_and_with(x, kernel)):
        padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
        n = (34 + 2 * padding - a) // stride + 1
        assert y.shape == (n, n, 4)
        for number in range(4):
            dots = np.einsum("hwabc,abc->hw", patches(padded, a, stride), kernel[..., number])
            np.testing.assert_allclose(y[..., number], dots, **CLOSE)


def test_a_filter_is_as_deep_as_its_input():
    """Filters are small in width and height and have the same depth as the input volume."""
    assert draw(layers.Conv(6, (3, 3)), np.zeros((1, 34, 34, 3)))["params"]["kernel"].shape == (3, 3, 3, 6)
    with pytest.raises(ValueError, match="kernel has 1 input channels, input has 3"):
        F.conv(np.zeros((34, 34, 3)), np.zeros((3, 3, 1, 6)))


def test_the_network_learns_all_the_filters():
    """No weight of any filter is left out when the loss is minimised."""
    x = normal(4, (2, 32, 32, 3))[0]
    model = models.build("convnet")
    loss, targets = SoftmaxCrossEntropy(), np.eye(10)[[3, 5]]
    gradient = quick.jit(jax.grad(lambda v: loss(model.apply(v, x), targets).sum()))(draw(model, x))
    assert (np.asarray(gradient["params"]["conv_1"]["kernel"]) != 0).all()


# The layers that build a ConvNet.
@pytest.mark.parametrize("pool", ["max", "average"])
def test_the_volumes_from_32x32x3_to_class_scores(pool):
    """Input 32x32x3; 12 filters, 32x32x12; pool 2x2 with stride 2, 16x16x12; fully connected, one score a class."""
    x = np.zeros((1, 32, 32, 3))
    model = models.build("convnet", pool=pool, num_classes=7)
    calls = lambda v: model.apply(v, x, capture_intermediates=True)  # noqa: E731
    scores, state = jax.eval_shape(calls, draw(model, x))
    state["intermediates"].pop("__call__")
    volumes = {name: outputs["__call__"][0].shape[1:] for name, outputs in state["intermediates"].items()}
    assert volumes == {"conv_1": (32, 32, 12), "pool_1": (16, 16, 12), "output": (7,)}
    assert scores.shape[1:] == (7,)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: np.maximum(0, x)),
        ("sigmoid", sigmoid),
        ("tanh", np.tanh),
        ("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
    ],
)
def test_an_activation_acts_on_each_element_and_leaves_the_volume_as_it_is(name, formula):
    """ReLU max(0, x), sigmoid 1 / (1 + e^-x), tanh, leaky ReLU: element by element, 32x32x12 stays 32x32x12."""
    x = normal(5, (32, 32, 12))[0]
    y = models.ACTIVATIONS[name](x)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, formula(x), **CLOSE)


def test_pooling_makes_the_volume_smaller():
    """A 2x2 pool with stride 2 keeps the maximum or the average of each square: a quarter of the values, all depth."""
    x = normal(6, (32, 32, 12))[0]
    squares = x.reshape(16, 2, 16, 2, 12)
    for pool, of_square in [(F.max_pool, squares.max((1, 3))), (F.avg_pool, squares.mean((1, 3)))]:
        y = pool(x, (2, 2), strides=(2, 2))
        np.testing.assert_allclose(y, of_square, **CLOSE)
        assert y.size * 4 == x.size


def test_every_layer_maps_a_volume_to_another_differentiably():
    """A ConvNet is a sequence of layers, each a differentiable function of volumes."""
    model = models.build("convnet", filters=(3,), activation="tanh", features=(4,), num_classes=2)
    x = normal(7, (2, 6, 6, 2))[0]
    variables = draw(model, x)
    params = variables["params"]
    sequence = [
        lambda x: F.conv(x, **params["conv_1"]),
        jnp.tanh,
        lambda x: F.max_pool(x, (2, 2), strides=(2, 2)),
        lambda x: x.reshape(2, -1),
        lambda x: F.dense(x, **params["hidden_1"]),
        jnp.tanh,
        lambda x: F.dense(x, **params["output"]),
    ]
    volume = jnp.asarray(x)
    for layer in sequence:
        check_grads(jax.jit(layer), (volume,), order=1, modes=["rev"], eps=1e-6)
        volume = layer(volume)
    np.testing.assert_allclose(model.apply(variables, x), volume, **CLOSE)
