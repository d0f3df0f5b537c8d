"""Contenders timed in turns, and a summary of their times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

OURS, SCANNED, PLAIN, STOCK = "ours", "ours in a scan", "ours, no oneDNN", "stock"
CONTIGUOUS, CHANNELS_LAST, COMPILED = TORCH = ("torch", "torch channels-last", "torch.compile")

Clock = Callable[[], float]
Times = dict[str, list[float]]
"""Seconds that the work took each contender, by its name, one number a round."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of doing a piece of work.

    Attributes:
      name: one of `OURS`, `SCANNED`, `PLAIN`, `STOCK` and those of `TORCH`.
      call: starts the work and returns what `wait` takes.
      wait: returns when it is done.
      numbers: does the work from its beginning, before any `call`, and returns what comes out, by name, as float32
        arrays in the layout of ours.
      amount: how many times a call does the work.
      compiled: the seconds that it took to trace and compile; None where that was not timed.
    """

    name: str
    call: Callable[[], Any]
    wait: Callable[[Any], Any]
    numbers: Callable[[], dict[str, np.ndarray]]
    amount: int = 1
    compiled: float | None = None


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
      seconds: what one case may take; whatever it is, there are `least` rounds, and at most `most`.
      block: the shortest time, in seconds, that a contender is watched for in a round; 0 for one call, without any
        untimed one.
      patience: a call that takes more seconds than this is timed only once, before the rounds of the others.
    """

    seconds: float
    block: float
    least: int
    most: int
    patience: float = 5.0


FULL = Effort(seconds=1.2, block=0.03, least=5, most=25)
QUICK = Effort(seconds=0.8, block=0.02, least=5, most=11)
THRICE = Effort(seconds=0.0, block=0.0, least=3, most=3)
PAUSE = 0.005  # seconds; the threads of another library that wait for work in a loop give up within one


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The median of some numbers with their lower and upper quartile."""

    median: float
    low: float
    high: float


def measure(
    contenders: Sequence[Contender], effort: Effort, clock: Clock = time.perf_counter, pause: Any = time.sleep
) -> Times:
    """Times contenders that have each been called before, in turns: every round each of them, in another order.

    A turn is a pause and an untimed call, in which whatever the last contender left in the caches and at work goes its
    way, and then a block of calls on the clock. Where one call fills a block, the pause is all.
    """
    calls = {contender.name: 1 for contender in contenders}
    slow: dict[str, float] = {}
    for contender in contenders if effort.block else ():
        once = _block(contender, 1, clock)
        if once < effort.block:  # The first of many may have waited for memory.
            once = _block(contender, 1, clock)
        elif once > effort.patience:
            slow[contender.name] = once / contender.amount
        calls[contender.name] = max(1, math.ceil(effort.block / max(once, 1e-9)))

    def turn(contender: Contender) -> float:
        count = calls[contender.name]
        pause(PAUSE)
        if count > 1:
            _block(contender, 1, clock)
        return _block(contender, count, clock) / (count * contender.amount)

    times: Times = {contender.name: [] for contender in contenders}
    timed = [contender for contender in contenders if contender.name not in slow]
    began, done = clock(), 0
    while done < effort.least or (done < effort.most and (clock() - began) * (done + 1) / done < effort.seconds):
        for k in range(len(timed)):
            contender = timed[(k + done) % len(timed)]
            times[contender.name].append(turn(contender))
        done += 1
    return times | {name: [seconds] * done for name, seconds in slow.items()}


def _block(contender: Contender, calls: int, clock: Clock) -> float:
    """Seconds for that many calls, each waited for: JAX would start the next at once, PyTorch on a CPU would not."""
    began = clock()
    for _ in range(calls):
        contender.wait(contender.call())
    return clock() - began


def spread(values: Sequence[float]) -> Spread:
    low, median, high = np.quantile(np.asarray(values), (0.25, 0.5, 0.75))
    return Spread(median=float(median), low=float(low), high=float(high))


def speedup(ours: Sequence[float], other: Sequence[float]) -> Spread:
    """How many times as fast as the other we are, round by round."""
    return spread([b / a for a, b in zip(ours, other, strict=True)])


def fastest(times: Times, names: Sequence[str]) -> str | None:
    """The name with the lowest median among `names` that were timed; None where none was."""
    timed = [name for name in names if name in times]
    return min(timed, key=lambda name: spread(times[name]).median, default=None)


def geometric_mean(values: Sequence[float]) -> float:
    """NaN of no values."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan
