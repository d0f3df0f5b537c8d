"""Selections: which images of each batch a network learns from, found out by training another before it."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import models, parts
from cnn_jax.parts import Part
from cnn_jax.training.groups import Group, Grouping


class Selection(Part, abc.ABC):
    """A small network, the proxy, that sees all batches of a run before it begins, and picks images of each.

    It is shown exactly what the run's own network would be: `proxy.make_picker` trains it.

    Attributes:
        keep: how many images of a batch are picked.
        every: in which steps the proxy learns, from those that it picks: the first and each so many after it. In the
            others it only picks.
    """

    keep: int
    every: int

    @property
    @abc.abstractmethod
    def model(self) -> nn.Module:
        """The proxy."""

    @abc.abstractmethod
    def groups(self, own: tuple[Grouping, ...]) -> tuple[Grouping, ...]:
        """What is different with some of its parameters, from what is with those of the run's network."""

    @abc.abstractmethod
    def pick(self, losses: jax.Array) -> jax.Array:
        """The rows of a batch to learn from, int32 (keep,), by the proxy's losses, float32 (N,), N >= keep."""

    def inner(self) -> list[Any]:
        """The parts that it names in texts."""
        return [self.model]


@dataclass(frozen=True)
class Hardest(Selection):
    """The images with the largest losses, as airbench96 picks them: its repository's airbench96_faster.py.

    The proxy is trained as the recipe says, but without averages and in fewer steps, over which its schedule is
    stretched.
    """

    proxy: str = "cifarnet(features=(32, 64, 64))"
    """Text of the network that picks."""
    keep: int = 512
    """How many images of each batch are learned from."""
    every: int = 4
    """It learns in one of so many steps."""
    frozen: str | None = None
    """Regular expression for paths of its parameters that stay as they begin; by default, or with None, no others than
    the groups of the recipe say."""

    def __post_init__(self) -> None:
        if isinstance(self.proxy, nn.Module):  # in Python it may be the network itself
            object.__setattr__(self, "proxy", parts.text(self.proxy, models.MODELS))
        self.check("keep", lambda count: count >= 1, "a whole number >= 1")
        self.check("every", lambda steps: steps >= 1, "a whole number >= 1")
        self.inner()  # which refuses a text that is none
        self.groups(())

    @property
    def model(self) -> nn.Module:
        found: nn.Module = parts.parse(self.proxy, nn.Module, models.MODELS)
        return found

    def groups(self, own: tuple[Grouping, ...]) -> tuple[Grouping, ...]:
        return own if self.frozen is None else (Group(self.frozen, frozen=True), *own)

    def pick(self, losses: jax.Array) -> jax.Array:
        """Of equal losses the first; in the order of the batch."""
        return jnp.sort(jax.lax.top_k(losses, self.keep)[1])
