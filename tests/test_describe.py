"""Descriptions of models against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from cnn_jax import layers, models
from cnn_jax.describe import describe, total
from cnn_jax.errors import InputError


def as_tuples(rows):
    return [dataclasses.astuple(row) for row in rows]


LENET5 = [
    ("C1", "Conv", (5, 5), (1, 1), (28, 28, 6), 156, 28 * 28 * 6 * 25),
    ("S2", "AvgPool", (2, 2), (2, 2), (14, 14, 6), 0, 0),
    ("C3", "Conv", (5, 5), (1, 1), (10, 10, 16), 2416, 10 * 10 * 16 * 25 * 6),
    ("S4", "AvgPool", (2, 2), (2, 2), (5, 5, 16), 0, 0),
    ("C5", "Conv", (5, 5), (1, 1), (1, 1, 120), 48_120, 120 * 400),
    ("F6", "Dense", None, None, (1, 1, 10), 1210, 1200),
]


def test_lenet5():
    rows = describe(models.build("lenet5"), (32, 32, 1))
    assert as_tuples(rows) == LENET5
    assert dataclasses.astuple(total(rows)) == ("total", "", None, None, (1, 1, 10), 51_902, 406_800)


def test_mlp():
    rows = describe(models.build("mlp", features=(20,)), (8, 8, 3))
    assert as_tuples(rows) == [
        ("hidden_1", "Dense", None, None, (20,), 193 * 20, 192 * 20),
        ("output", "Dense", None, None, (10,), 210, 200),
    ]


class Block(nn.Module):
    library: object

    @nn.compact
    def __call__(self, x):
        x = self.library.Conv(6, (3, 2), strides=2, feature_group_count=2, use_bias=False, name="grouped")(x)
        return x * self.param("scale", nn.initializers.ones, (6,))


class Nested(nn.Module):
    library: object = layers

    @nn.compact
    def __call__(self, x, train):
        x = Block(self.library, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = self.library.ConvTranspose(5, (4, 3), strides=(2, 1), kernel_dilation=(1, 2), name="up")(x)
        x = layers.MaxPool((2, 2), name="pool")(x)
        shared = self.library.Dense(5, name="shared")
        x = shared(shared(x))
        return layers.GlobalAvgPool(name="mean")(x)


@pytest.mark.parametrize("library", [layers, nn])
def test_nested_grouped_transposed_and_shared_layers(library):
    rows = describe(Nested(library), (8, 7, 4))
    assert as_tuples(rows) == [
        ("first/grouped", "Conv", (3, 2), (2, 2), (4, 4, 6), 6 * 2 * 6, 16 * 6 * 2 * 6),
        ("first", "Block", None, None, (4, 4, 6), 6, 0),
        ("BatchNorm_0", "BatchNorm", None, None, (4, 4, 6), 12, 0),
        # Each of 16 input positions meets each of the 12 * 6 * 5 weights.
        ("up", "ConvTranspose", (4, 3), (2, 1), (8, 4, 5), 12 * 6 * 5 + 5, 16 * 12 * 6 * 5),
        ("pool", "MaxPool", (2, 2), (1, 1), (7, 3, 5), 0, 0),
        ("shared", "Dense", None, None, (7, 3, 5), 30, 21 * 25),
        ("shared", "Dense", None, None, (7, 3, 5), 0, 21 * 25),
        ("mean", "GlobalAvgPool", None, None, (5,), 0, 0),
    ]
    params = Nested(library).init(jax.random.key(0), jnp.ones((1, 8, 7, 4)), train=False)["params"]
    assert total(rows).parameters == sum(p.size for p in jax.tree.leaves(params))


def test_a_layer_alone_and_a_sequence():
    assert as_tuples(describe(layers.Conv(3, 2, padding="VALID"), (9, 4))) == [
        ("Conv", "Conv", (2,), (1,), (8, 3), 27, 8 * 24)
    ]
    rows = describe(nn.Sequential([layers.Dense(3), nn.relu, layers.Dense(2)]), (9,))
    assert [(row.layer, row.parameters) for row in rows] == [("layers_0", 30), ("layers_2", 8)]


def test_nothing_is_computed():
    # Its scores alone would fill 40 GB.
    rows = describe(models.build("lenet5"), (128_032, 128_032, 1))
    assert rows[-1].output == (32_001, 32_001, 10)


def test_the_model_says_what_it_expects():
    with pytest.raises(InputError, match=r"LeNet5 expects images .* got shape \(1, 28, 28, 1\)"):
        describe(models.build("lenet5"), (28, 28, 1))
