"""Treats Ctrl-C, SIGTERM and a terminal that hangs up as a request to stop after the current steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from cnn_jax import start
from cnn_jax.runs import hosts


class Interrupts:
    """While entered, the first SIGINT, SIGTERM or SIGHUP only sets `received`; a second one acts as it did before.

    Where several processes train together, one that any of them has received stops all (`stops`).

    A signal that the process ignores, as one in the background of a script or under nohup does, stays ignored. One that
    nobody heeded until the end acts then as it did before. Outside the main thread, where Python allows no signal
    handlers, nothing is ever received.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._agreed: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def stops(self) -> bool:
        """Whether to stop, the same in all processes, which are to ask in the same places."""
        found = hosts.signalled(self.received)
        self._agreed = None if found is None else signal.Signals(found)
        return found is not None

    def heed(self) -> signal.Signals | None:
        """What has been received, if anything: the caller stops for it."""
        self.stops()
        return self._agreed

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in start.HEEDED:
                if not start.is_ignored(number):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.received is not None and self._agreed is None and kind is None:
            signal.raise_signal(self.received)
