"""The first thing that a command does, before imports that take seconds. Imports next to nothing itself."""

import contextlib
import os
import signal

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_begun = False


def begin() -> None:
    """From here on, to the end of the process, SIGINT, SIGTERM and SIGHUP end it in one line unless they are ignored.

    Without this Ctrl-C shows where in somebody's module the import was. Closed standard streams are opened to nothing.
    """
    global _begun
    _begun = True
    keep_standard_numbers()
    for number in HEEDED:
        if not is_ignored(number):
            signal.signal(number, lambda number, frame: end(number))


def begun() -> bool:
    """Whether this process is a command's, rather than one that calls a command's functions."""
    return _begun


def keep_standard_numbers() -> None:
    """Opens to nothing those of standard input, output and error that are closed.

    Else the next file opened, a checkpoint perhaps, has that number, and libraries write their messages into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def is_ignored(number: int) -> bool:
    """Whether the process was told to ignore a signal, as one in the background of a script is, or under nohup.

    Also where something else than Python handles it.
    """
    return signal.getsignal(number) in (signal.SIG_IGN, None)


def words(number: int) -> str:
    """What a command says as a signal ends it."""
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def end(number: int, quiet: bool = False) -> None:
    """Ends the process at once, with the code 128 plus the number, and one line on standard error unless `quiet`."""
    with contextlib.suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
            os.write(1, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    with contextlib.suppress(OSError):
        if not quiet:
            os.write(2, f"{words(number)}\n".encode())
    os._exit(128 + number)
