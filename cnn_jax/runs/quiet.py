"""Keeping what Orbax says by itself off standard error: what matters of it stands in our own lines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

_ORBAX = f"{os.sep}orbax{os.sep}"
_lock = threading.Lock()
_inside = 0
_has_failed = False
_hook: Callable[[Any], Any] | None = None
_before: Callable[[Any], Any]  # what `sys.unraisablehook` was


def _is_from_elsewhere(record: logging.LogRecord) -> bool:
    """asyncio logs the errors of tasks that Orbax has left behind; the text names the task's file."""
    return _ORBAX not in record.pathname and _ORBAX not in record.getMessage()


def _passing_over(before: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook for coroutines of Orbax's that nobody awaited, and callbacks of TensorStore's that came too late."""

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        late = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
        if not late and (code is None or _ORBAX not in code.co_filename):
            before(unraisable)

    return hook


@contextlib.contextmanager
def quiet_orbax() -> Iterator[Callable[[], None]]:
    """While it is entered, by any thread, log lines of Orbax and errors of tasks that it leaves behind are not shown.

    Everything else is, and afterwards so is Orbax.

    Yields:
        What to call when Orbax has failed. Then it has left tasks behind, and TensorStore may still be reading, so that
        errors of these kinds come at any later moment, up to the end of the process; they are passed over from then on.
    """
    global _inside, _hook, _before
    import absl.logging

    orbax, tasks = absl.logging.get_absl_logger(), logging.getLogger("asyncio")

    def expect_leftovers() -> None:
        global _has_failed
        _has_failed = True
        warnings.filterwarnings("ignore", r"coroutine '_read_array\w*' was never awaited", RuntimeWarning)

    with _lock:
        _inside += 1
        for logger in (orbax, tasks):
            logger.addFilter(_is_from_elsewhere)  # once, however often
        if sys.unraisablehook is not _hook:
            _before = sys.unraisablehook
            sys.unraisablehook = _hook = _passing_over(_before)
    try:
        yield expect_leftovers
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                orbax.removeFilter(_is_from_elsewhere)
            if not _inside and not _has_failed:
                tasks.removeFilter(_is_from_elsewhere)
                if sys.unraisablehook is _hook:
                    sys.unraisablehook = _before
