"""`cnn-jax verify`: which checkpoints of a run are whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cnn_jax import terminal
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.runs.checkpoints import NEWEST, Checkpoints
from cnn_jax.runs.folder import CONFIG, read_config, seed_folders

WHOLE = "whole"


def verify(path: Path) -> bool:
    """Prints what is whole of the run in `path`, and of its seeds: the configuration, the newest checkpoints, the best.

    Returns:
        Whether all is whole, and at least one checkpoint is there.

    Raises:
        InputError: the folder holds no run, or its configuration is damaged or was changed.
    """
    read_config(path)
    rows, whole = [], True
    seeds = (path / name for name in sorted(seed_folders(path)))
    # A seed's folder has its records from the start and is a run of its own in the end.
    for folder in [path, *(seed for seed in seeds if (seed / CONFIG).exists() or (seed / NEWEST).exists())]:
        found = list(_inspect(folder))
        rows += [(shown(place), state) for place, state in found]
        whole &= all(state == WHOLE for _, state in found)
    terminal.show_table(("of the run", "state"), rows or [(shown(path), "no checkpoint")], left=(0, 1))
    return whole and bool(rows)


def _inspect(path: Path) -> Iterator[tuple[Path, str]]:
    """The checkpoints of one run, and what is wrong with each."""
    try:
        run = str(read_config(path)["run"])
        with contextlib.closing(Checkpoints(path, run, read_only=True)) as checkpoints:
            for name, fault in checkpoints.inspect():
                yield path / name, fault or WHOLE
    except InputError as error:
        yield path, str(error)
