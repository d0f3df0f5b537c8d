"""What a report says about a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnn_jax import detection, pictures
from cnn_jax.report import page

_MEANING = (
    "A box is right if it covers a digit of its class with an intersection over union of at least {iou:g}, and no "
    "surer box does. Precision: of the boxes with a score of at least {least:g}, how many are right. Recall: of the "
    "digits, how many such boxes found. Average precision takes all scores: the area under precision over recall."
)
_WINDOWS = "All that follows is about single windows cut out of such scenes, which the network learned from."
_CAPTION = (
    "Scenes made of test digits, with the boxes that score at least {least:g}: green is right, orange is wrong, and "
    "dashed blue marks what was missed. Below are the most confident false alarms and some digits missed in "
    "{count:,} scenes."
)


def headline(figures: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The large figures at the top, from `detection.figures`."""
    remark = (
        f"mean over the classes, of {figures['digits']:,} digits in {figures['scenes']:,} scenes; from a score of "
        f"{figures['least']:g} on, precision {share(figures['precision'])}, recall {share(figures['recall'])}"
    )
    return {"average precision": (share(figures["mean_average_precision"]), remark)}


def scenes(detected: detection.Found, figures: Mapping[str, Any], class_names: tuple[str, ...]) -> str:
    """Scenes with the boxes found in them, and a table of what there is to find."""
    least, iou = figures["least"], figures["iou"]
    picture = page.picture(
        pictures.detections(detected, class_names, least),
        "Four scenes with boxes round what was found in them, false alarms, and digits that were missed.",
        _CAPTION.format(least=least, count=len(detected.hits)),
    )
    shares = ("average_precision", "precision", "recall")
    together = {"name": "all", "average_precision": figures["mean_average_precision"], **figures}
    rows = [
        (one["name"], f"{one['digits']:,}", *(share(one[key]) for key in shares))
        for one in (*figures["classes"], together)
    ]
    table = page.table(("digit", "in scenes", "average precision", "precision", "recall"), rows[:-1], rows[-1])
    words = page.paragraph(_MEANING.format(iou=iou, least=least)), page.paragraph(_WINDOWS)
    return page.section("What it finds", page.side_by_side(picture, "\n".join((table, *words))))


def share(value: float | None) -> str:
    """A share in per cent; a dash where it is not defined."""
    return "\N{EN DASH}" if value is None else f"{value:.2%}"
