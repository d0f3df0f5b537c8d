"""The closing tables: of a run its splits, or its seeds with their spread; of a sweep its combinations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from cnn_jax import terminal
from cnn_jax.runs.axes import shown
from cnn_jax.runs.fit import Result
from cnn_jax.runs.sweep import Sweep
from cnn_jax.training.summary import summarise


def columns_of(result: Result, names: Iterable[str]) -> dict[str, Callable[[float], str]]:
    """By name, how to show the loss and each metric."""
    shown = {name: metric.shown for name, metric in result.measures.items()}
    return {name: shown.get(name, "{:.4f}".format) for name in names}


def heading(result: Result, name: str) -> str:
    """What a table calls the loss or a metric."""
    if name == "loss":
        return "smoothed loss" if result.smooths else "loss"
    return name.replace("cross_entropy", "cross-entropy").replace("_", " ")


def show_splits(result: Result) -> None:
    """One row per split."""
    titles = {"train": "train (last epoch)", "best": "test (best by validation)"}
    found = {name: of_seeds[0] for name, of_seeds in result.evaluations.items()}
    columns = columns_of(result, next(iter(found.values())).values() if found else result.train)
    train = {name: float(values[0]) for name, values in result.train.items()}
    rows = [(titles["train"], *(show(train[name]) if name in train else "" for name, show in columns.items()))]
    for name, evaluation in found.items():
        values = evaluation.values()
        *cells, last = [show(values[column]) for column, show in columns.items()]
        rows.append((titles.get(name, name), *cells, f"{last} of {evaluation.count:,}"))
    terminal.show_table(("", *(heading(result, name) for name in columns)), rows)


def show_seeds(result: Result) -> None:
    """One row per seed, then the summary."""
    names = {"best": "test at best"}
    header, shows, columns = ["seed"], [], []
    for split, found in result.evaluations.items():
        for name, show in columns_of(result, found[0].values()).items():
            header.append(f"{names.get(split, split)} {heading(result, name)}")
            shows.append(show)
            columns.append(result.values(split, name))

    def row(name: str, values: Iterable[float]) -> list[str]:
        return [name, *(show(value) for show, value in zip(shows, values, strict=True))]

    rows = [row(str(seed), values) for seed, *values in zip(result.seeds, *columns, strict=True)]
    summaries = [summarise(column) for column in columns]
    footer = [
        row(name, [getattr(summary, field) for summary in summaries])
        for name, field in (("mean", "mean"), ("std", "std"), ("95% ≥", "low"), ("95% ≤", "high"))
    ]
    terminal.show_table(header, rows, footer=footer)


def sweep_table(found: Sweep) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: a combination each, with its figures on the validation images."""
    metric, several = found.metric, len(found.seeds) > 1
    header = [*found.axes, f"validation {metric.name.replace('_', ' ')}"]
    header += ["std", "95% ≥", "95% ≤"] if several else []
    header += ["loss", ""]
    rows = []
    for k, settings in enumerate(found.settings):
        values, loss = found.values[k], float(found.losses[k].mean())
        summary = found.summary(k)
        figures = [summary.mean, *((summary.std, summary.low, summary.high) if several else ())]
        cells = [metric.shown(figure) if math.isfinite(figure) else "-" for figure in figures]
        diverged = sum(not math.isfinite(value) for value in values)
        remark = f"{diverged} diverged" if diverged else "chosen" if k == found.chosen else ""
        rows.append([*map(shown, settings.values()), *cells, _loss(loss), remark])
    return header, rows


def _loss(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.2e}"
