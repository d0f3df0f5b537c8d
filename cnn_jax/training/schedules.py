"""Learning-rate schedules, Optax's, with their lengths as shares of all steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from cnn_jax.parts import Part, is_share


class Schedule(Part):
    """How the learning rate changes over a run: the base of all schedules."""

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        """The learning rate as a function of the step.

        Args:
            peak: the largest learning rate.
            steps: length of the run; the schedule ends there.
        """
        raise NotImplementedError


def _is_between(value: float) -> bool:
    return 0 < value <= 1


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate throughout."""

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        return optax.constant_schedule(peak)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Linear warm-up, then a half cosine to 0 (Loshchilov and Hutter 2017, without restarts)."""

    warmup: float = 0.3
    """Share of the steps in which the rate rises to its peak."""

    def __post_init__(self) -> None:
        self.check("warmup", is_share, "a share from 0 to below 1")

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        warmup = round(self.warmup * steps)
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Cosine up from 1/25 of the peak, and down to nearly 0 (Smith and Topin 2018)."""

    warmup: float = 0.3
    """Share of the steps in which the rate rises to its peak."""

    def __post_init__(self) -> None:
        self.check("warmup", is_share, "a share from 0 to below 1")

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        # Optax divides by the lengths of both phases, so each is given a step at least.
        share = min(max(self.warmup, 1 / max(steps, 2)), 1 - 1 / max(steps, 2))
        return optax.cosine_onecycle_schedule(max(steps, 2), peak, pct_start=share)


@dataclass(frozen=True)
class Linear(Schedule):
    """Straight up to the peak, then straight down: a triangle."""

    warmup: float = 0.0
    """Share of the steps in which the rate rises to its peak; 0 begins with it."""
    start: float = 0.0
    """What it rises from, as a share of the peak."""
    end: float = 0.0
    """What it falls to, as a share of the peak."""
    end_at: float = 1.0
    """Share of the steps after which it has fallen to that, and stays there."""

    def __post_init__(self) -> None:
        self.check("warmup", is_share, "a share from 0 to below 1")
        for field in ("start", "end"):
            self.check(field, lambda value: 0 <= value <= 1, "a share from 0 to 1")
        self.check("end_at", lambda end: self.warmup < end <= 1, "a share above that of the warm-up, at most 1")

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        warmup = round(self.warmup * steps)
        down = optax.linear_schedule(peak, self.end * peak, max(round(self.end_at * steps) - warmup, 1))
        if not warmup:
            return down
        return optax.join_schedules([optax.linear_schedule(self.start * peak, peak, warmup), down], [warmup])


@dataclass(frozen=True)
class Step(Schedule):
    """The peak, multiplied by a factor again and again."""

    at: tuple[float, ...] = (0.5, 0.75)
    """Shares of the steps at which it is multiplied."""
    factor: float = 0.1
    """By how much."""
    warmup: float = 0.0
    """Share of the steps, the first ones, that are taken at a lower rate."""
    start: float = 0.1
    """That rate, as a share of the peak."""
    ramp: bool = False
    """Rise from that rate to the peak in a straight line, in place of staying at it."""

    def __post_init__(self) -> None:
        def is_ascending(shares: tuple[float, ...]) -> bool:
            return all(0 < share < 1 for share in shares) and list(shares) == sorted(set(shares))

        self.check("at", is_ascending, "ascending shares between 0 and 1")
        self.check("factor", _is_between, "a factor above 0, at most 1")
        self.check("warmup", lambda share: 0 <= share < min((*self.at, 1)), "a share below the first of `at`")
        self.check("start", _is_between, "a share above 0, at most 1")

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        boundaries, warmup = [round(share * steps) for share in self.at], round(self.warmup * steps)

        def rate(count: Any) -> Any:
            # Optax's own inspects the factor, which a sweep traces.
            stepped = peak * self.factor ** sum(count >= boundary for boundary in boundaries)
            if not warmup:
                return stepped
            low = self.start + (1 - self.start) * count / warmup if self.ramp else self.start
            return jnp.where(count < warmup, low * peak, stepped)

        return rate


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """Straight up, long at the peak, straight down to 0 (Hu et al. 2024, MiniCPM, section 4)."""

    warmup: float = 0.05
    """Share of the steps in which the rate rises from 0 to its peak."""
    decay: float = 0.2
    """Share of the steps, the last ones, in which it falls to 0."""

    def __post_init__(self) -> None:
        self.check("warmup", is_share, "a share from 0 to below 1")
        self.check("decay", _is_between, "a share above 0, at most 1")
        self.check("decay", lambda decay: decay + self.warmup <= 1, "at most what the warm-up leaves")

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        warmup, decay = round(self.warmup * steps), max(round(self.decay * steps), 1)
        phases = [optax.constant_schedule(peak), optax.linear_schedule(peak, 0.0, decay)]
        boundaries = [max(steps - decay, warmup)]
        if warmup:
            phases, boundaries = [optax.linear_schedule(0.0, peak, warmup), *phases], [warmup, *boundaries]
        return optax.join_schedules(phases, boundaries)


class Stopped(Schedule):
    """Another schedule until a share of the steps has been taken, and 0 from then on. It is the groups', and no part.

    Args:
        schedule: the other one, which does not know of its end.
        until: the share.
    """

    def __init__(self, schedule: Schedule, until: float):
        self.schedule, self.until = schedule, until

    def __call__(self, peak: Any, steps: int) -> optax.Schedule:
        rate, stop = self.schedule(peak, steps), round(self.until * steps)
        return lambda count: jnp.where(count < stop, rate(count), 0.0)
