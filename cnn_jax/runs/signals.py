"""Treats Ctrl-C, SIGTERM and a terminal that hangs up as a request to stop after the current steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from cnn_jax import start


class Interrupts:
    """While entered, the first SIGINT, SIGTERM or SIGHUP only sets `received`; a second one acts as it did before.

    A signal that the process ignores, as one in the background of a script or under nohup does, stays ignored. One that
    nobody heeded until the end acts then as it did before. Outside the main thread, where Python allows no signal
    handlers, nothing is ever received.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._heeded = False
        self._previous: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def heed(self) -> signal.Signals | None:
        """What has been received, if anything: the caller stops for it."""
        self._heeded = self.received is not None
        return self.received

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in start.HEEDED:
                if not start.is_ignored(number):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.received is not None and not self._heeded and kind is None:
            signal.raise_signal(self.received)
