"""What a detector leaves in the folder of its run, and how it is read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_jax.files import write_file

FIGURES, PICTURE = "detection.json", "detections.png"
FILES = (FIGURES, PICTURE)


def write_results(path: Path, figures: Mapping[str, Any], picture: bytes) -> Path:
    """Writes `figures` and a picture of scenes, as PNG, into the folder of a run; returns where the picture is.

    Raises:
        InputError: they cannot be written.
    """
    write_file(path / FIGURES, json.dumps(figures, indent=2) + "\n")
    write_file(path / PICTURE, picture)
    return path / PICTURE


def read_figures(path: Path) -> dict[str, Any] | None:
    """The `figures` recorded in the folder of a run; None where there are none, or they are damaged."""
    try:
        figures = json.loads((path / FIGURES).read_text())
        counts = [figures[name] for name in ("scenes", "digits", "iou", "least")]
        shares = [figures[name] for name in ("mean_average_precision", "precision", "recall")]
        counts += [one["digits"] for one in figures["classes"]]
        shares += [one[name] for one in figures["classes"] for name in ("average_precision", "precision", "recall")]
        names = [one["name"] for one in figures["classes"]]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    shares = [share for share in shares if share is not None]
    is_sound = all(isinstance(value, int | float) for value in counts + shares)
    return figures if is_sound and all(isinstance(name, str) for name in names) else None
