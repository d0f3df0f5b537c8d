"""The folder of a sweep and what it shows: programs in `trials`, the table, and the run of what was chosen, `best`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cnn_jax import terminal
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.files import write_file
from cnn_jax.runs.axes import Axes
from cnn_jax.runs.clearing import check_folder, delete, plan
from cnn_jax.runs.folder import REPORT, SWEEP, RunFolder, check_name
from cnn_jax.runs.programs import Program
from cnn_jax.runs.sweep import Sweep, sweep, to_json
from cnn_jax.runs.sweep import hand_over as hand_over_trial
from cnn_jax.runs.tables import sweep_table
from cnn_jax.training.recipe import Recipe

BEST, TRIALS, TABLE = "best", "trials", "sweep.md"
_OURS = {BEST, TRIALS, TABLE, SWEEP, REPORT}
_PICTURE = re.compile(r"sweep(-[0-9]+)?\.png")


def check_free(path: Path, resume: bool, overwrite: bool) -> bool:
    """Whether `path` holds a sweep, after making sure that one may be started or resumed there.

    Raises:
        InputError: the folder holds something else, or a sweep and neither `resume` nor `overwrite` is given.
    """
    check_name(path)
    check_folder(path)
    found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    strange = sorted(found - _ours(path))
    if strange:
        raise InputError(
            f"{path}: expected a new or empty folder or a sweep, found {strange[0]!r} in it; choose another"
        )
    if found and not (resume or overwrite):
        raise InputError(f"{path} holds a sweep: give --resume to continue it, --overwrite to replace it")
    if found and overwrite:
        plan(path, _ours(path), lambda name, entry: False)
    return bool(found)


def _ours(path: Path) -> set[str]:
    """The names of what a sweep in `path` has in its folder."""
    names = (entry.name for entry in path.iterdir()) if path.exists() else ()
    return _OURS | {name for name in names if _PICTURE.fullmatch(name)}


def train(
    path: Path, resume: bool, open_run: Callable[[Path, Recipe, dict[str, Any]], RunFolder], **options: Any
) -> Sweep:
    """Trains a sweep with its programs' folders in `path`/trials, in place of a sweep that is there.

    Args:
        path: the folder of the sweep, made if there is none.
        resume: continue the sweep that is there.
        open_run: opens the folder of a program, given its recipe and the numbers that its trials have instead.
        options: those of `sweep`.

    Raises:
        InputError: as `sweep` and `RunFolder`.
    """

    def open_folder(p: int, program: Program) -> RunFolder:
        # By now all recipes have been checked.
        if p == 0 and path.exists() and not resume:
            delete(plan(path, _ours(path), lambda name, entry: False))
        numbers = {f"sweep.{name}": list(values) for name, values in program.numbers.items()}
        return open_run(path / TRIALS / str(p + 1), program.recipe, numbers)

    return sweep(open_folder=open_folder, **options)


def hand_over(found: Sweep, path: Path, folder: RunFolder) -> None:
    """`runs.sweep.hand_over` within the folder of a sweep."""
    hand_over_trial(found, path / TRIALS / str(found.place(found.chosen)[0] + 1), folder)


def lengths(axes: Axes, seeds: int) -> str:
    """How many runs a sweep takes, in words."""
    count = math.prod(map(len, axes.values()))
    words = " x ".join(f"{len(values)} of {name}" for name, values in axes.items())
    return f"sweep over {words}: {count} combinations" + (f", {seeds} seeds each," if seeds > 1 else "")


def show_plan(programs: Sequence[Program], axes: Axes, seeds: int) -> None:
    """Prints what would be trained together."""
    rows = [
        (str(p + 1), str(len(program.members) * seeds), ", ".join(program.numbers) or "-")
        for p, program in enumerate(programs)
    ]
    terminal.say(lengths(axes, seeds).rstrip(","))
    terminal.show_table(("program", "runs", "takes as numbers"), rows, left=(0, 2))


def leave(found: Sweep, path: Path) -> None:
    """Prints the table of a sweep and keeps it in its folder, as sweep.md and, with the figures, as sweep.json."""
    header, rows = sweep_table(found)
    axes = len(found.axes)
    terminal.show_table(header, rows, left=(*range(axes), len(header) - 1))
    several = len(found.seeds) > 1
    by = "the mean of the" if several else "the"
    terminal.say(
        f"chosen: {found.text(found.chosen)}, by {by} {found.metric.name.replace('_', ' ')} on the validation images; "
        f"the test images are shown to no other; table kept in {shown(path / TABLE)}"
    )
    marks = ["---"] * axes + ["---:"] * (len(header) - axes - 1) + ["---"]
    lines = [header, marks, *rows]
    texts = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
    write_file(path / TABLE, "".join(f"| {text} |\n" for text in texts))
    write_file(path / SWEEP, json.dumps(to_json(found), indent=2) + "\n")
