"""Curves of several runs laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas
from cnn_jax.pictures.curves import draw_band, epochs_after, scale, series, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _LEFT, _BELOW = 1.6, 0.56, 0.45  # inches
LINE = 0.17  # inches that a name takes above the axes
# Of Okabe and Ito 2008; more runs than these take them again, dashed.
COLOURS = (canvas.BLUE, canvas.VERMILION, canvas.GREEN, "#cc79a7", "#e69f00", "#56b4e9", canvas.GREY)
LONG = 48  # columns of a run's name
_FEW = 12  # records up to which each is a point on its line


def curves_of_runs(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    *,
    steps_per_epoch: Mapping[str, float | None] | None = None,
) -> Figure:
    """Draws the training loss of several runs, and their error on images they did not learn from, over the epochs.

    Of a run of several seeds the mean is a line and the band reaches from the least to the greatest. The error is that
    on the validation images where there are any, else on the test images. What is not finite is left out.

    Args:
      runs: by name, of each seed of a run its records, as `runs.records.read_records` gives them.
      steps_per_epoch: by name, to count epochs; all runs count steps unless each has a number.

    Returns:
      A figure with axes for the loss and for the error in per cent, each with a line for every run.
    """
    per_epoch = steps_per_epoch or {}
    in_epochs = all(per_epoch.get(name) for name in runs)
    above = 0.08 + LINE * len(runs)
    figure = canvas.new_figure(2 * _PANEL + above + _BELOW + 0.1)
    width = canvas.WIDTH - _LEFT - 2 * canvas.MARGIN
    loss = canvas.place(figure, _LEFT, above, width, _PANEL)
    error = canvas.place(figure, _LEFT, above + _PANEL + 0.1, width, _PANEL)
    last = 1.0
    for axes, what in ((loss, "loss"), (error, "error")):
        drawn = [np.zeros(0)]
        for k, (name, records) in enumerate(runs.items()):
            split = "train" if what == "loss" else _held_out(records)
            steps, values = series(records, split, what)
            finite = np.isfinite(values).all(axis=0) if len(steps) else np.zeros(0, bool)
            colour, dashed = COLOURS[k % len(COLOURS)], k >= len(COLOURS)
            places = epochs_after(steps, per_epoch[name] or 1.0) if in_epochs else steps
            means = np.where(finite, values.mean(axis=0), np.nan) if finite.any() else np.zeros(0)
            axes.plot(
                places if len(means) else [], means, color=colour, linewidth=1.4, linestyle="--" if dashed else "-",
                label=canvas.short(name, LONG), clip_on=False, zorder=3,
                marker="o" if len(steps) <= _FEW else "", markersize=3.0,
            )  # fmt: skip
            if not finite.any():
                continue
            if len(values) > 1:
                draw_band(axes, places[finite], values[:, finite], colour)
            drawn.append(values[:, finite].ravel())
            last = max(last, float(np.max(places)))
        scale(axes, np.concatenate(drawn))
        style(axes)
    for axes in (loss, error):
        axes.set_xlim(0, 1.03 * last)
    loss.set_ylabel("training loss", fontsize=canvas.LABEL)
    error.set_ylabel("error, %", fontsize=canvas.LABEL)
    error.set_xlabel("epochs" if in_epochs else "steps", fontsize=canvas.LABEL)
    loss.tick_params(labelbottom=False)
    name_lines(loss)
    return figure


def name_lines(axes: Axes) -> None:
    """A legend above the axes, in which names are not read as formulas."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=canvas.SMALL, frameon=False, borderpad=0.1,
        labelspacing=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _held_out(records: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    own = all(any(record.get("split") == "validation" for record in one) for one in records)
    return "validation" if own else "test"
