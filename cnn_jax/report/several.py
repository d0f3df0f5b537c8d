"""The sections of a report on several seeds of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import detection, pictures
from cnn_jax.errors import InputError
from cnn_jax.report import page, scenes, sections
from cnn_jax.report.findings import Findings, seeds_of
from cnn_jax.runs.folder import CONFIG, seed_folder
from cnn_jax.runs.records import read_records
from cnn_jax.training.summary import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One seed of a run.

    Attributes:
        seed: its number.
        path: its own folder.
        records: its records.
        test: its last record of the test images, or None.
        detection: its figures, if it is a detector.
    """

    seed: int
    path: Path
    records: list[dict[str, Any]]
    test: dict[str, Any] | None
    detection: dict[str, Any] | None

    @property
    def score(self) -> float | None:
        """What seeds are compared by: average precision where it was measured, else test accuracy; None without."""
        area = self.detection["mean_average_precision"] if self.detection else None
        return self.test["accuracy"] if area is None and self.test else area


def read_seeds(path: Path, config: dict[str, Any]) -> list[Seed]:
    """The seeds of a run, in order; none where it is the run of one.

    Raises:
        InputError: a seed has no folder yet.
    """
    seeds = seeds_of(config)
    found = []
    for seed in seeds if len(seeds) > 1 else ():
        own = path / seed_folder(seed)
        if not (own / CONFIG).exists():
            raise InputError(
                f"{path}: expected a finished run of {len(seeds)} seeds, {own.name} is not; resume the run"
            )
        records = read_records(own)
        test = next((record for record in reversed(records) if record.get("split") == "test"), None)
        found.append(Seed(seed=seed, path=own, records=records, test=test, detection=detection.read_figures(own)))
    return found


def median(seeds: Sequence[Seed]) -> Seed:
    """The seed in the middle by its score, of two in the middle the worse; the first where none was measured."""
    measured = sorted((seed for seed in seeds if seed.score is not None), key=lambda seed: seed.score or 0.0)
    return measured[(len(measured) - 1) // 2] if measured else seeds[0]


def summary(seeds: Sequence[Seed], found: Findings) -> str:
    """The large figures at the top."""
    figures: dict[str, tuple[str, str]] = {}
    detections = [seed.detection for seed in seeds if seed.detection]
    areas = [one["mean_average_precision"] for one in detections if one["mean_average_precision"] is not None]
    if areas:
        figures["average precision"] = _spread(summarise(areas))
    tested = [seed.test for seed in seeds if seed.test]
    if tested:
        kind = "window" if areas else "test"
        accuracy, loss = (summarise([record[key] for record in tested]) for key in ("accuracy", "loss"))
        # The best checkpoint by validation is measured on the test images too, but not recorded.
        at = ", at the last step" if found.run.best else ""
        figures[f"{kind} accuracy{at}"] = _spread(accuracy)
        without = [record["cross_entropy"] for record in tested if "cross_entropy" in record]
        mean = float(np.mean(without)) if len(without) == len(tested) else None
        figures[f"{kind} loss{at}"] = (
            f"{loss.mean:.4f} ±\N{NO-BREAK SPACE}{loss.std:.4f}",
            f"mean ± standard deviation; {sections.loss_remark(found, mean)}",
        )
        for name in found.beside_loss(set.intersection(*map(set, tested))):
            values = summarise([record[name] for record in tested])
            figures[f"{kind} {name}{at}"] = _spread(values, found.run.measures[name].is_share)
    figures["seeds"] = str(len(seeds)), f"{seeds[0].seed} to {seeds[-1].seed}, trained together"
    return page.headline(figures | sections.common_figures(found))


def _spread(found: Summary, is_share: bool = True) -> tuple[str, str]:
    """A figure over the seeds as a large one: mean and deviation, and the interval of the mean."""
    ends = f"{100 * found.low:.2f} to {100 * found.high:.2f} %" if is_share else f"{found.low:.4f} to {found.high:.4f}"
    return (
        found.text(is_share).replace("± ", "±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%"),
        f"mean ± standard deviation; 95 % confidence interval of the mean {ends}",
    )


def comparison(seeds: Sequence[Seed], found: Findings) -> list[str]:
    """The curves of all seeds with their band, and a table of the seeds."""
    runs = [seed.records for seed in seeds]
    figure = pictures.curves(runs, steps_per_epoch=found.steps_per_epoch)
    caption = (
        "The line is the mean over the seeds, the band reaches from the best to the worst of them. A difference "
        "between two recipes that is smaller than the band may be luck." + sections.curves_caption(found, runs)
    )
    picture = page.picture(figure, f"Curves of loss and error over training, of {len(seeds)} seeds.", caption)
    tested = "window" if seeds[0].detection else "test"
    columns: dict[str, list[str]] = {"seed": [str(seed.seed) for seed in seeds]}
    if seeds[0].detection:
        areas = [seed.detection["mean_average_precision"] if seed.detection else None for seed in seeds]
        columns["average precision"] = [scenes.share(area) for area in areas]
    columns[f"{tested} accuracy"] = [f"{seed.test['accuracy']:.2%}" if seed.test else "" for seed in seeds]
    columns[f"{tested} loss"] = [f"{seed.test['loss']:.4f}" if seed.test else "" for seed in seeds]
    if found.least_loss is not None and any("cross_entropy" in (seed.test or {}) for seed in seeds):
        entropies = [(seed.test or {}).get("cross_entropy") for seed in seeds]
        columns["without smoothing"] = ["" if value is None else f"{value:.4f}" for value in entropies]
    for name in found.beside_loss({name for seed in seeds for name in seed.test or {}}):
        values = [(seed.test or {}).get(name) for seed in seeds]
        columns[f"{tested} {name}"] = [
            "" if value is None else found.run.measures[name].shown(value) for value in values
        ]
    table = page.table(list(columns), list(zip(*columns.values(), strict=True)))
    return [page.section("Learning", picture, wide=False), page.section("Seeds", table, wide=False)]


def detail(seed: Seed) -> str:
    """The sentence between what is of all seeds and what is of one."""
    name = "average precision" if seed.detection else "test accuracy"
    said = f", whose {name} of {seed.score:.2%} is the median" if seed.score is not None else ""
    return page.section(f"Seed {seed.seed}", page.paragraph(f"All below is of seed {seed.seed}{said}."))
