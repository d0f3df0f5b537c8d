"""Signals while a command runs: whenever one comes, the process ends in one line and with 128 plus its number."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE = (signal.SIGINT, signal.SIGTERM)  # when they come again; a terminal that hangs up may say so more than once


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return words(self.number)


class Signals:
    """Once installed, decides what SIGINT, SIGTERM and SIGHUP do, except those that the process was told to ignore.

    While nothing is under way that must be ended well, the process ends at once. While something is, `Stopped` is
    raised in the main thread. A second SIGINT or SIGTERM ends the process at once, also while the main thread is in
    code that is not Python's and hears nothing.
    """

    def __init__(self) -> None:
        self.under_way = False
        self._previous: dict[int, Any] = {}
        self._received: list[int] = []

    def install(self) -> None:
        """Takes over; to be called in the main thread."""
        for number in HEEDED:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
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
        """In a forked child: signals do what they do in any process, and none is told to the parent."""
        signal.set_wakeup_fd(-1)
        for number in self._previous:
            signal.signal(number, signal.SIG_DFL)

    def received(self) -> int | None:
        """The first signal that came, if any."""
        return self._received[0] if self._received else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.under_way:
            end(number)
        raise Stopped(number)

    def _watch(self, reader: int) -> None:
        # The interpreter writes the number of each signal as it comes, before any handler runs.
        while (number := os.read(reader, 1)[0]) != 0:
            if number in self._previous:
                if self._received and number in _AT_ONCE:
                    end(number)
                self._received.append(number)
        os.close(reader)


_of_process: list[Signals] = []


def begin() -> None:
    """From here on, to the end of the process, a signal ends it in one line: the first thing that a command does."""
    if not _of_process and threading.current_thread() is threading.main_thread():
        signals = Signals()
        signals.install()
        os.register_at_fork(after_in_child=signals.forget)
        _of_process.append(signals)


@contextlib.contextmanager
def under_way() -> Iterator[Signals]:
    """While entered, a signal raises `Stopped`. After `begin` it ends the process at once before and after that."""
    own = not _of_process
    signals = Signals() if own else _of_process[0]
    installed = own and threading.current_thread() is threading.main_thread()
    if installed:
        signals.install()
    signals.under_way = True
    try:
        yield signals
    finally:
        signals.under_way = False
        if installed:
            signals.remove()


def end(number: int) -> NoReturn:
    """Ends the process at once, with one line on standard error."""
    with contextlib.suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
            os.write(1, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    with contextlib.suppress(OSError):
        os.write(2, f"{words(number)}\n".encode())
    os._exit(128 + number)


def words(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
