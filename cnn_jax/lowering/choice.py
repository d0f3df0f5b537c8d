"""Which lowering is taken for which operation: the one place to read it, and `use` to override it.

A choice is a function of the operation and its shapes alone, made when a function is lowered for the CPU; nothing is
timed. On other platforms everything is `direct`. The rules are those measured (README.md beside this file).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Literal

import jax

from cnn_jax.lowering.geometry import Geometry, Windows

Operation = Literal["conv", "input_gradient", "weight_gradient"]
Choice = tuple[str, dict[str, int]]
"""The name of a lowering and its further arguments."""

_used = jax.make_user_context("auto")

DIRECT: Choice = ("direct", {})

# Few input channels: patches are worth more than XLA's own convolution, which copies them in as short runs.
_FEW = 16
# A small image, in outputs: XLA's own convolution does not fill its products with these.
_SMALL = 64
# Outputs enough that an input gradient's one product is worth writing its shares down, to be added up.
_MANY = 256
# Places in a window, each of which is a term of its own in the program.
_MOST_TAPS = 49
# Elements of the patches of one image that `banded` picks by a table, which is part of the program.
_MOST_PICKED = 2**20


def use(lowering: Literal["auto", "direct"]) -> AbstractContextManager[None]:
    """`with lowering.use("direct"):` gives XLA's own operations, forward and backward, to all that is traced inside.

    "auto", the default, takes what `choose` says. A function under `jax.jit` is traced anew for each of the two.
    """
    if lowering not in ("auto", "direct"):
        raise ValueError(f"use: lowering must be 'auto' or 'direct', got {lowering!r}")
    return _used(lowering)


def current() -> str:
    """The lowering in use: "auto" or "direct"."""
    return _used.value


def choose(operation: Operation, geometry: Geometry, sizes: tuple[int, ...]) -> Choice:
    """The lowering of an operation on the CPU, for `sizes` (R, N, inputs, outputs)."""
    inputs, outputs = sizes[2:]
    taps = math.prod(geometry.window)
    dilated = geometry.input_dilation != (1, 1) or geometry.kernel_dilation != (1, 1)
    if dilated or 0 in (*sizes, *geometry.size, *geometry.out):
        return DIRECT
    alone = geometry.groups == inputs and (inputs > 1 or (operation == "conv" and outputs <= 64))
    if alone and taps <= _MOST_TAPS:
        return "shifted", {}
    if geometry.groups > 1:
        return DIRECT
    picked = math.prod(geometry.out) * taps * inputs
    wanted = operation != "conv" or (taps >= 16 and geometry.strides == (1, 1))
    if inputs <= _FEW and picked <= _MOST_PICKED and wanted:
        return "banded", {"block": _block(inputs, taps)}
    if taps > _MOST_TAPS:
        return DIRECT
    small = math.prod(geometry.out) <= _SMALL
    if operation == "input_gradient":
        fast = taps == 1 or (outputs >= _MANY and (small or geometry.strides != (1, 1)))
        return ("taps", {}) if fast else DIRECT
    return ("taps", {}) if operation == "weight_gradient" or small else DIRECT


def _block(inputs: int, taps: int) -> int:
    """Outputs of a row computed together: more where the window is large and the channels are few."""
    if taps < 9:
        return 1
    return 4 if inputs <= 2 and taps >= 16 else 2


def slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether a pool of an array of `shape`, or its gradient, is taken from one strided slice per place of a window."""
    return 0 not in shape and math.prod(windows.window) <= 16


def repeats(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether the gradient of a sum repeats the cotangents, of `shape`: where windows lie side by side."""
    return 0 not in shape and windows.window == windows.strides and not any(map(any, windows.padding))
