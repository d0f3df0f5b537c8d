"""Signals while a command works."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from cnn_jax import start

_AT_ONCE = (signal.SIGINT, signal.SIGTERM)  # when they come again; a terminal that hangs up may do so more than once
_AGAIN, _END = 255, 0  # no numbers of signals


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
        self.told = False  # whether the command has said that it was stopped
        self._previous: dict[int, Any] = {}
        self._ours = 0  # signals on their way that `_watch` sent

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
        self._hook, sys.unraisablehook = sys.unraisablehook, self._thrown_away

    def remove(self) -> None:
        """Restores things as they were before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._writer, bytes([_END]))
        self._thread.join()
        os.close(self._writer)

    def forget(self) -> None:
        """In a forked child: signals act as in any process, and the parent hears of none."""
        signal.set_wakeup_fd(-1)
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.under_way:
            start.end(number, quiet=self.told)
        self.received = number
        raise Stopped(number)

    def _thrown_away(self, unraisable: Any) -> None:
        # Whatever is raised during garbage collection, which JAX triggers often, goes no further than here.
        if issubclass(unraisable.exc_type, Stopped):
            os.write(self._writer, bytes([_AGAIN]))
        else:
            self._hook(unraisable)

    def _watch(self, reader: int) -> None:
        # The interpreter writes the number of each signal as it comes, before any handler runs.
        came = False
        while (number := os.read(reader, 1)[0]) != _END:
            if number == _AGAIN and self.received is not None:
                time.sleep(0.01)  # until that is over
                self._ours += 1
                signal.pthread_kill(threading.main_thread().ident or 0, self.received)
            elif number in self._previous and self._ours:
                self._ours -= 1
            elif number in self._previous:
                if came and number in _AT_ONCE:
                    start.end(number, quiet=self.told)
                came = True
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
