"""How many steps a call of a compiled program takes, and what compiles it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax

from cnn_jax import lowering
from cnn_jax.runs.devices import has_bfloat16
from cnn_jax.runs.execution import Execution
from cnn_jax.training.recipe import Recipe

# How a program says in which order a convolution has its dimensions, and the order that is fast in a loop.
_CONVOLUTION = re.compile(r"stablehlo\.convolution.*? dim_numbers = (.*)")
_CANONICAL = re.compile(r"\[b, ([0-9, ]+), f\]x\[\1, i, o\]->\[b, \1, f\]")


def count_per_call(recipe: Recipe, execution: Execution, images: int) -> int:
    """How many steps one call of a compiled program takes at most: what is configured, or those of the longest epoch.

    A call never crosses the end of an epoch, so more are never needed.
    """
    return min(execution.steps_per_call or images, -(-images // recipe.batch_size))


def compiler(recipe: Recipe, execution: Execution) -> Callable[..., Any]:
    """What compiles the steps: `lowering.jit` where oneDNN is asked for or needed for bfloat16, else `jax.jit`."""
    half = recipe.precision == "bfloat16" and has_bfloat16()
    return lowering.jit if execution.onednn or half else jax.jit


def settle_per_call(lowered: Any, most: int) -> int:
    """How many steps one call should take on a CPU: `most`, or 1 where a loop would slow them down.

    In a loop a step finds the memory for its work, which the system has to clear anew for every call: LeNet-5 gains
    4 % at batch 128 and 41 % at 1,024. But convolutions that are not written as `lowering.canonical` has them, such as
    the gradients of Flax's own layers, take ten times as long in a loop, so a program with any takes its steps alone.

    Args:
        lowered: the program of the train steps.
        most: the number of steps to be checked.
    """
    convolutions = _CONVOLUTION.findall(lowered.as_text())
    return most if all(_CANONICAL.match(written) for written in convolutions) else 1
