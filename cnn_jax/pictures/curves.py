"""Loss and error over training, of one run or of several seeds."""

from __future__ import annotations

import math
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
_FEW = 12  # records of a split up to which each is a point on its line
_TICKS = 7  # most numbers on a logarithmic axis


def curves(runs: Sequence[Sequence[Mapping[str, Any]]], *, steps_per_epoch: float | None = None) -> Figure:
    """Draws loss and error, after every epoch, on the training, validation and test images.

    Of several runs the mean is a line and the band reaches from the least to the greatest. An axis whose positive
    values span more than a factor of ten is logarithmic; where there are zeros too, as of an error that is gone, it
    goes on below the least positive value, evenly, to 0. What is not finite is left out, and said. Where labels were
    smoothed, the cross-entropy without that is a dashed line of its split, if it was recorded.

    Args:
      runs: of each run its records, as `runs.records.read_records` gives them.
      steps_per_epoch: to count epochs instead of steps.

    Returns:
      A figure with axes for the loss and for the error in per cent, each with a line for every split recorded.
    """
    figure = canvas.new_figure(2 * _PANEL + _ABOVE + _BELOW + 0.1)
    width = canvas.WIDTH - _LEFT - 2 * canvas.MARGIN
    loss = canvas.place(figure, _LEFT, _ABOVE, width, _PANEL)
    error = canvas.place(figure, _LEFT, _ABOVE + _PANEL + 0.1, width, _PANEL)
    _draw(loss, runs, ("loss", "cross_entropy"), steps_per_epoch)
    _draw(error, runs, ("error",), steps_per_epoch)
    # One scale of steps for both, from the start, also where they hold a single point.
    last = max((np.asarray(line.get_xdata()).max() for axes in (loss, error) for line in axes.lines), default=1.0)
    for axes in (loss, error):
        axes.set_xlim(0, 1.03 * max(last, 1.0))
    loss.set_ylabel("loss", fontsize=canvas.LABEL)
    error.set_ylabel("error, %", fontsize=canvas.LABEL)
    error.set_xlabel("epochs" if steps_per_epoch else "steps", fontsize=canvas.LABEL)
    loss.tick_params(labelbottom=False)
    if loss.get_legend_handles_labels()[0]:
        loss.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=canvas.LABEL, frameon=False, borderpad=0.1
        )
    return figure


def series(runs: Sequence[Sequence[Mapping[str, Any]]], split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One value of a split over the steps that all runs have.

    Args:
      runs: of each run its records.
      split: "train", "validation" or "test".
      name: "loss", "cross_entropy", or "error" in per cent.

    Returns:
      Steps (T,), ascending, and values (runs, T).
    """
    key, scale, offset = ("accuracy", -100, 100) if name == "error" else (name, 1, 0)
    found = [
        {r["step"]: offset + scale * r[key] for r in records if r.get("split") == split and key in r}
        for records in runs
    ]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    values = np.array([[of_run[step] for step in steps] for of_run in found])
    return np.array(steps), np.maximum(values, 0.0) if name == "error" else values


def epochs_after(steps: Any, steps_per_epoch: float) -> np.ndarray:
    """Epochs in that many steps. The step that ends an epoch may reach into the next, which does not count."""
    epochs = np.asarray(steps) / steps_per_epoch
    return np.where((epochs - np.floor(epochs)) * steps_per_epoch < 1, np.floor(epochs), epochs)


def _draw(
    axes: Axes, runs: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str], steps_per_epoch: float | None
) -> None:
    """Draws what the names say, the first with whole lines and the others with dashed ones."""
    drawn, lost = [np.zeros(0)], 0
    for split, (colour, label) in _SPLITS.items():
        for name in names:
            steps, values = series(runs, split, name)
            finite = np.isfinite(values).all(axis=0) if len(steps) else np.zeros(0, bool)
            lost += int(np.count_nonzero(~finite))
            if not finite.any():
                continue
            places = epochs_after(steps, steps_per_epoch) if steps_per_epoch else steps
            dashed = name != names[0]
            # A gap where it is not finite. Not clipped: at the edge of the axes half of a line would be.
            axes.plot(
                places, np.where(finite, values.mean(axis=0), np.nan), color=colour, linewidth=1.0 if dashed else 1.4,
                linestyle="--" if dashed else "-", label="_" if dashed else label, clip_on=False, zorder=3,
                marker="o" if len(steps) <= _FEW and not dashed else "", markersize=3.0,
            )  # fmt: skip
            if len(values) > 1 and not dashed:
                draw_band(axes, places[finite], values[:, finite], colour)
            drawn.append(values[:, finite].ravel())
    scale(axes, np.concatenate(drawn))
    if lost:
        axes.text(0.5, 0.97, "not finite where the line is missing", transform=axes.transAxes, ha="center", va="top",
                  fontsize=canvas.SMALL)  # fmt: skip
    style(axes)


def style(axes: Axes) -> None:
    """Axes of curves over steps or epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=canvas.LABEL, length=2, color=canvas.GREY, which="both")
    axes.grid(color=canvas.GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.GREY)


def draw_band(axes: Axes, places: np.ndarray, values: np.ndarray, colour: str) -> None:
    """From the least to the greatest of values (runs, T) at their places (T,)."""
    low, high = values.min(axis=0), values.max(axis=0)
    if len(places) == 1:  # A band of no width would not be seen.
        axes.vlines(places, low, high, color=colour, alpha=0.25, linewidth=6)
    else:
        axes.fill_between(places, low, high, color=colour, alpha=0.25, linewidth=0)


def scale(axes: Axes, values: np.ndarray) -> None:
    """Sets the vertical scale by all finite values."""
    if not len(values):
        axes.set_yticks([])
        return
    least, greatest = values.min(), values.max()
    positive = values[values > 0]
    if least < 0 or not len(positive) or greatest <= 10 * positive.min():
        low, high = axes.get_ylim()
        axes.set_ylim(low if least < 0 else max(low, 0.0), high)  # neither loss nor error goes below 0 by the margin
        return
    low = positive.min()
    if least == 0:
        axes.set_yscale("symlog", linthresh=low, linscale=0.4)
    else:
        axes.set_yscale("log")
    axes.set_ylim(0.0 if least == 0 else low / 1.3, greatest * 1.3)
    ticks = log_ticks(low / 1.001, greatest * 1.3)
    axes.set_yticks([0.0, *ticks] if least == 0 else ticks)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_yticks([], minor=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, both positive, for a logarithmic axis: as many as can be read, some seven."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _TICKS:
            return ticks
    return ticks[:: -(-len(ticks) // _TICKS)]
