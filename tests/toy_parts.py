"""Parts of two kinds as the package has them, for tests of texts and command lines: import them by `toys`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnn_jax.parts import Part, is_positive


class Rule(Part):
    """Makes updates of gradients."""


@dataclass(frozen=True)
class SGD(Rule):
    """Stochastic gradient descent."""

    learning_rate: float = 0.1
    """What gradients are multiplied by."""
    momentum: float = 0.0
    """Share of the last update in the next, see `nesterov`."""
    nesterov: bool = False
    """Look ahead."""

    def __post_init__(self) -> None:
        self.check("learning_rate", is_positive, "a positive number")
        self.check("momentum", lambda value: 0 <= value < 1, "a number from 0 to below 1")


@dataclass(frozen=True)
class AdamW(Rule):
    """Adam with decoupled weight decay."""

    learning_rate: float = 0.001
    """How far a weight moves in a step."""
    weight_decay: float = 0.01
    """Share of a weight lost in a step."""


@dataclass(frozen=True)
class LinearWarmup(Rule):
    """Has a field without default."""

    steps: int
    """How many steps."""
    form: Literal["line", "cosine"] = "line"
    """Of which form."""
    ends: tuple[float, float] | None = None
    """Where it begins and ends."""
    names: tuple[str, ...] = ()
    """Of what."""
    place: Path | str = ""
    """Where."""


class Change(Part):
    """Changes images."""


class Move(Change):
    """Changes where things are."""


@dataclass(frozen=True)
class Flip(Move):
    """Left becomes right."""


@dataclass(frozen=True)
class Crop(Move):
    """A window of a padded image."""

    padding: int = 4
    """Pixels of padding on each side."""


@dataclass(frozen=True)
class Mixup(Change):
    """Mixes images."""

    alpha: float = 0.2
    """Of the Beta distribution."""
