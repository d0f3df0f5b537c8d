"""Where the time of a run goes: seconds by purpose, and a trace of some steps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from cnn_jax.runs.storage import storing

Purpose = Literal["compiling", "steps", "data", "selection", "evaluation", "saving", "other"]
_TRACED = 10  # steps


class Spending:
    """Counts seconds by purpose; of purposes within each other the innermost counts.

    Args:
        clock: gives the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._since = clock, clock()
        self._purpose: Purpose = "other"
        self._seconds: dict[Purpose, float] = {}

    @contextlib.contextmanager
    def on(self, purpose: Purpose) -> Iterator[Callable[[], None]]:
        """What is done inside is for a purpose, in a trace, too.

        What this gives, called inside, counts the seconds so far for the purpose around it instead.
        """
        before = self._purpose
        self._turn_to(purpose)
        already = self._seconds.get(purpose, 0.0)

        def count_as_before() -> None:
            self._turn_to(purpose)
            self._seconds[before] = self._seconds.get(before, 0.0) + self._seconds[purpose] - already
            self._seconds[purpose] = already

        try:
            with jax.profiler.TraceAnnotation(purpose):
                yield count_as_before
        finally:
            self._turn_to(before)

    def take(self) -> dict[str, float]:
        """Seconds by purpose since this was called before, without purposes that took none."""
        self._turn_to(self._purpose)
        taken, self._seconds = self._seconds, {}
        return {purpose: seconds for purpose, seconds in taken.items() if seconds > 0}

    def _turn_to(self, purpose: Purpose) -> None:
        now = self._clock()
        self._seconds[self._purpose] = self._seconds.get(self._purpose, 0.0) + now - self._since
        self._purpose, self._since = purpose, now


def shares(seconds: Mapping[str, float]) -> str:
    """Seconds by purpose as text, largest first and without those under half a per cent: "steps 93 %, saving 2 %"."""
    total = sum(seconds.values())
    parts = sorted(((value / total, name) for name, value in seconds.items() if total), reverse=True)
    return ", ".join(f"{name} {share:.0%}".replace("%", " %") for share, name in parts if share >= 0.005)


class Trace:
    """A trace of ten steps, the first after those that compiled, in a folder that TensorBoard and Perfetto read.

    Args:
        folder: where to; None traces nothing.
    """

    def __init__(self, folder: Path | None):
        self._folder, self._left, self._runs = folder, 0 if folder is None else _TRACED, False

    def limit(self, count: int) -> int:
        """How many of so many steps to take in the next call: no more than are still to be traced."""
        return min(count, self._left) if self._left else count

    def begin(self) -> None:
        """Before a call of steps that are compiled."""
        if self._left and not self._runs:
            assert self._folder is not None
            with storing(self._folder, "a trace "):
                jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._runs = True

    def end(self, count: int, result: Any) -> Path | None:
        """After a call of so many steps; returns the folder if the trace has been written now."""
        if not self._runs:
            return None
        self._left = max(self._left - count, 0)
        if self._left:
            return None
        jax.block_until_ready(result)
        self.close()
        return self._folder

    def close(self) -> None:
        """Writes what has been traced, if a trace is under way."""
        if self._runs:
            assert self._folder is not None
            self._runs, self._left = False, 0
            with storing(self._folder, "a trace "):
                jax.profiler.stop_trace()
