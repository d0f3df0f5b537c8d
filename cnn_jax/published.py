"""Paper against here: trains what papers have published and prints their test errors beside ours."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from cnn_jax import terminal
from cnn_jax.data import TFDS, Source
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.files import new_folder, write_file
from cnn_jax.report import write_report
from cnn_jax.runs.display import duration
from cnn_jax.runs.execution import Execution, Place, check_seeds
from cnn_jax.runs.folder import check_free
from cnn_jax.training.recipe import Recipe, check
from cnn_jax.training.summary import summarise

_HEADER = ("network", "paper", "here", "95 % interval", "best and worst", "seeds", "epochs", "time, all seeds")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        title: as the paper calls it.
        paper: its test error in percent by the data's name, where it has one.
        recipe: what is trained.
    """

    title: str
    paper: Mapping[str, float] = field(default_factory=dict)
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Table:
    """Which rows of the table to measure, and over how many seeds."""

    # By the names that `networks` takes.
    rows: ClassVar[Mapping[str, Row]] = {}

    networks: tuple[str, ...] = ()
    """Rows of the table."""
    replicas: int = 10
    """Seeds a row, trained together as one program."""
    seed: int = 0
    """The first of the seeds."""
    epochs: int | None = None
    """Passes over the training images; by default those of each row."""
    data: Source = TFDS()
    """Which images to learn from."""
    out: Path | None = None
    """Folder of the table, with a run's folder for each row; by default a new one, runs/EXPERIMENT-TIME."""
    resume: bool = False
    """Go on with the table in `out` where it stopped."""
    overwrite: bool = False
    """Replace the runs in `out`."""
    device: str | None = None
    """Device to run on, as JAX names it: cpu, gpu, tpu, or one of several, gpu:1. By default all of them."""

    def __post_init__(self) -> None:
        if not self.networks:
            raise InputError(f"networks: expected at least one of {', '.join(self.rows)}, got none")
        if self.epochs is not None:
            check(self.epochs >= 1, "epochs", "a whole number >= 1 or None", self.epochs)
        check_seeds(self.seed, self.replicas)


def experiment(table: Table, row: Row, out: Path) -> Experiment:
    """The whole configuration of a row, with its run's folder."""
    recipe = row.recipe if table.epochs is None else dataclasses.replace(row.recipe, epochs=table.epochs)
    return Experiment(
        recipe=recipe,
        data=table.data,
        seed=table.seed,
        replicas=table.replicas,
        execution=Execution(device=table.device),
        # The report comes after its row has been counted.
        place=Place(out=out, resume=table.resume, overwrite=table.overwrite, report=False),
    )


def measure(table: Table, name: str) -> None:
    """Trains the rows asked for, one after the other, prints the table and keeps it as `table.md`.

    Args:
        table: what to measure.
        name: of the experiment, for the folders' default names.

    Raises:
        InputError: a run's folder is not free, and nothing has been trained; or a row cannot be trained; or, at the
            end, a report could not be written.
        SystemExit: a signal stopped a run, as `run_experiment`.
    """
    out = table.out or new_folder(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    chosen = list(dict.fromkeys(table.networks))
    options = {each: experiment(table, table.rows[each], out / each) for each in chosen}
    # A refusal must not wait for the rows before it.
    for each in chosen:
        check_free(out / each, table.resume, table.overwrite)

    lines: list[tuple[str, ...]] = []
    faults: list[str] = []
    try:
        for each in chosen:
            result = run_experiment(options[each], name, whole=out)
            errors = 100 * (1 - result.values("test"))
            lines.append(cells(table.rows[each], options[each], errors, result.seconds))
            try:
                terminal.say(f"report: {shown(write_report(out / each))}")
            except InputError as error:  # the rows to come are worth more
                faults.append(f"no report: {error}")
    finally:
        if table.out is None:
            with contextlib.suppress(OSError):  # it goes only if it is empty: no row could be begun
                out.rmdir()

    terminal.show_table(_HEADER, lines)
    write_file(out / "table.md", markdown(_HEADER, lines))
    places = terminal.plain(table.data.label()), shown(out / "table.md")
    terminal.say("test errors in percent on {}, the paper's as published; table kept in {}".format(*places))
    if faults:
        raise InputError("; ".join(faults))


def cells(row: Row, options: Experiment, errors: np.ndarray, seconds: float) -> tuple[str, ...]:
    """The row's cells, as text, from the test errors in percent of each seed and the seconds for all of them."""
    published, found = row.paper.get(options.data.label()), summarise(errors)
    several = len(errors) > 1
    return (
        row.title,
        "-" if published is None else f"{published:.2f} %",
        f"{found.mean:.2f} ± {found.std:.2f} %" if several else f"{found.mean:.2f} %",
        f"{found.low:.2f} to {found.high:.2f} %" if several else "-",
        f"{errors.min():.2f} to {errors.max():.2f} %",
        str(len(errors)),
        str(options.recipe.epochs),
        duration(seconds),
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
