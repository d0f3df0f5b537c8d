"""Accuracy against the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.pictures import canvas
from cnn_jax.pictures.curves import style
from cnn_jax.pictures.overlay import COLOURS, LINE, LONG, name_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL, _LEFT, _BELOW = 2.0, 0.5, 0.45  # inches


def race(courses: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draws how accurate each of several trainings was after how many seconds.

    Args:
      courses: by name, seconds and accuracies, from 0 to 1, in the order of time. What is not finite is left out.

    Returns:
      A figure with one axes, accuracy in per cent over seconds, and a line for every course.
    """
    above = 0.08 + LINE * len(courses)
    figure = canvas.new_figure(_PANEL + above + _BELOW)
    axes = canvas.place(figure, _LEFT, above, canvas.WIDTH - _LEFT - 2 * canvas.MARGIN, _PANEL)
    last = 0.0
    for k, (name, course) in enumerate(courses.items()):
        points = np.array(course, float).reshape(-1, 2)
        points = points[np.isfinite(points).all(axis=1)]
        axes.plot(
            points[:, 0], 100 * points[:, 1], color=COLOURS[k % len(COLOURS)], linewidth=1.4, marker="o",
            markersize=3.0, label=canvas.short(name, LONG), clip_on=False, zorder=3,
        )  # fmt: skip
        last = max([last, *points[:, 0]])
    style(axes)
    axes.set_xlim(0, 1.03 * last or 1.0)
    axes.set_xlabel("seconds", fontsize=canvas.LABEL)
    axes.set_ylabel("test accuracy, %", fontsize=canvas.LABEL)
    name_lines(axes)
    return figure
