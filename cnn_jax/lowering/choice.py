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

_used = jax.make_user_context("auto")

# Elements of the patches of one image. They are picked by a table of this size, which is part of the program.
_MOST_PATCHES = 2**20


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


def choose(operation: Operation, geometry: Geometry, sizes: tuple[int, ...]) -> tuple[str, dict[str, int]]:
    """The name of a lowering and its further arguments, on a CPU, for `sizes` (R, N, inputs, outputs).

    Few channels are where XLA:CPU is slow. A large window over them is where a few outputs computed together are
    worth their products with zeros; where one output is all there is, the product is an ordinary one.
    """
    inputs, outputs = sizes[2:]
    if not geometry.plain or 0 in (*sizes, *geometry.size, *geometry.out):
        return "direct", {}
    if operation == "conv" and inputs == 1 and math.prod(geometry.window) <= 49 and outputs <= 64:
        return "shifted", {}
    patches = math.prod((*geometry.out, *geometry.window)) * inputs
    if patches > _MOST_PATCHES or math.prod(geometry.window) < 16 or inputs > 16:
        return "direct", {}
    return "banded", {"block": 4 if inputs <= 2 else 2}


def slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether a pool of an array of `shape`, or its gradient, is taken from one strided slice per place of a window."""
    return 0 not in shape and math.prod(windows.window) <= 16


def repeats(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether the gradient of a sum repeats the cotangents, of `shape`: where windows lie side by side."""
    return 0 not in shape and windows.window == windows.strides and not any(map(any, windows.padding))
