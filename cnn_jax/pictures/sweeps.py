"""What a sweep found: a figure against the number that was swept, or a map of it for two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas
from cnn_jax.pictures.curves import log_ticks
from cnn_jax.training.summary import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT, _LEFT, _BELOW, _ABOVE = 2.2, 0.62, 0.5, 0.12  # inches
_CELL = 0.36  # inches
_DECADE = 9.0  # from this ratio of the greatest to the least, an axis is logarithmic
_LONG = 16  # columns of a text below the axis


def swept(values: Any, places: Sequence[Any], *, name: str, figure_name: str, chosen: int | None = None) -> Figure:
    """Draws a figure of every value that was tried, with its spread over the seeds.

    Where the values are positive numbers that span a factor of ten or so, their axis is logarithmic; where they are no
    numbers, they stand side by side. Dots are seeds, the line joins their means, and the band is the 95 % confidence
    interval of each mean.

    Args:
      values: (tried, seeds); what is not finite is left out.
      places: the values that were tried: numbers, or their texts.
      name: what they are values of.
      figure_name: what the figure is.
      chosen: which of them was chosen, to be marked.

    Returns:
      A figure with one pair of axes.
    """
    values = np.asarray(values, np.float64)
    picture = canvas.new_figure(_HEIGHT + _ABOVE + _BELOW)
    axes = canvas.place(picture, _LEFT, _ABOVE, canvas.WIDTH - _LEFT - 2 * canvas.MARGIN, _HEIGHT)
    is_number = all(type(place) in (int, float) for place in places)
    across = np.array(places, np.float64) if is_number else np.arange(len(places), dtype=np.float64)
    means, lows, highs = _spread(values)
    order = np.argsort(across)
    drawn = order[np.isfinite(means[order])]
    axes.plot(across[drawn], means[drawn], color=canvas.BLUE, linewidth=1.4 if is_number else 0, zorder=3,
              marker="o", markersize=3.5)  # fmt: skip
    banded = drawn[np.isfinite(lows[drawn])]
    if is_number and len(banded) > 1:
        axes.fill_between(across[banded], lows[banded], highs[banded], color=canvas.BLUE, alpha=0.2, linewidth=0)
    else:
        axes.vlines(across[banded], lows[banded], highs[banded], color=canvas.BLUE, alpha=0.3, linewidth=6)
    if values.shape[1] > 1:
        axes.plot(np.repeat(across, values.shape[1]), values.ravel(), ".", color=canvas.GREY, markersize=3, zorder=2)
    if chosen is not None:
        axes.plot(across[chosen], means[chosen], "o", markersize=9, markerfacecolor="none",
                  markeredgecolor=canvas.VERMILION, zorder=4)  # fmt: skip
    if is_number:
        _scale_number(axes, across)
    else:
        axes.set_xticks(across, [canvas.short(str(place), _LONG) for place in places], parse_math=False)
        axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(name, fontsize=canvas.LABEL, parse_math=False)
    axes.set_ylabel(figure_name, fontsize=canvas.LABEL, parse_math=False)
    _plain(axes)
    return picture


def swept_pair(values: Any, places: Sequence[Sequence[Any]], *, names: Sequence[str], figure_name: str) -> Figure:
    """Draws the means over the seeds of a grid of two fields as a map, each written in its cell.

    Args:
      values: (first, second, seeds); a cell with anything not finite is empty.
      places: the values of the first and of the second field, or their texts.
      names: of the two fields.
      figure_name: what the figure is.

    Returns:
      A figure with one pair of axes: the first field goes down, the second across.
    """
    means = np.asarray(values, np.float64).mean(axis=-1)
    texts = [[f"{place:g}" if type(place) is float else str(place) for place in each] for each in places]
    labels = [[canvas.short(text, _LONG) for text in each] for each in texts]
    left = 0.12 + canvas.room(labels[0], canvas.SMALL)
    across = (canvas.WIDTH - left - canvas.MARGIN) / means.shape[1]
    most = max(3, int(across / (canvas.LETTER * canvas.SMALL / 72)) - 1)
    labels[1] = [canvas.short(text, most) for text in texts[1]]
    height = _CELL * max(len(labels[0]), 2)
    picture = canvas.new_figure(height + _BELOW + 0.35)
    axes = canvas.place(picture, left, 0.3, canvas.WIDTH - left - canvas.MARGIN, height)
    axes.imshow(np.ma.masked_invalid(means), cmap="cividis", aspect="auto", interpolation="none")
    low, high = np.nanmin(means), np.nanmax(means)
    size = min(canvas.LABEL, 72 * across / 5)
    for (row, column), mean in np.ndenumerate(means):
        text = f"{mean:.3g}" if np.isfinite(mean) else "-"
        is_bright = mean > (low + high) / 2
        ink = canvas.GREY if text == "-" else "#111111" if is_bright else "white"
        axes.text(column, row, text, ha="center", va="center_baseline", fontsize=size, color=ink)
    axes.set_xticks(range(means.shape[1]), labels[1], fontsize=canvas.SMALL, parse_math=False)
    axes.set_yticks(range(means.shape[0]), labels[0], fontsize=canvas.SMALL, parse_math=False)
    axes.set_xlabel(f"{names[0]} down, {names[1]} across", fontsize=canvas.SMALL, parse_math=False)
    axes.set_title(figure_name, loc="left", fontsize=canvas.LABEL, pad=4, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return picture


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and interval of each row; NaN where a row has a value that is not finite, or a single one."""
    found = [summarise(row) for row in values]
    return (
        np.array([one.mean for one in found]),
        np.array([one.low for one in found]),
        np.array([one.high for one in found]),
    )


def _scale_number(axes: Axes, places: np.ndarray) -> None:
    if places.min() > 0 and places.max() >= _DECADE * places.min():
        axes.set_xscale("log")
        low, high = places.min() / 1.3, places.max() * 1.3
        axes.set_xlim(low, high)
        axes.set_xticks(log_ticks(low, high))
        axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=canvas.SMALL, length=2, color=canvas.GREY, which="both")
    axes.grid(color=canvas.GREY, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(canvas.GREY)
