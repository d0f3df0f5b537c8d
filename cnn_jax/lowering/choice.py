"""Which lowering is taken for which operation: the one place to read it, and `use` to override it.

A choice is a function of the operation and its shapes alone, made when a function is lowered for the CPU; nothing is
timed. On other platforms everything is `direct`. The rules are those measured (README.md beside this file).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from cnn_jax.lowering.geometry import Geometry, Windows
from cnn_jax.lowering.products import wide

Operation = Literal["conv", "input_gradient", "weight_gradient"]
Choice = tuple[str, dict[str, int]]
"""The name of a lowering and its further arguments."""

_used = jax.make_user_context("auto")

DIRECT: Choice = ("direct", {})
# Direct, written so that it keeps its speed in a loop; a convolution itself is written so by anyone.
CANONICAL: Choice = ("canonical", {})

# Few input channels: patches are worth more than XLA's own convolution, which copies them in as short runs.
_FEW = 16
# Channels enough, of input and output, that Winograd's products are worth writing down what they multiply.
_MANY = {"conv": 128, "input_gradient": 128, "weight_gradient": _FEW + 1}
# A window large enough for the band of one, which gives some outputs of a row together.
_LARGE = 16
# Places in a window, each of which is a term of its own in the program.
_MOST_TAPS = 49
# Elements of the patches of one image that `banded` picks by a table, which is part of the program.
_MOST_PICKED = 2**20
# Bytes that the operands of a weight gradient may have, as they are or transformed, to be taken all at once.
_CACHED = {"canonical": 12e6, "winograd": 10.5e6}
# Each tile is a piece of program: more take longer to compile than they save.
_MOST_TILES = 8


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


def choose(operation: Operation, geometry: Geometry, sizes: tuple[int, ...], dtype: DTypeLike) -> Choice:
    """The lowering of an operation on the CPU, for `sizes` (R, N, inputs, outputs) and operands of `dtype`."""
    images, inputs, outputs = sizes[1:]
    taps, places = math.prod(geometry.window), math.prod(geometry.out)
    ones = (1, 1)
    if 0 in (*sizes, *geometry.size, *geometry.out):
        return DIRECT
    plain = DIRECT if operation == "conv" else CANONICAL
    if len(geometry.size) != 2 or geometry.input_dilation != ones or geometry.kernel_dilation != ones:
        return plain
    alone = geometry.groups == inputs and (inputs > 1 or (operation == "conv" and outputs <= 64))
    if alone and taps <= _MOST_TAPS:
        return "shifted", {}
    if geometry.groups > 1:
        return plain
    strided = geometry.strides != ones
    picked = places * taps * inputs
    if inputs <= _FEW and taps >= _LARGE and picked <= _MOST_PICKED and not (strided and operation == "conv"):
        return "banded", {"block": 4 if inputs <= 2 else 2}
    if taps > _MOST_TAPS:
        return plain
    if _filters(operation, geometry, min(inputs, outputs)):
        if operation != "weight_gradient":
            return "winograd", {}
        return "winograd", _tiled("winograd", 16 * _tiles(geometry) * (inputs + outputs), images, wide(dtype))
    if taps == 1 or inputs <= _FEW:
        return "taps", {}
    if operation == "conv":
        return ("taps", {}) if places <= 16 else DIRECT
    if operation == "input_gradient":
        return ("taps", {}) if strided else CANONICAL
    return ("canonical", _tiled("canonical", places * outputs, images, dtype)) if places > 64 else ("taps", {})


def _filters(operation: Operation, geometry: Geometry, channels: int) -> bool:
    """Whether Winograd's filtering is possible, exact enough and faster; images of 3x3, say, do not fill its tiles."""
    possible = geometry.window == (3, 3) and geometry.strides == (1, 1)
    exact = geometry.precision in (None, lax.Precision.DEFAULT)
    filled = operation != "weight_gradient" or 4 * _tiles(geometry) <= 1.5 * math.prod(geometry.out)
    return possible and exact and channels >= _MANY[operation] and filled


def _tiles(geometry: Geometry) -> int:
    """Tiles of 2x2 outputs."""
    return math.prod(-(-n // 2) for n in geometry.out)


def _tiled(way: str, numbers: int, images: int, dtype: DTypeLike) -> dict[str, int]:
    """The argument `tiles`, for operands of so many numbers an image."""
    size = numbers * images * jnp.dtype(dtype).itemsize
    return {"tiles": min(math.ceil(size / _CACHED[way]), _MOST_TILES, images)}


def adds_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether a sum over windows of an array of `shape` is taken from strided slices: where channels are few."""
    return _is_small(windows, shape) and shape[-1] <= 2 * _FEW


def compares_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether an extreme of an array of `shape` is taken from one strided slice per place of a window.

    Padding would have to be written down first.
    """
    return _is_small(windows, shape) and not any(map(any, windows.padding))


def picks_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether the derivatives of an extreme are: XLA's own select one window after the other."""
    return _is_small(windows, shape)


def _is_small(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether a window has few enough places for a slice each, in an array that is not empty."""
    return 0 not in shape and math.prod(windows.window) <= 16


def repeats(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether the gradient of a sum repeats the cotangents, of `shape`: where windows lie side by side."""
    return 0 not in shape and windows.window == windows.strides and not any(map(any, windows.padding))
