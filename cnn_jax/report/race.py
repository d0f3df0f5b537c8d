"""The section of a run that another program was trained beside: how far both had come after how many seconds."""

from __future__ import annotations

import json
from pathlib import Path

from cnn_jax import pictures
from cnn_jax.report import page
from cnn_jax.report.findings import Findings
from cnn_jax.runs.folder import YARDSTICK

Course = list[tuple[float, float]]
"""Seconds, and the test accuracy after them."""


def read_yardstick(path: Path) -> tuple[str, Course] | None:
    """Name and course of what was trained beside the run in a folder; None if nothing was, or it is damaged."""
    try:
        found = json.loads((path / YARDSTICK).read_text())
        return str(found["name"]), [(float(seconds), float(accuracy)) for seconds, accuracy in found["course"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None


def course(found: Findings) -> Course:
    """That of the run itself, by its records: an epoch's seconds end before its own evaluation."""
    seconds = {r["step"]: r["seconds"] for r in found.records if r.get("split") == "train" and "seconds" in r}
    tested = [r for r in found.records if r.get("split") == "test" and r["step"] in seconds and "accuracy" in r]
    return [(seconds[record["step"]], record["accuracy"]) for record in tested]


def section(found: Findings, path: Path) -> str:
    """Accuracy over seconds of both; nothing where nothing was trained beside the run in the folder `path`."""
    yardstick = read_yardstick(path)
    if yardstick is None or not (own := course(found)):
        return ""
    name, theirs = yardstick
    figure = pictures.race({"this run": own, name: theirs})
    caption = (
        f"Test accuracy after each epoch over the seconds since training began, of this run and of {name}, one after "
        "the other on the same machine. Compiling and the evaluations of earlier epochs are in the seconds of both."
    )
    return page.section("The race", page.picture(figure, "Curves of accuracy over seconds.", caption), wide=False)
