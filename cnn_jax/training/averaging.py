"""Averaging: weights beside those that are trained, by which a model is measured and used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from cnn_jax.parts import Part, is_non_negative, is_share

Each = Literal["step", "epoch"]


class Average(flax.struct.PyTreeNode):
    """Averaged variables, ready to be used.

    Attributes:
        params: as the model's.
        batch_stats: as the model's.
        count: int32 scalar, how often they were averaged.
    """

    params: Any
    batch_stats: Any
    count: jax.Array


class Moment(NamedTuple):
    """Where in a run a step has ended.

    Attributes:
        step: int32 scalar, steps taken.
        steps: of the whole run.
        ends_epoch: bool scalar, whether an epoch ends with this step.
    """

    step: jax.Array
    steps: int
    ends_epoch: jax.Array


class Averaging(Part):
    """The base of all ways to average.

    Attributes:
        estimates_statistics: whether the running statistics of norms have to be estimated for the averaged weights.
    """

    estimates_statistics: ClassVar[bool] = False

    def __call__(self, average: Average, params: Any, batch_stats: Any, moment: Moment) -> tuple[Average, Any, Any]:
        """What comes after each step.

        Args:
            average: before the step.
            params: the trained parameters after it.
            batch_stats: the running statistics after it.
            moment: where in the run that is.

        Returns:
            The average, and the parameters and running statistics to train on with.
        """
        raise NotImplementedError

    def begin(self, params: Any, batch_stats: Any) -> Average:
        """The average before the first step: the variables themselves."""
        copied = jax.tree.map(jnp.copy, (params, batch_stats))
        return Average(params=copied[0], batch_stats=copied[1], count=jnp.zeros((), jnp.int32))


def _moved(average: Average, params: Any, batch_stats: Any, weight: Any, due: Any) -> Average:
    """The average, moved by `weight` of the way to the variables if that is due."""
    share = jnp.where(due, weight, 0.0)

    def move(old: jax.Array, new: jax.Array) -> jax.Array:
        # Of all the way it is the new value itself, to the bit.
        return jnp.where(share == 1.0, new, old + share.astype(old.dtype) * (new - old))

    return Average(
        params=jax.tree.map(move, average.params, params),
        batch_stats=jax.tree.map(move, average.batch_stats, batch_stats),
        count=average.count + jnp.asarray(due, jnp.int32),
    )


@dataclass(frozen=True)
class EMA(Averaging):
    """An exponential moving average of parameters and running statistics, with bias correction (Kingma and Ba 2015).

    After n values the weights of the values are those of an average begun at 0, divided by their sum 1 - decay^n.
    """

    decay: float = 0.999
    """Weight of the average so far against the newest value."""
    each: Each = "step"
    """Take a value after each step, or after each epoch."""

    def __post_init__(self) -> None:
        self.check("decay", is_share, "a number from 0 to below 1")
        self.check("each", lambda each: each in ("step", "epoch"), "step or epoch")

    def __call__(self, average: Average, params: Any, batch_stats: Any, moment: Moment) -> tuple[Average, Any, Any]:
        due = moment.ends_epoch if self.each == "epoch" else jnp.bool_(True)
        # 1 - decay^n as it is written would lose most of its digits: decay is close to 1, and so is its power.
        logarithm = math.log(self.decay) if self.decay else -math.inf
        rest = -jnp.expm1((average.count + 1).astype(jnp.float32) * logarithm)
        # The first value replaces what was there before training, to the bit.
        weight = jnp.where(average.count == 0, 1.0, (1 - self.decay) / rest)
        return _moved(average, params, batch_stats, weight, due), params, batch_stats


@dataclass(frozen=True)
class SWA(Averaging):
    """The equal average of the last share of a run (Izmailov et al. 2018); until then, the trained weights themselves.

    The running statistics of norms are re-estimated for it before it is measured.
    """

    share: float = 0.25
    """The share of the steps, the last ones, that is averaged."""
    each: Each = "epoch"
    """Take a value after each epoch, or after each step."""
    estimates_statistics: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check("share", lambda share: 0 < share <= 1, "a share above 0, at most 1")
        self.check("each", lambda each: each in ("step", "epoch"), "step or epoch")

    def __call__(self, average: Average, params: Any, batch_stats: Any, moment: Moment) -> tuple[Average, Any, Any]:
        first = moment.steps - round(self.share * moment.steps)
        begun = moment.step > first
        due = begun & (moment.ends_epoch if self.each == "epoch" else jnp.bool_(True))
        # Until the first value, for which the weight is 1 too, the average follows the trained weights.
        moved = _moved(average, params, batch_stats, 1.0 / (average.count + 1), due | (average.count == 0))
        return moved.replace(count=average.count + due.astype(jnp.int32)), params, batch_stats


@dataclass(frozen=True)
class Lookahead(Averaging):
    """Slow weights that every few steps move towards the fast ones, which go on from there (Zhang et al. 2019).

    Moves that grow shorter over the run, and running statistics that take part, are those of airbench94 of
    KellerJordan/cifar10-airbench: lookahead(5, 1 - 0.95 ** 5, power=3, statistics=True).
    """

    sync_period: int = 6
    """Steps from one such move to the next."""
    slow_step_size: float = 0.5
    """The share of the way that the slow weights move."""
    power: float = 0.0
    """Move further early in the run: when a share p of it is done, 1 - (1 - slow_step_size) * p ** power of the way."""
    statistics: bool = False
    """Treat the running statistics of norms as weights; otherwise they are those of the weights trained last."""

    def __post_init__(self) -> None:
        self.check("sync_period", lambda period: period >= 1, "a whole number >= 1")
        self.check("slow_step_size", lambda size: 0 < size <= 1, "a share above 0, at most 1")
        self.check("power", is_non_negative, "a number >= 0")

    def __call__(self, average: Average, params: Any, batch_stats: Any, moment: Moment) -> tuple[Average, Any, Any]:
        due = moment.step % self.sync_period == 0
        share: Any = self.slow_step_size
        if self.power:
            share = 1 - (1 - share) * (moment.step / moment.steps) ** self.power
        moved = _moved(average, params, batch_stats, share, due)
        if not self.statistics:
            moved = moved.replace(batch_stats=batch_stats)
        slow, fast = (moved.params, moved.batch_stats), (params, batch_stats)
        return moved, *jax.tree.map(lambda slow, fast: jnp.where(due, slow, fast), slow, fast)
