"""Runs side by side: which options differ, figures with their spread, curves laid over each other."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import parts, pictures
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.report import page, several
from cnn_jax.report.findings import mapping, seeds_of
from cnn_jax.report.write import check_place
from cnn_jax.runs.code import code_of
from cnn_jax.runs.display import duration
from cnn_jax.runs.folder import read_config
from cnn_jax.runs.outputs import write_output
from cnn_jax.runs.records import read_records
from cnn_jax.runs.texts import completed, from_json, kinds
from cnn_jax.training.metrics import Accuracy, CrossEntropy, Metric
from cnn_jax.training.summary import difference, summarise

_IDENTITY = {"name": "data", "version": "data version", "fingerprint": "data fingerprint", "images": "training images"}
_UNREADABLE = (InputError, KeyError, TypeError, ValueError, AttributeError)  # what reading a part may raise


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run that is compared.

    Attributes:
        name: what tables call it.
        path: its folder.
        config: its `config.json`.
        records: of each seed.
    """

    name: str
    path: Path
    config: dict[str, Any]
    records: list[list[dict[str, Any]]]

    @property
    def steps_per_epoch(self) -> float | None:
        """Steps in which every training image is seen once; None where the configuration does not say."""
        images = mapping(self.config.get("data")).get("images")
        batch = mapping(self.config.get("recipe")).get("batch_size")
        return images / batch if isinstance(images, int) and isinstance(batch, int) and images and batch else None

    @property
    def seconds(self) -> float | None:
        """How long training took, all seeds together; None where no epoch has been recorded."""
        found = [record["seconds"] for one in self.records if (record := last(one, "train")) and "seconds" in record]
        return max(found, default=None)

    def values(self, split: str, name: str) -> np.ndarray | None:
        """A figure of each seed in its last record of a split; None where some have none."""
        found = [(last(one, split) or {}).get(name) for one in self.records]
        return None if None in found or not found else np.array(found, np.float64)

    def metrics(self) -> dict[str, Metric]:
        """The run's metrics by name, as far as they can be read."""
        own: dict[str, Metric] = {metric.name: metric for metric in (Accuracy(), CrossEntropy())}
        with contextlib.suppress(*_UNREADABLE):
            read = from_json("metrics", self.config["recipe"]["metrics"], code_of(self.path, self.config))
            own |= {metric.name: metric for metric in read}
        return own


def last(records: Sequence[dict[str, Any]], split: str) -> dict[str, Any] | None:
    """The last record of a split, if there is one."""
    return next((record for record in reversed(records) if record.get("split") == split), None)


