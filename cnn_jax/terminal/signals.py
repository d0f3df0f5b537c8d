"""Signals while a command works."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from cnn_jax import start

_AT_ONCE = (signal.SIGINT, signal.SIGTERM)  # when they come again; a terminal that hangs up may say so more than once


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Signals:
    """What SIGINT, SIGTERM and SIGHUP do from `install` on, except those that the process was told to ignore.

    The first raises `Stopped` in the main thread, or ends the process at once where nothing is `under_way` that must be
    ended well. A second SIGINT or SIGTERM ends it at once, also while the main thread is in code that is not Python's
    and hears nothing.
    """

    def __init__(self) -> None:
        self.under_way = True
        self.received: int | None = None  # the first
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Takes over; to be called in the main thread."""
        for number in start.HEEDED:
            if not start.is_ignored(number):
                self._previous[number] = signal.signal(number, self._handle)
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(reader,), daemon=True, name="signals")
        self._thread.start()

    def remove(self) -> None:
        """Leaves things as they were before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._writer)

    def forget(self) -> None:
        """In a forked child: signals do what they do in any process, and the parent is told of none."""
        signal.set_wakeup_fd(-1)
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.under_way:
            start.end(number)
        raise Stopped(number)

    def _watch(self, reader: int) -> None:
        # The interpreter writes the number of each signal as it comes, before any handler runs.
        while (number := os.read(reader, 1)[0]) != 0:
            if number in self._previous:
                if self.received is not None and number in _AT_ONCE:
                    start.end(number)
                self.received = self.received or number
        os.close(reader)


@contextlib.contextmanager
def heeded() -> Iterator[Signals]:
    """While entered, a signal raises `Stopped`. In a command's process one ends it at once from then on."""
    signals = Signals()
    installed = threading.current_thread() is threading.main_thread()
    if installed:
        signals.install()
    if start.begun():
        os.register_at_fork(after_in_child=signals.forget)
    try:
        yield signals
    finally:
        signals.under_way = False
        if installed and not start.begun():
            signals.remove()
