"""What an introduction to LeNet says, each statement as something to run, with its docstring in our words."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import models
from tests import quick
from tests.drawn import draw_variables
from tests.geometries import normal

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def lenet():
    model = models.build("lenet5", activation="tanh")
    x = normal(8, (1, 32, 32, 1))[0]
    variables = draw_variables(model, x.shape, dtype=np.float64)
    scores, state = quick.jit(lambda v, x: model.apply(v, x, capture_intermediates=True))(variables, x)
    state["intermediates"].pop("__call__")
    volumes = {name: np.asarray(outputs["__call__"][0][0]) for name, outputs in state["intermediates"].items()}
    return model, x, variables, scores, volumes


def test_lenets_layers_and_their_images(lenet):
    """C1 six 28x28, S2 six 14x14, C3 sixteen 10x10, S4 sixteen 5x5, C5 a 1D array of 120, F6 one of 10."""
    volumes = {name: volume.shape for name, volume in lenet[4].items()}
    assert volumes == {
        "C1": (28, 28, 6), "S2": (14, 14, 6), "C3": (10, 10, 16), "S4": (5, 5, 16), "C5": (1, 1, 120), "F6": (1, 1, 10)
    }  # fmt: skip
    kernels = {name: p["kernel"].shape for name, p in lenet[2]["params"].items()}
    assert (kernels["C1"], kernels["C3"]) == ((5, 5, 1, 6), (5, 5, 6, 16))


def test_lenet_feeds_each_layer_the_one_before(lenet):
    """Convolutions followed by activations, some of them by pooling, stacked; S2 and S4 average squares of four."""
    _, x, variables, scores, volumes = lenet
    p = variables["params"]
    for convolution, pool in [("C1", "S2"), ("C3", "S4")]:
        squares = np.tanh(volumes[convolution])
        height, width, depth = squares.shape
        mean = squares.reshape(height // 2, 2, width // 2, 2, depth).mean((1, 3))
        np.testing.assert_allclose(volumes[pool], mean, **CLOSE)
    np.testing.assert_allclose(volumes["C1"], F.conv(x[0], **p["C1"], padding="VALID"), **CLOSE)
    np.testing.assert_allclose(volumes["C3"], F.conv(volumes["S2"], **p["C3"], padding="VALID"), **CLOSE)
    # Each of C5's outputs is connected to all of the 400 nodes of S4.
    nodes = F.dense(volumes["S4"].reshape(400), p["C5"]["kernel"].reshape(400, 120), p["C5"]["bias"])
    np.testing.assert_allclose(volumes["C5"][0, 0], nodes, **CLOSE)
    np.testing.assert_allclose(scores[0], F.dense(np.tanh(nodes), **p["F6"]), **CLOSE)


def test_lenets_output_is_a_probability_distribution_over_ten_digits(lenet):
    """The softmax of F6 has ten values that sum to one."""
    probabilities = jax.nn.softmax(lenet[3][0])
    assert probabilities.shape == (10,)
    np.testing.assert_allclose(probabilities.sum(), 1, **CLOSE)
    assert (probabilities > 0).all()


def test_a_score_comes_from_all_pixels_together(lenet):
    """An image is not its single pixels but their combination: each score depends on every one of them."""
    model, x, variables, _, _ = lenet
    slopes = quick.jit(jax.grad(lambda x: model.apply(variables, x)[0, 3]))(x)
    assert (np.asarray(slopes) != 0).all()


def test_a_first_layer_can_find_straight_edges_and_corners():
    """The first layer finds basic features: here one filter answers to an upright edge only, one to a corner only."""
    picture = np.zeros((12, 12, 1))
    picture[4:, 4:] = 1.0
    edge = np.array([[-1, 1], [-1, 1]])
    corner = np.array([[1, -1], [-1, 1]])
    find = quick.jit(lambda x, k: F.conv(x, k, padding="VALID"))
    found = find(picture, np.stack([edge, corner], axis=-1)[:, :, None])
    assert np.argwhere(found[..., 0]).tolist() == [[row, 3] for row in range(3, 11)]
    assert np.argwhere(found[..., 1]).tolist() == [[3, 3]]