def read_sides(paths: Sequence[Path]) -> list[Side]:
    """The runs in some folders.

    Raises:
        InputError: there are fewer than two, or one twice; a folder holds no run, or one of several seeds that is not
            finished.
    """
    if len(paths) < 2:
        raise InputError(f"expected two runs or more to compare, got {len(paths) or 'none'}")
    real = [os.path.realpath(path) for path in paths]
    twice = next((path for path, place in zip(paths, real, strict=True) if real.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"{twice}: expected each run once, got it twice")
    short = [path.name for path in map(Path, real)]
    sides = []
    for path, name in zip(paths, short, strict=True):
        config = read_config(path)
        seeds = several.read_seeds(path, config)
        records = [seed.records for seed in seeds] if seeds else [read_records(path)]
        name = name if short.count(name) == 1 else shown(path)
        sides.append(Side(name=name, path=path, config=config, records=records))
    return sides


def differing(sides: Sequence[Side]) -> list[tuple[str, ...]]:
    """The options in which runs differ: a row each, its name and then every run's value."""
    rows: list[tuple[str, ...]] = []
    own = [completed(mapping(side.config.get("recipe"))) for side in sides]
    for name in dict.fromkeys(name for one in own for name in one):
        texts = [one.get(name) for one in own]
        inner = [_fields(text) for text in texts] if name in kinds() else [None]
        heads = {one[0] if one else None for one in inner}
        if len(heads) == 1 and None not in heads:  # one class: only its fields that differ
            fields = [one[1] if one else {} for one in inner]
            for field in dict.fromkeys(field for one in fields for field in one):
                rows += _row(f"{name}.{field}", [one.get(field, "") for one in fields])
        else:
            rows += _row(name, [_short(name, text, side) for text, side in zip(texts, sides, strict=True)])
    for key, name in _IDENTITY.items():
        rows += _row(name, [mapping(side.config.get("data")).get(key) for side in sides])
    rows += _row("source", [side.config.get("source") for side in sides])
    rows += _row("seeds", [_seeds(side) for side in sides])
    for key in ("execution", "versions", "device"):
        values = [mapping(side.config.get(key)) for side in sides]
        for name in dict.fromkeys(name for one in values for name in one):
            rows += _row(f"{key}.{name}", [one.get(name) for one in values])
    return rows + _row("git_commit", [side.config.get("git_commit") for side in sides])


def figures(sides: Sequence[Side]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, a run each: its last figures on the images it did not learn from, over its seeds.

    The last column is how far the first figure is above that of the first run, with Welch's interval.
    """
    metrics = {name: metric for side in reversed(sides) for name, metric in side.metrics().items()}
    columns = []
    for split in ("test", "validation"):
        names = (name for side in sides for one in side.records for name in last(one, split) or {})
        columns += [(split, name) for name in dict.fromkeys(names) if name not in ("split", "step")]
    columns.sort(key=lambda column: (column[0] != "test", column[1] != "accuracy"))  # accuracy first, in either
    header = ["run", "seeds"]
    for k, (split, name) in enumerate(columns):
        header += [f"{split} {name.replace('_', ' ')}"] + (["95 % interval", "against the first"] if k == 0 else [])
    header.append("training")
    rows = []
    for side in sides:
        cells = [side.name, str(len(side.records))]
        for k, (split, name) in enumerate(columns):
            values, first = side.values(split, name), sides[0].values(split, name)
            is_share = name in metrics and metrics[name].is_share
            found = None if values is None else summarise(values)
            cells.append("-" if found is None else found.text(is_share))
            if k == 0:
                cells.append("-" if found is None else _ends(found.low, found.high, is_share))
                apart = None if values is None or first is None or side is sides[0] else difference(values, first)
                cells.append("" if apart is None else _apart(apart, is_share))
        rows.append([*cells, "-" if side.seconds is None else duration(side.seconds)])
    return header, rows


def write_comparison(sides: Sequence[Side], out: Path) -> Path:
    """Writes what `differing` and `figures` find, with the curves of all runs, as one HTML file.

    Returns:
        The file.

    Raises:
        InputError: it cannot be written, or is one that a run needs.
    """
    check_place(out)
    header, rows = figures(sides)
    differences = differing(sides)
    names = [side.name for side in sides]
    runs = {side.name: side.records for side in sides}
    picture = pictures.curves_of_runs(runs, steps_per_epoch={side.name: side.steps_per_epoch for side in sides})
    caption = (
        "Loss while training, a mean over each epoch, and the share of wrong answers on the validation images, or, of "
        "a run without any, on the test images. Of several seeds the line is the mean and the band reaches from the "
        "best to the worst."
    )
    if len({tuple(str(mapping(side.config.get("data")).get(key)) for key in _IDENTITY) for side in sides}) > 1:
        caption += " These runs learned from different images, so their figures are not of the same task."
    said = (
        "Figures are those of the last step: mean ± standard deviation over the seeds, and the 95 % interval of the "
        "mean. Against the first run: the difference of the means with Welch's interval; one that holds 0 may be luck."
    )
    table = page.table(("option", *names), differences, left=range(len(names) + 1))
    body = [
        page.title(" against ".join(names), ", ".join(shown(side.path) for side in sides)),
        "<main>",
        page.section("Figures", page.table(header, rows), page.paragraph(said)),
        page.section("Learning", page.picture(picture, "Curves of loss and error of all runs.", caption), wide=False),
        page.section("What differs", table if differences else page.paragraph("No option.")),
        "</main>",
    ]
    write_output(out, page.page(" against ".join(names), body))
    return out


def _row(name: str, values: Sequence[Any]) -> list[tuple[str, ...]]:
    texts = tuple("" if value is None else str(value) for value in values)
    return [(name, *texts)] if len(set(texts)) > 1 else []


def _fields(text: Any) -> tuple[str, dict[str, str]] | None:
    """The class that a part's text names, and its fields as they are written; None of several joined, or of none."""
    if not isinstance(text, str):
        return None
    home, _, call = text.rpartition(".py:") if ".py:" in text else ("", "", text)
    with contextlib.suppress(SyntaxError, ValueError):
        node = ast.parse(call.replace(":", ".", 1) if not home and ":" in call.partition("(")[0] else call, mode="eval")
        match node.body:
            case ast.Call(func=function, args=[], keywords=keywords):
                fields = {str(each.arg): ast.unparse(each.value) for each in keywords}
                return f"{home}:{ast.unparse(function)}", fields
    return None


def _short(name: str, text: Any, side: Side) -> Any:
    """The text of a part with only what is not its default, where the part can be read."""
    if name in kinds() and isinstance(text, str):
        with contextlib.suppress(*_UNREADABLE):
            from cnn_jax.models import MODELS

            part = from_json(name, text, code_of(side.path, side.config))
            return parts.short_text(part, MODELS if name == "model" else None)
    return text


def _seeds(side: Side) -> str:
    seeds = seeds_of(side.config)
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else ", ".join(map(str, seeds))


def _ends(low: float, high: float, is_share: bool) -> str:
    if not np.isfinite(low):
        return "-"
    return f"{100 * low:.2f} to {100 * high:.2f} %" if is_share else f"{low:.4f} to {high:.4f}"


def _apart(found: Any, is_share: bool) -> str:
    mean = f"{100 * found.mean:+.2f} %" if is_share else f"{found.mean:+.4f}"
    return f"{mean} ({_ends(found.low, found.high, is_share)})" if np.isfinite(found.low) else mean
