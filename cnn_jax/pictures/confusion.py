"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERED = 12  # most classes with counts in the cells
_NAMED = 30  # most classes with names at the edges


def confusion_matrix(confusion: Any, class_names: Sequence[str]) -> Figure:
    """Draws how many images of each class (row) were taken for which (column).

    Right answers, on the diagonal, are blue: the deeper, the greater their share of the class. Mistakes are orange,
    and the most frequent one, as a share of its class, is the deepest, so that rare mistakes can be seen beside many
    right answers. Up to 12 classes have their counts written in the cells, up to 30 their names at the edges.

    Args:
      confusion: whole numbers (classes, classes).
      class_names: one a class.

    Returns:
      A figure whose image is RGBA (classes, classes, 4), transparent where the count is 0.

    Raises:
      ValueError: the shape does not fit the names.
    """
    confusion = np.asarray(confusion)
    count = len(class_names)
    if confusion.shape != (count, count):
        raise ValueError(f"confusion_matrix: expected counts ({count}, {count}), got shape {confusion.shape}")
    labels = canvas.labels(class_names) if count <= _NAMED else []
    font = canvas.LABEL if count <= _NUMBERED else 6
    room = canvas.room(labels, font) + 0.08
    turned = max(map(canvas.columns, labels), default=0) > 3
    left, below = 0.2 + room, 0.2 + (room if turned else 0.18)
    side = canvas.WIDTH - left - canvas.MARGIN
    figure = canvas.new_figure(side + below + 2 * canvas.MARGIN)
    axes = canvas.place(figure, left, canvas.MARGIN, side, side)
    colours, depth = _colours(confusion)
    axes.imshow(colours, interpolation="none")
    if count <= _NUMBERED:
        for row, column in np.argwhere(confusion):
            ink = "white" if depth[row, column] > 0.55 else None
            text = f"{confusion[row, column]:,}"
            size = min(canvas.LABEL, 72 * side / count / len(text) / 0.7)
            axes.text(column, row, text, ha="center", va="center_baseline", fontsize=size, color=ink)
    axes.set_xticks(range(len(labels)), labels, fontsize=font, rotation=90 if turned else 0, parse_math=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=font, parse_math=False)
    for axis in (axes.xaxis, axes.yaxis):
        canvas.entitle(axis.get_ticklabels(), class_names)
    axes.set_xlabel("taken for", fontsize=canvas.LABEL)
    axes.set_ylabel("is", fontsize=canvas.LABEL)
    axes.tick_params(length=0)
    axes.spines[:].set_color(canvas.GREY)
    return figure


def most_frequent(confusion: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """The pairs (true class, class taken for it) of the most frequent mistakes, at most `limit`, the worst first."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    return [(int(index) // len(wrong), int(index) % len(wrong)) for index in order if wrong.flat[index]]


def _colours(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGBA for each cell, and how deep its colour is, from 0 to 1."""
    from matplotlib.colors import to_rgb

    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(confusion), dtype=bool)
    worst = share[~right].max(initial=0.0) or 1.0
    # Square roots lift what is rare; any mistake at all can be told from none.
    depth = np.where(right, share, 0.25 + 0.75 * np.sqrt(share / worst)) * (confusion > 0)
    colours = np.where(right[..., None], to_rgb(canvas.BLUE), to_rgb(canvas.VERMILION))
    return np.concatenate([colours, depth[..., None]], axis=-1), depth
