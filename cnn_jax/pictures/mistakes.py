"""The mistakes that a model is surest of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE = 0.15  # inches


def confident_mistakes(
    images: Any, labels: Any, probabilities: Any, class_names: Sequence[str], *, count: int = 12
) -> Figure:
    """Draws the wrongly classified images to whose wrong class the model gives most, the surest first.

    Args:
      images: (N, H, W, C), uint8 or floats.
      labels: whole numbers (N,), the true classes.
      probabilities: (N, classes), of each class.
      class_names: one a class.
      count: most images to show.

    Returns:
      A figure with one tile a mistake; below it its true class, the class it was taken for, and the probability that
      the model gave to that.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    order = worst_mistakes(labels, probabilities)[:count]
    names = canvas.labels(class_names, 12)  # three beside each other have no room for more
    if not len(order):
        figure = canvas.new_figure(0.4)
        figure.text(0.5, 0.5, "no image was classified wrongly", ha="center", va="center", fontsize=canvas.LABEL)
        return figure
    width = canvas.WIDTH - 2 * canvas.MARGIN
    longest = canvas.room([f"said {names[k]}" for k in probabilities[order].argmax(axis=1)], canvas.SMALL)
    fitting = max(3, min(6, int(width / longest)))
    columns = max(3, -(-len(order) // -(-len(order) // fitting)))  # rows of about the same length
    pictures = [canvas.as_picture(images[index]) for index in order]
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    # Room for three lines of text, in tiles' widths.
    below = 3.3 * _LINE * (columns * (1 + canvas.GAP) - canvas.GAP) / width
    height = canvas.grid_height(len(order), columns, width, aspect, below)
    figure = canvas.new_figure(height + 2 * canvas.MARGIN)
    axes = canvas.place(figure, canvas.MARGIN, canvas.MARGIN, width, height)
    canvas.show_grid(axes, pictures, columns, below, cmap="gray", vmin=0, vmax=1)
    for place, index in enumerate(order):
        left, top = canvas.tile_corner(place, columns, aspect, below)
        taken = probabilities[index].argmax()
        text = f"is {names[labels[index]]}\nsaid {names[taken]}\n{probabilities[index, taken]:.0%} sure"
        written = axes.text(
            left + 0.5, top + aspect + 0.05, text,
            ha="center", va="top", fontsize=canvas.SMALL, linespacing=1.15, parse_math=False,
        )  # fmt: skip
        canvas.entitle([written], [f"is {class_names[labels[index]]}, said {class_names[taken]}"])
    return figure


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Indices of the wrongly classified images, the one whose wrong class is given the highest probability first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
