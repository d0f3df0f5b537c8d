"""The LeNets of 1998 on MNIST: the paper's error rates against ours, over at least ten seeds.

Trains LeNet-1, LeNet-4 and LeNet-5 as published (LeCun, Bottou, Bengio and Haffner 1998; see
`cnn_jax/models/lenet1998.py`) and prints a table of paper against here. The networks, their inputs and their
distortions are the paper's; the recipe is not: AdamW under a one-cycle schedule instead of 20 passes of stochastic
diagonal Levenberg-Marquardt.

    python experiments/lecun1998.py                                     all four rows, ten seeds each
    python experiments/lecun1998.py --networks lenet1 --replicas 20     one row, more seeds
    python experiments/lecun1998.py --out runs/table --resume           go on where it stopped
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cnn_jax import command, terminal
from cnn_jax.augment import Affine
from cnn_jax.data import TFDS, Source
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.files import new_folder, write_file
from cnn_jax.models import LeNet1, LeNet4, OriginalLeNet5
from cnn_jax.report import write_report
from cnn_jax.runs import Execution, Place
from cnn_jax.runs.display import duration
from cnn_jax.runs.execution import check_seeds
from cnn_jax.runs.folder import check_free
from cnn_jax.training import MAP, AdamW, Recipe, SoftmaxCrossEntropy, summarise
from cnn_jax.training.recipe import check

Network = Literal["lenet1", "lenet4", "lenet5", "lenet5-distorted"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        title: as the paper calls it.
        paper: its test error in percent (1998, Figure 9 and section III.C).
        recipe: what is trained.
    """

    title: str
    paper: float
    recipe: Recipe


# Chosen among a dozen by the error on 5,000 images held out of the training images; the test images had no say.
_recipe = functools.partial(Recipe, batch_size=64, pixel_range=(-0.1, 1.175))  # the range: section II.B
ROWS: dict[str, Row] = {
    "lenet1": Row(
        title="LeNet-1",
        paper=1.7,
        recipe=_recipe(
            model=LeNet1(),
            epochs=15,
            optimizer=AdamW(learning_rate=1e-2, weight_decay=0.02),
        ),
    ),
    "lenet4": Row(
        title="LeNet-4",
        paper=1.1,
        recipe=_recipe(
            model=LeNet4(),
            epochs=10,
            optimizer=AdamW(learning_rate=5e-3, weight_decay=0.05),
            loss=SoftmaxCrossEntropy(label_smoothing=0.1),
        ),
    ),
    "lenet5": Row(
        title="LeNet-5",
        paper=0.95,
        recipe=_recipe(
            model=OriginalLeNet5(),
            epochs=12,
            optimizer=AdamW(learning_rate=5e-3, weight_decay=0.1),
            loss=MAP(),
        ),
    ),
    "lenet5-distorted": Row(
        title="LeNet-5, distorted",
        paper=0.8,
        recipe=_recipe(
            model=OriginalLeNet5(),
            epochs=15,
            optimizer=AdamW(learning_rate=5e-3, weight_decay=0.1),
            loss=MAP(),
            augment=(Affine(),),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which rows of the table to measure, and over how many seeds."""

    networks: tuple[Network, ...] = ("lenet1", "lenet4", "lenet5", "lenet5-distorted")
    """Rows of the table."""
    replicas: int = 10
    """Seeds a row, trained together as one program."""
    seed: int = 0
    """The first of the seeds."""
    epochs: int | None = None
    """Passes over the training images; by default those of each row, 10 to 15."""
    data: Source = TFDS("mnist")
    """Which images to learn from; with the paper's levels, the background at -0.1 and the ink at 1.175."""
    out: Path | None = None
    """Folder of the table, with a run's folder for each row; by default a new one, runs/lecun1998-TIME."""
    resume: bool = False
    """Go on with the table in `out` where it stopped."""
    overwrite: bool = False
    """Replace the runs in `out`."""
    device: str | None = None
    """Device to run on, as JAX names it: cpu, gpu, tpu, or one of several, gpu:1. By default all of them."""

    def __post_init__(self) -> None:
        if not self.networks:
            raise InputError(f"networks: expected at least one of {', '.join(ROWS)}, got none")
        if self.epochs is not None:
            check(self.epochs >= 1, "epochs", "a whole number >= 1 or None", self.epochs)
        check_seeds(self.seed, self.replicas)


def experiment(config: Config, row: Row, out: Path) -> Experiment:
    """The whole configuration of a row."""
    epochs = row.recipe.epochs if config.epochs is None else config.epochs
    return Experiment(
        recipe=dataclasses.replace(row.recipe, epochs=epochs),
        data=config.data,
        seed=config.seed,
        replicas=config.replicas,
        execution=Execution(device=config.device),
        # The report comes after its row has been counted.
        place=Place(out=out, resume=config.resume, overwrite=config.overwrite, report=False),
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a row came to: test errors in percent of each seed, and seconds for all of them."""

    errors: np.ndarray
    seconds: float


def main(config: Config) -> None:
    out = config.out or new_folder(Path("runs") / f"lecun1998-{time.strftime('%Y%m%d-%H%M%S')}")
    names = list(dict.fromkeys(config.networks))
    options = {name: experiment(config, ROWS[name], out / name) for name in names}
    # A refusal must not wait for the rows before it.
    for name in names:
        check_free(out / name, config.resume, config.overwrite)

    measured: dict[str, Measured] = {}
    faults: list[str] = []
    try:
        for name in names:
            result = run_experiment(options[name], "lecun1998", whole=out)
            measured[name] = Measured(errors=100 * (1 - result.values("test")), seconds=result.seconds)
            try:
                terminal.say(f"report: {shown(write_report(out / name))}")
            except InputError as error:  # the rows to come are worth more
                faults.append(f"no report: {error}")
    finally:
        if config.out is None:
            with contextlib.suppress(OSError):  # it goes only if it is empty: no row could be begun
                out.rmdir()

    header = ("network", "paper", "here", "95 % interval", "best and worst", "seeds", "epochs", "time, all seeds")
    rows = [cells(ROWS[name], options[name], measured[name]) for name in names]
    terminal.show_table(header, rows)
    write_file(out / "table.md", markdown(header, rows))
    places = terminal.plain(config.data.label()), shown(out / "table.md")
    terminal.say("test errors in percent on {}; table kept in {}".format(*places))
    if faults:
        raise InputError("; ".join(faults))


def cells(row: Row, options: Experiment, measured: Measured) -> tuple[str, ...]:
    """The row's cells, as text."""
    errors, found = measured.errors, summarise(measured.errors)
    several = len(errors) > 1
    return (
        row.title,
        f"{row.paper:.2f} %",
        f"{found.mean:.2f} ± {found.std:.2f} %" if several else f"{found.mean:.2f} %",
        f"{found.low:.2f} to {found.high:.2f} %" if several else "-",
        f"{errors.min():.2f} to {errors.max():.2f} %",
        str(len(errors)),
        str(options.recipe.epochs),
        duration(measured.seconds),
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    command.main(main, Config, description=__doc__)
