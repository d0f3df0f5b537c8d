"""The layers that are measured: their shapes, their costs, and numbers to feed them with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ConvDirection = Literal["forward", "input", "weight", "all"]
"""A convolution, its gradients with respect to the input and to the kernel, and all three in one program."""
PoolDirection = Literal["forward", "backward", "both"]
Sizes = int | tuple[int, ...]
"""The same number for each spatial dimension, or one for each."""

# What each direction alone computes, as it is called in what contenders return.
COMPUTED: dict[ConvDirection, str] = {"forward": "output", "input": "input gradient", "weight": "weight gradient"}


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """A convolution of (batch, *size, inputs) with windows of extent `window`, without a bias.

    Attributes:
      size: of one to three spatial dimensions; an int stands for two of them.
      strides, padding, dilation: the padding is as many zeros on both sides; the dilation is the window's.
      groups: into how many the channels are divided; one if `transposed`.
      transposed: the input gradient of the convolution that has these strides, padding and dilation, `inputs` its
        output channels and `outputs` its input channels.
    """

    batch: int
    size: Sizes
    window: Sizes
    inputs: int
    outputs: int
    strides: Sizes = 1
    padding: Sizes = 0
    dilation: Sizes = 1
    groups: int = 1
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial dimensions."""
        return 2 if isinstance(self.size, int) else len(self.size)

    def each(self, sizes: Sizes) -> tuple[int, ...]:
        """One number for each spatial dimension."""
        return (sizes,) * self.rank if isinstance(sizes, int) else sizes

    @property
    def extent(self) -> tuple[int, ...]:
        """What a dilated window covers."""
        return tuple((w - 1) * d + 1 for w, d in zip(self.each(self.window), self.each(self.dilation), strict=True))

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial dimensions of the output."""
        per_dimension = zip(*map(self.each, (self.size, self.extent, self.strides, self.padding)), strict=True)
        if self.transposed:
            return tuple((n - 1) * stride + extent - 2 * pad for n, extent, stride, pad in per_dimension)
        return tuple((n + 2 * pad - extent) // stride + 1 for n, extent, stride, pad in per_dimension)

    @property
    def flops(self) -> int:
        """Multiplications and additions, the same in each direction alone; those with padding are counted."""
        return 2 * self.batch * self._places * self._taps * self.inputs * self.outputs // self.groups

    def terms(self, direction: ConvDirection) -> int:
        """How many products are added up for one number of a direction alone, at most."""
        if direction == "weight":
            return self.batch * self._places
        return self._taps * (self.inputs if direction == "forward" else self.outputs) // self.groups

    def arrays(self) -> dict[str, np.ndarray]:
        """Normal float32 numbers: the input "x", the kernel "k", the cotangent of the output "y"; channels last.

        The kernel is (*window, inputs / groups, outputs), of a transposed convolution the last two swapped.
        """
        channels = (self.outputs, self.inputs) if self.transposed else (self.inputs // self.groups, self.outputs)
        return {
            "x": _normal(0, self.batch, *self.each(self.size), self.inputs),
            "k": _normal(1, *self.each(self.window), *channels),
            "y": _normal(2, self.batch, *self.out, self.outputs),
        }

    def __str__(self) -> str:
        """As "16x40x44x56-72,k5,s2,p2": input, output channels, window; and what else is not the default."""
        parts = ["x".join(map(str, (self.batch, *self.each(self.size), self.inputs))) + f"-{self.outputs}"]
        for letter, sizes, default in (
            ("k", self.window, None),
            ("s", self.strides, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
        ):
            distinct = set(self.each(sizes))
            if distinct != {default}:
                parts.append(letter + "x".join(map(str, distinct if len(distinct) == 1 else self.each(sizes))))
        return ",".join(parts + [f"g{self.groups}"] * (self.groups > 1))

    @property
    def _places(self) -> int:
        return math.prod(self.each(self.size) if self.transposed else self.out)

    @property
    def _taps(self) -> int:
        return math.prod(self.each(self.window))


@dataclass(frozen=True, kw_only=True)
class PoolShape:
    """A pool of (batch, size, size, channels) over windows of window x window."""

    kind: Literal["max", "avg"]
    batch: int
    size: int
    channels: int
    window: int
    strides: int
    padding: int = 0

    @property
    def out(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.window) // self.strides + 1

    @property
    def terms(self) -> int:
        """How many numbers are added up for one, at most; a maximum adds up only in its gradient."""
        return self.window**2 + 1 if self.kind == "avg" else math.ceil(self.window / self.strides) ** 2

    def arrays(self) -> dict[str, np.ndarray]:
        """Normal float32 numbers, without ties: the input "x" and the cotangent of the output "y"; channels last."""
        return {
            "x": _normal(0, self.batch, self.size, self.size, self.channels),
            "y": _normal(1, self.batch, self.out, self.out, self.channels),
        }


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
