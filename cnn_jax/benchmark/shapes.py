"""The layers that are measured: their shapes, their costs, and numbers to feed them with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ConvDirection = Literal["forward", "input", "weight"]
"""A convolution, and its gradients with respect to the input and to the kernel."""
PoolDirection = Literal["forward", "backward", "both"]


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """A convolution of (batch, size, size, inputs) with windows of window x window, without a bias.

    Attributes:
      strides, padding, groups: the padding is as many zeros on every side.
      transposed: the input gradient of the convolution that has these strides and this padding, `inputs` its output
        channels and `outputs` its input channels.
    """

    batch: int
    size: int
    window: int
    inputs: int
    outputs: int
    strides: int = 1
    padding: int = 0
    groups: int = 1
    transposed: bool = False

    @property
    def out(self) -> int:
        """Height and width of the output."""
        if self.transposed:
            return (self.size - 1) * self.strides + self.window - 2 * self.padding
        return (self.size + 2 * self.padding - self.window) // self.strides + 1

    @property
    def flops(self) -> int:
        """Multiplications and additions, the same in each direction; those with padding are counted."""
        places = self.size if self.transposed else self.out
        return 2 * self.batch * places**2 * self.window**2 * self.inputs * self.outputs // self.groups

    def terms(self, direction: ConvDirection) -> int:
        """How many products are added up for one number, at most."""
        if direction == "weight":
            return self.batch * (self.size if self.transposed else self.out) ** 2
        return self.window**2 * (self.inputs if direction == "forward" else self.outputs) // self.groups

    def arrays(self) -> dict[str, np.ndarray]:
        """Normal float32 numbers: the input "x", the kernel "k", the cotangent of the output "y"; channels last.

        The kernel is (window, window, inputs / groups, outputs), of a transposed convolution the last two swapped.
        """
        channels = (self.outputs, self.inputs) if self.transposed else (self.inputs // self.groups, self.outputs)
        return {
            "x": _normal(0, self.batch, self.size, self.size, self.inputs),
            "k": _normal(1, self.window, self.window, *channels),
            "y": _normal(2, self.batch, self.out, self.out, self.outputs),
        }


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
