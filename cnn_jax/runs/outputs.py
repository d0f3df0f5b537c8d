"""Files written for the user, which must never replace a file that a run is made of."""

from __future__ import annotations

import os
from pathlib import Path

from cnn_jax.errors import InputError
from cnn_jax.files import write_file
from cnn_jax.runs.checkpoints import BEST, NEWEST
from cnn_jax.runs.folder import CONFIG, RECORDS, is_of_run


def write_output(path: Path, content: str | bytes, own: str = "") -> None:
    """`files.write_file`, but refuses a file that belongs to a run.

    Args:
        path: the file.
        content: text or bytes.
        own: the name of the only file of a run that may be written.

    Raises:
        InputError: as `check_output`, or the file cannot be written.
    """
    check_output(path, own)
    write_file(path, content)


def check_output(path: Path, own: str = "") -> None:
    """InputError if a path, links followed, leads to a file of a run other than `own`."""
    target = Path(os.path.realpath(path))
    run = next((folder for folder in target.parents if _is_run(folder)), None)
    if run is not None and is_of_run(run, target.relative_to(run), own):
        raise InputError(f"{path}: expected a new file, it is one of the run {run}; choose another")


def _is_run(folder: Path) -> bool:
    parts = (RECORDS, NEWEST, BEST)
    return os.path.isfile(folder / CONFIG) and any(os.path.exists(folder / name) for name in parts)
