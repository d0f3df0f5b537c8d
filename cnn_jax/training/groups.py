"""Groups of parameters with an optimiser, a schedule, a rate or a decay of their own, or that are not trained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax

from cnn_jax import parts
from cnn_jax.errors import InputError
from cnn_jax.parts import Part, is_non_negative, is_positive
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.schedules import Schedule, Stopped
from cnn_jax.training.state import path_of

_REST = "rest"
Rate = Callable[[Schedule, Any], optax.Schedule]
"""(schedule, peak) -> learning rate by step."""


class Grouping(Part):
    """Some parameters, and what is different with them: the base of all groups. The first that fits one counts."""

    def fits(self, path: str) -> bool:
        """Whether a parameter belongs to it, by its path, such as block_1/conv_1/kernel."""
        raise NotImplementedError

    def inner(self) -> list[Part]:
        """The parts that it sets itself; empty if it sets none."""
        return []

    def transformation(self, optimizer: Optimizer, schedule: Schedule, rate: Rate) -> optax.GradientTransformation:
        """What turns these parameters' gradients into updates.

        Args:
            optimizer: of the recipe.
            schedule: of the recipe.
            rate: schedule and peak -> learning rate by step.

        Raises:
            InputError: that cannot be.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Group(Grouping):
    """Parameters whose path has a pattern in it, and what is different with them."""

    pattern: str
    """Regular expression, looked for anywhere in a path such as block_1/conv_1/kernel."""
    rate: float = 1.0
    """Factor of the learning rate."""
    weight_decay: float | None = None
    """Decay of these kernels; by default, or with None, the optimiser's."""
    frozen: bool = False
    """Leave them as they begin."""
    optimizer: str | None = None
    """Text of another optimiser, as 'sgd(0.1)'; by default, or with None, the recipe's."""
    schedule: str | None = None
    """Text of another schedule, as 'linear(warmup=0.2)'; by default, or with None, the recipe's."""
    until: float = 1.0
    """Share of the steps after which they stay as they are then."""

    def __post_init__(self) -> None:
        for field in ("optimizer", "schedule"):  # In Python it may be the part itself.
            value = getattr(self, field)
            if isinstance(value, Part):
                object.__setattr__(self, field, parts.text(value))
        self.check("pattern", _is_pattern, "a regular expression that fits something")
        self.check("rate", is_positive, "a positive number")
        self.check("weight_decay", lambda decay: decay is None or is_non_negative(decay), "a number >= 0 or None")
        self.check("until", lambda share: 0 < share <= 1, "a share above 0, at most 1")
        self.inner()  # which refuses texts that are none

    def fits(self, path: str) -> bool:
        return re.search(self.pattern, path) is not None

    def transformation(self, optimizer: Optimizer, schedule: Schedule, rate: Rate) -> optax.GradientTransformation:
        if self.frozen:
            return optax.set_to_zero()
        own = self._optimizer() or optimizer
        peak = own.learning_rate * self.rate
        changes: dict[str, Any] = {"learning_rate": peak}
        if self.weight_decay is not None:
            if not hasattr(own, "weight_decay"):
                raise InputError(f"groups: expected an optimiser with weight_decay, {parts.short_text(own)} has none")
            changes["weight_decay"] = self.weight_decay
        own = dataclasses.replace(own, **changes)
        schedule = self._schedule() or schedule
        return own(rate(schedule if self.until == 1 else Stopped(schedule, self.until), peak))

    def inner(self) -> list[Part]:
        return [part for part in (self._optimizer(), self._schedule()) if part is not None]

    def _optimizer(self) -> Optimizer | None:
        return None if self.optimizer is None else parts.parse(self.optimizer, Optimizer)

    def _schedule(self) -> Schedule | None:
        return None if self.schedule is None else parts.parse(self.schedule, Schedule)


def _is_pattern(pattern: str) -> bool:
    try:
        return bool(pattern) and re.compile(pattern) is not None
    except re.error:
        return False


def make_optimizer(
    optimizer: Optimizer,
    schedule: Schedule,
    groups: Sequence[Grouping],
    rate: Rate,
) -> optax.GradientTransformation:
    """The optimiser of a recipe, with what is different in its groups. Each clips by the norm of its own gradient.

    Args:
        optimizer: of what is in no group.
        schedule: likewise.
        groups: the groups.
        rate: schedule and peak -> learning rate by step.

    Raises:
        InputError: as `Grouping.transformation`; or, from its `init`, a group has no parameters.
    """
    rest = optimizer(rate(schedule, optimizer.learning_rate))
    if not groups:
        return rest
    own = {str(k): group.transformation(optimizer, schedule, rate) for k, group in enumerate(groups)}
    return optax.partition({_REST: rest, **own}, lambda params: _labels(params, groups))


def _labels(params: Any, groups: Sequence[Grouping]) -> Any:
    """The label of each parameter: the number of its group, or `_REST`."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [path_of(path) for path, _ in paths]
    found = [next((str(k) for k, g in enumerate(groups) if g.fits(name)), _REST) for name in names]
    for k, group in enumerate(groups):
        if str(k) not in found:
            some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise InputError(
                f"groups: expected each to have parameters, none is left for {parts.short_text(group)}; "
                f"there are {some}"
            )
    return jax.tree.unflatten(jax.tree.structure(params), found)
