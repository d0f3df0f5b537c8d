"""Loss and error over training, of one run or of several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPLITS = {"train": (canvas.BLUE, "training"), "validation": (canvas.GREEN, "validation"),
           "test": (canvas.VERMILION, "test")}  # fmt: skip
_PANEL, _LEFT, _BELOW, _ABOVE = 1.45, 0.56, 0.45, 0.27  # inches


def curves(runs: Sequence[Sequence[Mapping[str, Any]]], *, steps_per_epoch: float | None = None) -> Figure:
    """Draws loss and error, after every epoch, on the training, validation and test images.

    Of several runs the mean is a line and the band reaches from the least to the greatest. An axis is logarithmic where
    its values span more than a factor of ten; there an error of 0 leaves it at the bottom.

    Args:
      runs: of each run its records, as `training.records.read_records` gives them.
      steps_per_epoch: to count epochs instead of steps.

    Returns:
      A figure with axes for the loss and for the error in per cent, each with a line for every split recorded.
    """
    figure = canvas.new_figure(2 * _PANEL + _ABOVE + _BELOW + 0.1)
    width = canvas.WIDTH - _LEFT - 2 * canvas.MARGIN
    loss = canvas.place(figure, _LEFT, _ABOVE, width, _PANEL)
    error = canvas.place(figure, _LEFT, _ABOVE + _PANEL + 0.1, width, _PANEL)
    _draw(loss, runs, "loss", steps_per_epoch)
    _draw(error, runs, "error", steps_per_epoch)
    loss.set_ylabel("loss", fontsize=canvas.LABEL)
    error.set_ylabel("error, %", fontsize=canvas.LABEL)
    error.set_xlabel("epochs" if steps_per_epoch else "steps", fontsize=canvas.LABEL)
    loss.tick_params(labelbottom=False)
    if loss.lines:
        loss.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=canvas.LABEL, frameon=False, borderpad=0.1
        )
    return figure


def series(runs: Sequence[Sequence[Mapping[str, Any]]], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One value of a split over the steps that all runs have.

    Args:
      runs: of each run its records.
      split: "train", "validation" or "test".
      name: "loss", or "error" in per cent.

    Returns:
      Steps (T,), ascending, and values (runs, T).
    """

    key, scale, offset = ("loss", 1, 0) if name == "loss" else ("accuracy", -100, 100)
    found = [
        {r["step"]: offset + scale * r[key] for r in records if r.get("split") == split and key in r}
        for records in runs
    ]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    return np.array(steps), np.array([[values[step] for step in steps] for values in found])


def _draw(axes: Axes, runs: Sequence[Sequence[Mapping[str, Any]]], name: str, steps_per_epoch: float | None) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    drawn: list[list[float]] = []
    for split, (colour, label) in _SPLITS.items():
        steps, values = series(runs, split, name)
        if not len(steps):
            continue
        places = steps / (steps_per_epoch or 1)
        # A split measured only at the end is a point.
        axes.plot(places, values.mean(axis=0), color=colour, label=label, linewidth=1.4, marker="." * (len(steps) == 1))
        if len(values) > 1:
            axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.25, linewidth=0)
        drawn.append(values.ravel().tolist())
    positive = [value for values in drawn for value in values if value > 0]
    if positive and max(positive) > 10 * min(positive):
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(min(positive) / 1.3, max(positive) * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(labelsize=canvas.LABEL, length=2, color=canvas.GREY, which="both")
    axes.grid(color=canvas.GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.GREY)
