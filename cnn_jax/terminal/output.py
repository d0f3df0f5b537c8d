"""Standard output and standard error; whatever cannot be delivered is dropped without stopping the work."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from cnn_jax import start
from cnn_jax.terminal.text import encodable, plain, quote

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED = 1 << 16  # columns if there is no terminal: a file or a pipe gets whole lines
_lost: dict[str, OSError] = {}  # the streams that can no longer be written to: "stdout", "stderr"


def standard_streams() -> None:
    """Makes standard input, output and error of this process usable; for the start of a command.

    Closed ones are opened to nothing. What is written past the functions here, by other libraries, is escaped where the
    encoding lacks it.
    """
    _lost.clear()
    start.keep_standard_numbers()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> bool:
    """Prints lines on standard output at once; returns whether they arrived. Only "\\n" in them is more than text."""
    return _Stream("stdout").line(text)


def complain(text: str) -> bool:
    """Prints lines on standard error, as `say`."""
    return _Stream("stderr").line(text)


def console() -> Console:
    """Standard output for what Rich draws: text is text, without markup, emoji codes or highlighting."""
    from rich.console import Console

    drawn = Console(file=_Stream("stdout"), markup=False, highlight=False, emoji=False)  # type: ignore[arg-type]
    if not drawn.is_terminal:
        drawn.width = _UNLIMITED
    return drawn


def shell(*words: str) -> str:
    """A command line that can be copied from standard output into a shell."""
    return " ".join(quote(word, _Stream("stdout").encoding) for word in words)


def width() -> int | None:
    """Columns of the terminal behind standard output; None if it is not a terminal."""
    drawn = console()
    return drawn.width if drawn.is_terminal else None


def flush() -> OSError | None:
    """Flushes the output; returns why some was lost, unless its reader simply left."""
    for name in ("stdout", "stderr"):
        _Stream(name).flush()
    error = _lost.get("stdout")
    return None if isinstance(error, BrokenPipeError) else error


class _Stream:
    """The current standard output or error, as a file whose writes raise nothing."""

    def __init__(self, name: str):
        self._name, self._stream = name, getattr(sys, name)

    def line(self, text: str) -> bool:
        """Writes lines of plain text."""
        self.write("".join(f"{plain(line)}\n" for line in text.split("\n")))
        self.flush()
        return self._name not in _lost

    def write(self, text: str) -> int:
        if self._stream is not None:
            self._try(lambda stream: stream.write(encodable(text, self.encoding)))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._try(lambda stream: stream.flush())

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        try:
            return self._name not in _lost and self._stream.isatty()
        except (AttributeError, ValueError):
            return False

    def _try(self, action: Callable[[Any], object]) -> None:
        try:
            action(self._stream)
        except OSError as error:
            _lost.setdefault(self._name, error)
            _let_go(self._stream)
        except ValueError:  # It has been closed.
            _lost.setdefault(self._name, OSError("closed"))


def _let_go(stream: IO[str]) -> None:
    """Leads a stream nowhere, also what it holds back, which Python would try to write once more at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # It is not a file of the system.
        pass
