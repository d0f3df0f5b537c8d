"""What the loop asks of what it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import lowering
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.evaluation import Evaluation
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Metrics

# How a program says in which order a convolution has its dimensions, and the order that is fast in a loop.
_CONVOLUTION = re.compile(r"stablehlo\.convolution.*? dim_numbers = (.*)")
_CANONICAL = re.compile(r"\[b, ([0-9, ]+), f\]x\[\1, i, o\]->\[b, \1, f\]")


class Program(Protocol):
    """Compiled training of one seed or of several. Everything "of each seed" is in the order of `seeds`.

    Attributes:
        seeds: the seeds that are trained.
        images: number of training images of each seed.
        total: number of steps.
        per_call: number of steps that a call takes at most; after the first call it may be less than before.
        held_out: names of the splits to measure on, "validation" before "test".
        schedule: step -> learning rate.
    """

    seeds: tuple[int, ...]
    images: int
    total: int
    per_call: int
    held_out: tuple[str, ...]
    schedule: optax.Schedule

    def init(self) -> TrainState:
        """The state before the first step."""

    def train_steps(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        """Takes so many steps, from 1 to `per_call`, the first being step `step`; the state given is used up.

        Metrics are (n,), or (seeds, n) of each seed, with n >= count; what comes after the first `count` is to be left.
        """

    def evaluate(self, state: TrainState, split: str) -> list[Evaluation]:
        """Measures each seed."""

    def finite(self, state: TrainState) -> np.ndarray:
        """Whether all numbers of each seed are finite: bool (seeds,)."""

    def choose(self, chosen: Sequence[bool], state: TrainState, other: TrainState) -> TrainState:
        """`state` for the seeds that are chosen, `other` for the rest. One seed is always chosen."""


def compiler(config: TrainConfig) -> Callable[..., Any]:
    """What compiles the train steps of a configuration: `jax.jit`, or `lowering.jit` where oneDNN is asked for."""
    return lowering.jit if config.onednn else jax.jit


def all_finite(state: TrainState) -> jax.Array:
    """Whether every floating-point number of a state is finite: bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def settle_per_call(train_steps: Any, arguments: Callable[[int], tuple[Any, ...]], most: int) -> int:
    """How many steps one call should take on CPU: `most`, or 1 where a loop is no place for them.

    In a loop a step finds the memory for its work, which the system has to clear anew for every call: LeNet-5 gains
    4 % at batch 128 and 41 % at 1,024. But convolutions that are not written as `lowering.canonical` has them, such as
    the gradients of Flax's own layers, take ten times as long in a loop, so a program with any takes its steps alone.

    Args:
        train_steps: what `jax.jit` made of the steps.
        arguments: gives its arguments for so many steps at most. Called with them, it does not trace again.
        most: the number of steps to be checked.
    """
    convolutions = _CONVOLUTION.findall(train_steps.lower(*arguments(most)).as_text())
    return most if all(_CANONICAL.match(written) for written in convolutions) else 1


def pad_steps(order: np.ndarray, steps: int) -> np.ndarray:
    """The order of some steps, (count, ...), as that of more, int32 (steps, ...); what is added is never looked at."""
    padded = np.zeros((steps, *order.shape[1:]), np.int32)
    padded[: len(order)] = order
    return padded
