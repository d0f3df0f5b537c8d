"""The edge between a shell and a function: options from a dataclass, and one line for bad input."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from cnn_jax.errors import InputError, StorageError

T = TypeVar("T")
BAD_INPUT, NO_STORAGE, INTERRUPTED = 2, 74, 130  # 74 is EX_IOERR of sysexits.h


def parse(config: Callable[..., T], args: Sequence[str] | None = None, description: str | None = None) -> T:
    """Reads the command line, or `args`, into a dataclass by tyro; `description` stands above the help.

    Raises:
        InputError: an option is unknown, missing or has a value that is none.
        SystemExit: after --help.
    """
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(config, args=args, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(_one_line(errors.getvalue())) from None


def _one_line(message: str) -> str:
    """What tyro says in a box of several lines, as one; the help text it repeats is left out."""
    lines = [line.strip(" │╭╮╰╯─-") for line in message.splitlines()]
    kept = []
    for line in lines[1:]:
        if line.startswith(("Argument helptext", "For full helptext", "Got errors")):
            break
        kept.append(line)
    text = re.sub(r"\s+", " ", " ".join(kept)).strip()
    return f"{text.rstrip('.') or 'the options cannot be read'}; --help lists the options"


def main(run: Callable[[T], object], config: Callable[..., T], description: str | None = None) -> None:
    """Parses the command line, runs, and ends the process as a command should.

    Bad input, an `InputError`, is one line on standard error and exit code 2; a `StorageError` is one line and exit
    code 74; Ctrl-C is exit code 130; any other exception is a bug and keeps its traceback.
    """
    try:
        run(parse(config, description=description))
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(NO_STORAGE if isinstance(error, StorageError) else BAD_INPUT) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # The reader, head or less, has gone: nobody is left to tell.
        sys.stderr.close()
        raise SystemExit(0) from None
