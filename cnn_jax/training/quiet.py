"""Keeping what Orbax says by itself off standard error: what matters of it stands in our own lines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_ORBAX = f"{os.sep}orbax{os.sep}"
_lock = threading.Lock()
_inside = 0
_restore: Callable[[], None]


def _is_from_elsewhere(record: logging.LogRecord) -> bool:
    """asyncio logs the errors of tasks that Orbax has left behind; the text names the task's file."""
    return _ORBAX not in record.pathname and _ORBAX not in record.getMessage()


def _is_left_behind(unraisable: Any) -> bool:
    """Whether it is a coroutine of Orbax's that nobody awaited, or a callback of TensorStore's that came too late."""
    code = getattr(unraisable.object, "cr_code", None)
    late = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
    return late or (code is not None and _ORBAX in code.co_filename)


def _begin() -> Callable[[], None]:
    import absl.logging

    loggers = absl.logging.get_absl_logger(), logging.getLogger("asyncio")
    for logger in loggers:
        logger.addFilter(_is_from_elsewhere)
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not _is_left_behind(unraisable):
            before(unraisable)

    sys.unraisablehook = hook

    def restore() -> None:
        for logger in loggers:
            logger.removeFilter(_is_from_elsewhere)
        if sys.unraisablehook is hook:
            sys.unraisablehook = before

    return restore


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """While it is entered, by any thread, log lines of Orbax and errors of tasks that it leaves behind are not shown.

    Everything else is, and afterwards so is Orbax.
    """
    global _inside, _restore
    with _lock:
        if not _inside:
            _restore = _begin()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore()
