"""The ResNets for ImageNet: their counts, against those published, and how they are called."""

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
from tests.drawn import count


@pytest.mark.parametrize(
    ("name", "depth", "parameters", "statistics"),
    # The paper's numbers of layers, torchvision's of parameters. Each convolution has a norm, of a mean and a variance.
    [
        ("resnet18_imagenet", 18, 11_689_512, 4_800),
        ("resnet34", 34, 21_797_672, 8_512),
        ("resnet50", 50, 25_557_032, 26_560),
        ("resnet101", 101, 44_549_160, 52_672),
        ("resnet152", 152, 60_192_808, 75_712),
    ],
)
def test_they_are_those_published(name, depth, parameters, statistics):
    model = models.build(name)
    call = functools.partial(model.init_with_output, jax.random.key(0))
    scores, variables = jax.eval_shape(call, jax.ShapeDtypeStruct((2, 65, 49, 3), jnp.float32))
    assert scores.shape == (2, 1000)
    assert count(variables["params"]) == parameters
    assert count(variables["batch_stats"]) == 2 * statistics
    layers = [path for path, leaf in jax.tree.leaves_with_path(variables["params"]) if leaf.ndim > 1]
    assert sum("shortcut" not in jax.tree_util.keystr(path) for path in layers) == depth
    assert pickle.loads(pickle.dumps(model)) == model


def test_the_volume_table_of_resnet50():
    volumes = describe(models.build("resnet50"), (224, 224, 3))
    rows = {row.layer: row for row in volumes}
    stages = {name: (224 // 4 // 2**stage, 64 * 2**stage) for stage, name in enumerate(("1", "4", "8", "14"))}
    for name, (size, width) in stages.items():
        before = 224 // 4 if name == "1" else 2 * size
        assert rows[f"block_{name}/conv_1"].output == (before, before, width)
        assert rows[f"block_{name}/conv_2"].output == (size, size, width)  # which has the stride
        assert rows[f"block_{name}/conv_3"].output == rows[f"block_{name}/shortcut"].output == (size, size, 4 * width)
    assert [name for name in rows if name.endswith("shortcut")] == [f"block_{name}/shortcut" for name in stages]
    # In units of the 56^2 * 64^2 products of the first block's first layer. The first block of a stage has a shortcut,
    # and where it has a stride its first layer is at twice the size; the others begin with four times the maps.
    first, other = (1 + 9 + 4 + 4), (4 + 9 + 4)
    blocks = first + 2 * other + sum((8 + 9 + 4 + 8) + more * other for more in (3, 5, 2))
    assert volumes.total.multiply_adds == 112**2 * 49 * 3 * 64 + blocks * 56**2 * 64**2 + 2048 * 1000
    # A 3x3 window at a step of s pixels sees 2 s more.
    sees = 7 + 2 * 2 + 2 * (3 * 4 + (4 + 3 * 8) + (8 + 5 * 16) + (16 + 2 * 32))
    assert {field.size for field in rows["block_16/conv_3"].receptive_field} == {sees}


@pytest.mark.parametrize("size", [(1, 1), (33, 50)])
def test_images_of_any_size_and_number_of_channels(size):
    model = models.ResNet50(stage_sizes=(1, 1), num_classes=3, features=4)
    x = jax.ShapeDtypeStruct((2, *size, 4), jnp.float32)
    scores, variables = jax.eval_shape(functools.partial(model.init_with_output, jax.random.key(0)), x)
    assert scores.shape == (2, 3)
    assert variables["params"]["stem"]["kernel"].shape == (7, 7, 4, 4)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_blocks_may_begin_as_their_shortcuts(name):
    model = models.build(name, stage_sizes=(2,), num_classes=40, features=16, zero_init=True, output_std=0.01)
    params = quick.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))["params"]
    last = "norm_2" if name == "resnet34" else "norm_3"
    scales = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree.leaves_with_path(params) if p[-1].key == "scale"}
    assert sum(last in path for path in scales) == 2
    for path, scale in scales.items():
        assert np.all(scale == (last not in path))
    assert np.std(params["output"]["kernel"]) == pytest.approx(0.01, rel=0.15)


def test_data_are_not_brought_to_another_size():
    assert models.input_size(models.build("resnet50")) is None
    assert models.input_size(models.build("resnet18")) == (32, 32)


def test_what_is_wrong_is_named_in_one_line():
    with pytest.raises(InputError, match=r"^ResNet50: each of stage_sizes must be an int of at least 1, got 0$"):
        models.build("resnet50", stage_sizes=(3, 0))
    with pytest.raises(InputError, match=r"^ResNet50: output_std must be a number above 0, got 0$"):
        models.build("resnet50", output_std=0)
    with pytest.raises(InputError, match=r"^ResNet34 expects images \(N, H, W, C\) of at least 1x1 pixels, got shape"):
        jax.eval_shape(models.build("resnet34").init, jax.random.key(0), np.ones((32, 32, 3), np.float32))
