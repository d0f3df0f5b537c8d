"""The networks as PyTorch modules, whose submodules have the names of ours, and the way of parameters between the two.

This file imports nothing of JAX: a process that trains with PyTorch is not to wait for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class LeNet5(nn.Module):
    """`models.LeNet5` with tanh: images (N, C, 32, 32) to scores (N, num_classes)."""

    def __init__(self, num_classes: int = 10, channels: int = 1):
        super().__init__()
        self.C1 = nn.Conv2d(channels, 6, 5)
        self.C3 = nn.Conv2d(6, 16, 5)
        self.C5 = nn.Conv2d(16, 120, 5)
        self.F6 = nn.Linear(120, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(torch.tanh(self.C1(images)), 2)
        x = F.avg_pool2d(torch.tanh(self.C3(x)), 2)
        return self.F6(torch.tanh(self.C5(x)).flatten(1))


class CifarNet(nn.Module):
    """`models.CifarNet`: images (N, C, H, W) to scores (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        features: Sequence[int] = (64, 256, 256),
        scale: float = 1 / 9,
        depth: int = 2,
    ):
        super().__init__()
        self.scale = scale
        self.whiten = nn.Conv2d(channels, 8 * channels, 2)
        widths = (8 * channels, *features)
        self.groups = len(features)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
            setattr(self, f"group_{number}", _Group(inputs, outputs, depth))
        self.output = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.whiten(images))
        for number in range(1, self.groups + 1):
            x = getattr(self, f"group_{number}")(x)
        return self.output(F.max_pool2d(x, 3).flatten(1)) * self.scale


class _Group(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int):
        super().__init__()
        self.depth = depth
        for number in range(1, depth + 1):
            conv = nn.Conv2d(inputs if number == 1 else outputs, outputs, 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad_(False)
            setattr(self, f"conv_{number}", conv)
            setattr(self, f"norm_{number}", norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = F.gelu(self.norm_1(F.max_pool2d(self.conv_1(x), 2)))
        x = F.gelu(self.norm_2(self.conv_2(first)))
        return F.gelu(self.norm_3(self.conv_3(x)) + first) if self.depth == 3 else x


class ResNet(nn.Module):
    """`models.ResNet18` by default: images (N, C, H, W) to scores (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        features: int = 64,
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(features)
        self.blocks, width = _add_blocks(self, _Block, stage_sizes, features)
        self.output = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.from_stem(F.relu(self.stem_norm(self.stem(images))))

    def from_stem(self, x: torch.Tensor) -> torch.Tensor:
        """From the maps of the stem to scores."""
        for number in range(1, self.blocks + 1):
            x = getattr(self, f"block_{number}")(x)
        return self.output(x.mean((2, 3)))


class ResNet20(ResNet):
    """`models.ResNet20`: images (N, C, H, W) to scores (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        stage_sizes: Sequence[int] = (3, 3, 3),
        features: int = 16,
    ):
        nn.Module.__init__(self)
        self.stem = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(features)
        self.blocks, width = _add_blocks(self, _PaddedBlock, stage_sizes, features)
        self.output = nn.Linear(width, num_classes)


class ResNet50(ResNet):
    """`models.ResNet50`: images (N, C, H, W) to scores (N, num_classes)."""

    def __init__(
        self,
        num_classes: int = 1000,
        channels: int = 3,
        stage_sizes: Sequence[int] = (3, 4, 6, 3),
        features: int = 64,
    ):
        nn.Module.__init__(self)
        self.stem = nn.Conv2d(channels, features, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(features)
        self.blocks, width = _add_blocks(self, _Bottleneck, stage_sizes, features)
        self.output = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.from_stem(F.max_pool2d(F.relu(self.stem_norm(self.stem(images))), 3, 2, 1))


def _add_blocks(
    network: nn.Module, block: type[_Block | _Bottleneck], stage_sizes: Sequence[int], features: int
) -> tuple[int, int]:
    """Gives a network its residual blocks; returns their number and the channels of the last."""
    number, width = 0, features
    for stage, blocks in enumerate(stage_sizes):
        for first in [True] + [False] * (blocks - 1):
            number += 1
            strides = 2 if stage and first else 1
            setattr(network, f"block_{number}", block(width, features * 2**stage, strides))
            width = block.expansion * features * 2**stage
    return number, width


class _Residual(nn.Module):
    """What is common to residual blocks: the shortcut, with a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.changes = (inputs, stride) != (outputs, 1)
        if self.changes:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def joined(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.changes:
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(x + y)


class _Block(_Residual):
    expansion = 1

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, stride)
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(outputs)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return self.joined(x, y)


class _PaddedBlock(_Block):
    """A block whose shortcut has no parameters: it lets pixels out and adds maps of zeros on both sides."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, stride)
        self.stride, self.more = stride, (outputs - inputs) // 2
        if self.changes:
            del self.shortcut, self.shortcut_norm

    def joined(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.changes:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(x + y)


class _Bottleneck(_Residual):
    expansion = 4

    def __init__(self, inputs: int, features: int, stride: int):
        outputs = self.expansion * features
        super().__init__(inputs, outputs, stride)
        self.conv_1 = nn.Conv2d(inputs, features, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(features)
        self.conv_2 = nn.Conv2d(features, features, 3, stride, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(features)
        self.conv_3 = nn.Conv2d(features, outputs, 1, bias=False)
        self.norm_3 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm_1(self.conv_1(x)))
        y = F.relu(self.norm_2(self.conv_2(y)))
        y = self.norm_3(self.conv_3(y))
        return self.joined(x, y)


NETWORKS = {"lenet5": LeNet5, "cifarnet": CifarNet, "resnet18": ResNet, "resnet50": ResNet50}
_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def load(module: nn.Module, params: Mapping[str, Any]) -> None:
    """Copies a tree of Flax's parameters, as NumPy arrays, into a module."""
    with torch.no_grad():
        for path, array in flatten(params):
            axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, (0,))
            _parameter(module, path).copy_(torch.tensor(np.ascontiguousarray(array.transpose(axes))))


def gradients(module: nn.Module, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The gradients of a module, in Flax's layout and by the paths of `flatten(params)`."""
    found = {}
    for path, array in flatten(params):
        gradient = _parameter(module, path).grad
        assert gradient is not None
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim, (0,))
        found[path] = gradient.permute(axes).numpy().copy()
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The leaves of nested dicts with their paths, as "block_1/conv_1/kernel"."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _parameter(module: nn.Module, path: str) -> nn.Parameter:
    *places, leaf = path.split("/")
    return module.get_submodule(".".join(places)).get_parameter(_NAMES[leaf])
