"""A batch as the network is shown it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax import data
from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE = 0.15  # inches
_NAMED = 2  # classes of a target


def batch(
    images: Any,
    targets: Any,
    class_names: Sequence[str],
    *,
    statistics: data.Statistics | None = None,
    count: int = 24,
) -> Figure:
    """Draws the first images of a batch with what they are to be taken for, as `training.see` gives both.

    Args:
      images: (N, H, W, C), uint8 or floats.
      targets: (N, classes), each row a distribution; or whole numbers (N,), the classes themselves.
      class_names: one a class.
      statistics: what floats were normalised by: they are then shown in their own colours, those outside the range of
        pixels at its ends. By default each image is stretched over that range.
      count: most images to show.

    Returns:
      A figure with one tile an image; below it its class, or of a mixed one the two classes with the largest shares,
      and these.
    """
    images, targets = np.asarray(images)[:count], np.asarray(targets)[:count]
    if targets.ndim == 1:
        targets = np.eye(len(class_names))[targets]
    if statistics is not None and images.dtype != np.uint8:
        images = data.to_pixels(images, statistics)
    pictures = [canvas.as_picture(image) for image in images]
    lines = [_lines(target, canvas.labels(class_names, 10)) for target in targets]
    width = canvas.WIDTH - 2 * canvas.MARGIN
    longest = canvas.room((line for each in lines for line in each), canvas.SMALL)
    columns = max(3, min(8, len(pictures), int(width / longest)))
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    # Room for the lines of text, in tiles' widths.
    below = (max(map(len, lines)) + 0.3) * _LINE * (columns * (1 + canvas.GAP) - canvas.GAP) / width
    height = canvas.grid_height(len(pictures), columns, width, aspect, below)
    figure = canvas.new_figure(height + 2 * canvas.MARGIN)
    axes = canvas.place(figure, canvas.MARGIN, canvas.MARGIN, width, height)
    canvas.show_grid(axes, pictures, columns, below, cmap="gray", vmin=0, vmax=1)
    for place, target in enumerate(targets):
        left, top = canvas.tile_corner(place, columns, aspect, below)
        written = axes.text(
            left + 0.5, top + aspect + 0.05, "\n".join(lines[place]),
            ha="center", va="top", fontsize=canvas.SMALL, linespacing=1.15, parse_math=False,
        )  # fmt: skip
        canvas.entitle([written], [", ".join(_lines(target, class_names, len(class_names)))])
    return figure


def _lines(target: np.ndarray, names: Sequence[str], most: int = _NAMED) -> list[str]:
    """The classes with the largest shares, one a line, without those of which there is not half a percent."""
    order = np.argsort(-target, kind="stable")[:most]
    if target[order[0]] >= 0.995:
        return [names[order[0]]]
    return [f"{names[k]} {target[k]:.0%}" for k in order if target[k] >= 0.005]
