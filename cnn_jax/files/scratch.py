"""What is under way on disk, and goes with the process that makes it: at its end, or with the next one if it is killed.

The maker holds a lock on it, which the kernel releases however the process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from cnn_jax.errors import InputError

_LOCK = ".lock"
_GRACE = 10.0  # seconds that a process gets to lock what it has made
_DAY = 86_400.0  # seconds after which what nobody can have locked is taken for left behind


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Makes a folder in `parent` that goes at the end with all in it. Those that killed processes left go first.

    Raises:
        OSError: the folder cannot be made.
    """
    sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        with (folder / _LOCK).open("w") as lock:
            hold(lock)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hold(file: IO[Any]) -> None:
    """Makes `sweep` leave an open file and its folder alone until it is closed."""
    with contextlib.suppress(OSError):  # a file system without locks; there nothing is swept either
        fcntl.flock(file, fcntl.LOCK_EX)


def sweep(parent: Path, prefix: str) -> None:
    """Removes the files and folders of this prefix whose processes are gone."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and not entry.is_symlink() and _is_abandoned(entry):
                if entry.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    lock = os.path.join(entry.path, _LOCK) if entry.is_dir() else entry.path
    try:
        with open(lock, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.time() - os.fstat(file.fileno()).st_mtime > _GRACE
    except FileNotFoundError:  # made by an earlier version, or this very moment
        return time.time() - entry.stat().st_mtime > _DAY
    except OSError:  # in use, or somebody else's
        return False


def new_folder(path: Path) -> Path:
    """Makes a folder that no other process has: `path`, or where that is taken the next free of `path`-2, `path`-3, ...

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate, number = path, 2
        while True:
            try:
                candidate.mkdir()  # of processes that try at once, on a shared disk too, one succeeds
            except FileExistsError:
                candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
            else:
                return candidate
    except OSError as error:
        raise InputError(f"{path}: expected a folder that can be made, got: {error.strerror}") from None
