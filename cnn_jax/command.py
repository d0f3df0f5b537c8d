"""The edge between a shell and a function: options from a dataclass, one line for bad input, an exit code for all."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cnn_jax import options, start, terminal
from cnn_jax.errors import InputError
from cnn_jax.files import provide_home
from cnn_jax.misread import explain, needs, with_flags
from cnn_jax.terminal import signals

T = TypeVar("T")
BAD_INPUT = InputError.exit_code


def parse(
    config: Callable[..., T],
    args: Sequence[str] | None = None,
    description: str | None = None,
    default: T | None = None,
    program: str | None = None,
) -> T:
    """Reads the command line, or `args`, into a dataclass by tyro.

    Where the dataclass has parts, their texts are read first, as `--optimizer 'sgd(0.1)'`; then the fields of the parts
    there are become options, as `--optimizer.momentum 0.9`.

    Args:
        config: the dataclass, or a union of dataclasses, each of which is a command and has no parts.
        args: the command line; by default this process's.
        description: stands above the help.
        default: an instance that has the dataclass's defaults; else they are the fields' own.
        program: how the command is called; by default as this process was.

    Raises:
        InputError: an option is unknown, missing or has a value that is none, or an argument is empty.
        SystemExit: after --help.
    """
    import tyro

    args = list(sys.argv[1:] if args is None else args)
    program = program or _program()
    _check_none_empty(args)
    rest, there = args, []
    refusals: list[InputError] = []
    if dataclasses.is_dataclass(config) and isinstance(config, type):
        default, rest = options.take_texts(config, args, default)
        there = options.places(config, default=default)
    if _asks_for_help(args):
        _help(program, config, args, description or "", default)
        raise SystemExit(0)
    options.check_fields(there, rest)
    _check_none_missing(there, config, default)
    errors = io.StringIO()
    own: dict[str, Any] = {} if default is None else {"default": default}
    if there:
        own["registry"] = options.registry(there, refusals)
    try:
        with contextlib.redirect_stderr(errors), _unlimited_columns():
            return tyro.cli(config, args=rest, prog=program, config=(tyro.conf.FlagCreatePairsOff,), **own)
    except InputError as error:  # of a dataclass within the dataclass
        raise refusals[-1] if refusals else InputError(with_flags(str(error))) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise refusals[-1] if refusals else InputError(explain(errors.getvalue(), config, args, default)) from None


def _check_none_empty(args: Sequence[str]) -> None:
    """InputError if an argument is empty, as from an unset variable: as a path it would mean this folder."""
    for before, argument in zip(("", *args), args, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (option.startswith("--") and equals and not value):
            place = option or (f"after {before}" if before else "first")
            raise InputError(f"expected a value, got an empty argument ({place}); --help lists the options")


def _check_none_missing(there: Sequence[options.Member], config: Any, default: Any) -> None:
    """InputError where a part has no default and is not given, which tyro would try to make of its base class."""
    missing = [member.flag for member in there if member.value is dataclasses.MISSING]
    for group in options.groups(config, default=default) if missing else ():
        for option in group.options:
            if option.name in missing:
                raise InputError(needs(option))


def _asks_for_help(args: Sequence[str]) -> bool:
    before = args[: args.index("--")] if "--" in args else args
    return "--help" in before or "-h" in before


def _help(program: str, config: Callable[..., T], args: Sequence[str], description: str, default: Any) -> None:
    chosen = next((word for word in args if word in options.commands(config)), None)
    shown: Any = config
    if chosen is not None:
        program, shown = f"{program} {chosen}", options.commands(config)[chosen]
        description = (shown.__doc__ or "").strip()
    columns = shutil.get_terminal_size().columns
    terminal.say(options.help_text(program, shown, description, columns, default))


def _program() -> str:
    """How the command is called: a script by Python, one that the shell finds by its name without its folder."""
    if sys.argv[0].endswith(".py"):
        return f"python {sys.argv[0]}"
    return Path(sys.argv[0]).name if os.path.isabs(sys.argv[0]) else sys.argv[0]


@contextlib.contextmanager
def _unlimited_columns() -> Iterator[None]:
    """While entered, tyro breaks no lines, so that its messages can be read."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000000"
    try:
        yield
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def main(
    run: Callable[[T], object],
    config: Callable[..., T],
    description: str | None = None,
    version: str | None = None,
    default: T | None = None,
    command: str | None = None,
) -> None:
    """Parses the command line, runs, and ends the process as a command should.

    Bad input, an `InputError`, is one line on standard error and exit code 2, and so is output that cannot be written;
    other kinds of it have codes of their own (`cnn_jax.errors`). Where the output's reader, head or less, has gone, the
    work is done all the same. SIGINT, SIGTERM and SIGHUP are one line and 128 plus the number, unless the process was
    told to ignore them. Any other exception is a bug and keeps its traceback.

    `version` is what --version prints, `default` an instance of `config` that has its defaults, `command` a word before
    the options, that has been looked at.
    """
    terminal.standard_streams()
    code: object = 0
    with signals.heeded() as heeded:
        try:
            if version is not None and sys.argv[1:] == ["--version"]:
                terminal.say(version)
            else:
                args = None if command is None else sys.argv[2:]
                program = command and f"{_program()} {command}"
                chosen = parse(config, args, description, default, program)
                provide_home()
                run(chosen)
        except InputError as error:
            terminal.complain(f"error: {terminal.one_line(str(error))}")
            code = error.exit_code
        except KeyboardInterrupt as stop:
            code = _stop(getattr(stop, "number", signal.SIGINT), heeded)
        except SystemExit as stop:
            code = stop.code
        except Exception:
            if heeded.received is None:
                raise
            # A signal in the midst of an extension's first import comes out of there as an ImportError.
            code = _stop(heeded.received, heeded)
        else:
            if heeded.received is not None:  # Raised where Python could only throw it away.
                code = _stop(heeded.received, heeded)
        finally:
            lost = terminal.flush()
            if lost is not None:
                terminal.complain(f"error: standard output cannot be written: {lost.strerror}")
                code = code or BAD_INPUT
    if code:
        raise SystemExit(code)


def _stop(number: int, heeded: signals.Signals) -> int:
    heeded.told = True
    terminal.complain(start.words(number))
    return 128 + number
