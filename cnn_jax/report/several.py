"""The sections of a report on several seeds of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_jax import pictures
from cnn_jax.errors import InputError
from cnn_jax.report import page, sections
from cnn_jax.report.findings import Findings, mapping
from cnn_jax.training.folder import CONFIG, seed_folder
from cnn_jax.training.records import read_records
from cnn_jax.training.summary import summarise


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One seed of a run.

    Attributes:
        seed: its number.
        path: its own folder.
        records: its records.
        test: its last record of the test images, or None.
    """

    seed: int
    path: Path
    records: list[dict[str, Any]]
    test: dict[str, Any] | None


def read_seeds(path: Path, config: dict[str, Any]) -> list[Seed]:
    """The seeds of a run, in order; none where it is the run of one.

    Raises:
        InputError: a seed has no folder yet.
    """
    options = mapping(config["config"])
    first, count = options.get("seed"), options.get("replicas", 1)
    if not isinstance(first, int) or not isinstance(count, int) or count == 1:
        return []
    found = []
    for seed in range(first, first + count):
        own = path / seed_folder(seed)
        if not (own / CONFIG).exists():
            raise InputError(f"{path}: expected a finished run of {count} seeds, {own.name} is not; resume the run")
        records = read_records(own)
        test = next((record for record in reversed(records) if record.get("split") == "test"), None)
        found.append(Seed(seed=seed, path=own, records=records, test=test))
    return found


def median(seeds: Sequence[Seed]) -> Seed:
    """The seed in the middle by test accuracy, of two in the middle the worse; the first where none was measured."""
    measured = sorted((seed for seed in seeds if seed.test), key=lambda seed: seed.test["accuracy"])  # type: ignore[index]
    return measured[(len(measured) - 1) // 2] if measured else seeds[0]


def summary(seeds: Sequence[Seed], found: Findings) -> str:
    """The large figures at the top."""
    figures: dict[str, tuple[str, str]] = {}
    tested = [seed.test for seed in seeds if seed.test]
    if tested:
        accuracy, loss = (summarise([record[key] for record in tested]) for key in ("accuracy", "loss"))
        # The best checkpoint by validation is measured on the test images too, but not recorded.
        at = ", at the last step" if found.run.best else ""
        figures[f"test accuracy{at}"] = (
            accuracy.percent().replace("± ", "±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%"),
            "mean ± standard deviation; 95 % confidence interval of the mean "
            f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %",
        )
        figures[f"test loss{at}"] = f"{loss.mean:.4f} ±\N{NO-BREAK SPACE}{loss.std:.4f}", "mean ± standard deviation"
    figures["seeds"] = str(len(seeds)), f"{seeds[0].seed} to {seeds[-1].seed}, trained together"
    return page.headline(figures | sections.common_figures(found))


def comparison(seeds: Sequence[Seed], found: Findings) -> list[str]:
    """The curves of all seeds with their band, and a table of the seeds."""
    figure = pictures.curves([seed.records for seed in seeds], steps_per_epoch=found.steps_per_epoch)
    caption = (
        "The line is the mean over the seeds, the band reaches from the best to the worst of them. A difference "
        "between two recipes that is smaller than the band may be luck."
    )
    picture = page.picture(figure, f"Curves of loss and error over training, of {len(seeds)} seeds.", caption)
    rows = [
        (str(seed.seed), *((f"{seed.test['accuracy']:.2%}", f"{seed.test['loss']:.4f}") if seed.test else ("", "")))
        for seed in seeds
    ]
    return [
        page.section("Learning", picture, wide=False),
        page.section("Seeds", page.table(("seed", "test accuracy", "test loss"), rows), wide=False),
    ]


def detail(seed: Seed) -> str:
    """The sentence between what is of all seeds and what is of one."""
    accuracy = seed.test["accuracy"] if seed.test else math.nan
    said = f", whose test accuracy of {accuracy:.2%} is the median" if seed.test else ""
    return page.section(f"Seed {seed.seed}", page.paragraph(f"All below is of seed {seed.seed}{said}."))
