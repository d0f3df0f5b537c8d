"""What the tests of a session make once, whichever of pytest-xdist's workers they run in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A path of the session's, `make`'s the first time that it is asked for. Others wait. Only to be read."""
    path = session_folder(factory) / name
    with path.with_name(f"{name}.made").open("a+") as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        made.seek(0)
        if not made.read():
            make(path)
            made.write("yes")
    return path
