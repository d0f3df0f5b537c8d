"""The networks for CIFAR of He et al. 2016 and of Zagoruyko and Komodakis 2016: their counts, and what they compute."""

from __future__ import annotations

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.describe import describe
from cnn_jax.errors import InputError
from tests import quick
from tests.drawn import count, draw_variables


def of_layers(*convolutions):
    """Parameters of 3x3 convolutions, of inputs and outputs, each with a norm of its outputs."""
    return sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in convolutions)


def narrow(blocks, classes=10):
    """The paper's stages: 2 n layers each for 16, 32 and 64 maps, whose shortcuts have no parameters."""
    stages = of_layers(*[(16, 16)] * (2 * blocks))
    stages += of_layers((16, 32), *[(32, 32)] * (2 * blocks - 1)) + of_layers((32, 64), *[(64, 64)] * (2 * blocks - 1))
    return of_layers((3, 16)) + stages + 65 * classes


def wide(blocks, width, classes=10):
    """Norms before their convolutions, and a 1x1 convolution where the number of maps changes."""
    total, maps = 9 * 3 * 16, 16
    for wanted in (16 * width, 32 * width, 64 * width):
        total += maps * wanted * (maps != wanted)
        for _ in range(blocks):
            total += 2 * maps + 9 * maps * wanted + 2 * wanted + 9 * wanted**2
            maps = wanted
    return total + 2 * maps + (maps + 1) * classes


# Name, weighted layers, parameters in millions as the papers print them (Table 6; Table 5), and by hand.
PUBLISHED = [
    ("resnet20", 20, "0.27", narrow(3)),
    ("resnet32", 32, "0.46", narrow(5)),
    ("resnet44", 44, "0.66", narrow(7)),
    ("resnet56", 56, "0.85", narrow(9)),
    ("resnet110", 110, "1.7", narrow(18)),
    ("wrn16x8", 16, "11.0", wide(2, 8)),
    ("wrn28x10", 28, "36.5", wide(4, 10)),
]


@pytest.mark.parametrize(("name", "depth", "millions", "parameters"), PUBLISHED)
def test_they_are_those_published(name, depth, millions, parameters):
    model = models.build(name)
    call = functools.partial(model.init_with_output, jax.random.key(0))
    scores, variables = jax.eval_shape(call, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
    assert scores.shape == (2, 10)
    assert count(variables["params"]) == parameters
    assert f"{parameters / 1e6:.{len(millions.partition('.')[2])}f}" == millions
    # He et al. count convolutions and the last layer, Zagoruyko and Komodakis convolutions, the three 1x1 among them.
    windows = [leaf.shape[0] for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
    assert windows.count(1) == (3 if name.startswith("wrn") else 0)
    assert len(windows) + (not name.startswith("wrn")) == depth
    assert pickle.loads(pickle.dumps(model)) == model
    assert f"{parameters:,} parameters" in type(model).__doc__
    assert models.input_size(model) == (32, 32)


def test_a_hundred_classes_are_ninety_rows_more():
    for name, maps in (("resnet20", 64), ("wrn16x8", 512)):
        shapes = [
            jax.eval_shape(models.build(name, num_classes=n).init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
            for n in (10, 100)
        ]
        ten, hundred = (count(shape["params"]) for shape in shapes)
        assert hundred - ten == 90 * (maps + 1)


@pytest.mark.parametrize(
    ("name", "multiply_adds", "sees"),
    [
        # Stages of 6 layers, of which in two the first has half the inputs; each 3x3 window sees 2 steps more.
        (
            "resnet20",
            32**2 * (27 * 16 + 9 * 16**2 * (6 + 5.5 + 5.5)) + 640,
            3 + 2 * 6 + 2 * (1 + 2 * 5) + 2 * (2 + 4 * 5),
        ),
        # The first layers of the stages have an eighth, half and half of the inputs, and so have their shortcuts.
        (
            "wrn16x8",
            32**2 * (27 * 16 + 128**2 * (9 * (3.125 + 3.5 + 3.5) + 0.125 + 0.5 + 0.5)) + 5120,
            3 + 2 * 4 + 2 * (1 + 2 * 3) + 2 * (2 + 4 * 3),
        ),
    ],
)
def test_the_volume_table(name, multiply_adds, sees):
    volumes = describe(models.build(name), (32, 32, 3))
    rows = {row.layer: row for row in volumes}
    assert volumes.total.multiply_adds == multiply_adds
    *_, last = (row for layer, row in rows.items() if "conv_2" in layer)
    assert [(field.size, field.stride) for field in last.receptive_field] == [(sees, 4)] * 2
    assert last.output == ((8, 8, 64) if name == "resnet20" else (8, 8, 512))


@pytest.mark.parametrize("size", [(1, 1), (33, 50)])
def test_images_of_any_size_and_number_of_channels(size):
    for model in (models.ResNet20(num_classes=3), models.WideResNet(depth=10, width=2, num_classes=3)):
        x = jax.ShapeDtypeStruct((2, *size, 4), jnp.float32)
        scores, variables = jax.eval_shape(functools.partial(model.init_with_output, jax.random.key(0)), x)
        assert scores.shape == (2, 3)
        assert variables["params"]["stem"]["kernel"].shape == (3, 3, 4, 16)


def test_a_shortcut_without_parameters_is_every_other_pixel_between_maps_of_zeros():
    """Of a network whose branches add nothing: their last norms have scale and bias 0."""
    model = models.CifarResNet(stage_sizes=(1, 1, 1), features=2, num_classes=8)
    variables = draw_variables(model, (1, 9, 6, 3))
    params = variables["params"]
    for number in (1, 2, 3):
        params[f"block_{number}"]["norm_2"] = jax.tree.map(np.zeros_like, params[f"block_{number}"]["norm_2"])
    params["output"] = {"kernel": np.eye(8, dtype=np.float32), "bias": np.zeros(8, np.float32)}
    call = functools.partial(model.apply, mutable=["intermediates"], capture_intermediates=True)
    scores, state = quick.jit(call)(variables, np.random.default_rng(0).standard_normal((1, 9, 6, 3)))
    stem = np.maximum(state["intermediates"]["stem_norm"]["__call__"][0], 0)[:, ::4, ::4].mean((1, 2))
    np.testing.assert_allclose(scores, np.pad(stem, ((0, 0), (3, 3))), rtol=1e-5, atol=1e-6)


def test_what_is_wrong_is_named_in_one_line():
    with pytest.raises(InputError, match=r"^WideResNet: depth must be 10, 16, 22, .*, got 18$"):
        models.WideResNet(depth=18)
    with pytest.raises(InputError, match=r"^WRN16x8: width must be an int of at least 1, got 0$"):
        models.build("wrn16x8", width=0)
    with pytest.raises(InputError, match=r"^ResNet20: each of stage_sizes must be an int of at least 1, got 0$"):
        models.build("resnet20", stage_sizes=(3, 0))
