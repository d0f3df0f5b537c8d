"""The networks as one writes them in plain Flax Linen, with the same trees of parameters as `cnn_jax.models`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax

_gelu = functools.partial(jax.nn.gelu, approximate=False)


class StockLeNet5(nn.Module):
    """`models.LeNet5` with tanh, for 32x32 images."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, 32, 32, C) to scores (N, num_classes)."""
        x = nn.tanh(nn.Conv(6, (5, 5), padding="VALID", name="C1")(images))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.tanh(nn.Conv(16, (5, 5), padding="VALID", name="C3")(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        x = nn.tanh(nn.Conv(120, (5, 5), padding="VALID", name="C5")(x))
        return nn.Dense(self.num_classes, name="F6")(x)[:, 0, 0]


class StockCifarNet(nn.Module):
    """`models.CifarNet`; fields as there."""

    num_classes: int = 10
    features: Sequence[int] = (64, 256, 256)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) to scores (N, num_classes)."""
        x = _gelu(nn.Conv(8 * images.shape[-1], (2, 2), padding="VALID", name="whiten")(images))
        for number, features in enumerate(self.features, start=1):
            x = _StockGroup(features, name=f"group_{number}")(x, train)
        x = nn.max_pool(x, (3, 3), strides=(3, 3))
        x = x.reshape(len(x), -1)
        return nn.Dense(self.num_classes, use_bias=False, name="output")(x) / 9


class _StockGroup(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, self.features, (3, 3), use_bias=False)
        norm = functools.partial(
            nn.BatchNorm, not train, momentum=0.6, epsilon=1e-12, use_scale=False, use_fast_variance=False
        )
        x = nn.max_pool(conv(name="conv_1")(x), (2, 2), strides=(2, 2))
        x = _gelu(norm(name="norm_1")(x))
        return _gelu(norm(name="norm_2")(conv(name="conv_2")(x)))


class StockResNet(nn.Module):
    """`models.ResNet18`; fields as those of `models.ResNet`."""

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    num_classes: int = 10
    features: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) to scores (N, num_classes)."""
        x = nn.Conv(self.features, (3, 3), padding=1, use_bias=False, name="stem")(images)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name="stem_norm")(x))
        return _from_stem(self, _StockBlock, x, train)


class StockResNet50(nn.Module):
    """`models.ResNet50`; fields as there."""

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    num_classes: int = 1000
    features: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) to scores (N, num_classes)."""
        x = nn.Conv(self.features, (7, 7), strides=2, padding=3, use_bias=False, name="stem")(images)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        return _from_stem(self, _StockBottleneck, x, train)


def _from_stem(
    model: StockResNet | StockResNet50, block: type[_StockBlock | _StockBottleneck], x: jax.Array, train: bool
) -> jax.Array:
    """The rest of a residual network, from the maps (N, H, W, C) of its stem to scores (N, num_classes)."""
    number = 0
    for stage, blocks in enumerate(model.stage_sizes):
        for first in [True] + [False] * (blocks - 1):
            number += 1
            strides = 2 if stage and first else 1
            x = block(model.features * 2**stage, strides, name=f"block_{number}")(x, train)
    return nn.Dense(model.num_classes, name="output")(x.mean(axis=(1, 2)))


class _StockBlock(nn.Module):
    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, self.features, use_bias=False)
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9)
        y = conv((3, 3), strides=self.strides, padding=1, name="conv_1")(x)
        y = nn.relu(norm(name="norm_1")(y))
        y = norm(name="norm_2")(conv((3, 3), padding=1, name="conv_2")(y))
        if x.shape != y.shape:
            x = norm(name="shortcut_norm")(conv((1, 1), strides=self.strides, padding=0, name="shortcut")(x))
        return nn.relu(x + y)


class _StockBottleneck(nn.Module):
    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9)
        y = nn.relu(norm(name="norm_1")(conv(self.features, (1, 1), name="conv_1")(x)))
        y = conv(self.features, (3, 3), strides=self.strides, padding=1, name="conv_2")(y)
        y = nn.relu(norm(name="norm_2")(y))
        y = norm(name="norm_3")(conv(4 * self.features, (1, 1), name="conv_3")(y))
        if x.shape != y.shape:
            shortcut = conv(4 * self.features, (1, 1), strides=self.strides, padding=0, name="shortcut")
            x = norm(name="shortcut_norm")(shortcut(x))
        return nn.relu(x + y)
