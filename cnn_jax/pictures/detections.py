"""What was found in pictures: drawn on them, and hits, misses and false alarms over many scenes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.data.pictures import with_channels
from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnn_jax.detection import Found

_RIGHT, _WRONG = canvas.GREEN, canvas.VERMILION
_MISSED = "#56b4e9"  # the canvas's blue is too dark on black; this is of the same set of colours
_CROPS, _CROP = 6, 56  # places of mistakes in a row, and pixels of a scene that are shown of each
_LINE = 0.15  # inches
_LEGIBLE = 512  # pixels: smaller pictures are enlarged before anything is written on them


def draw_boxes(pixels: np.ndarray, boxes: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Draws boxes on a picture, each with a text above it, or below it at the picture's upper edge.

    Args:
        pixels: uint8 (h, w, 1 or 3). Where the longer side is below 512 pixels, the picture is first enlarged by the
            least whole factor that makes it at least so long.
        boxes: (K, 4), (top, left, bottom, right) in pixels of the picture given.
        texts: of the boxes.

    Returns:
        uint8 (H, W, 3).
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = math.ceil(_LEGIBLE / min(_LEGIBLE, max(pixels.shape[:2])))
    image = Image.fromarray(np.kron(with_channels(pixels, 3), np.ones((factor, factor, 1), np.uint8)))
    draw = ImageDraw.Draw(image)
    line, size = max(2, max(image.size) // 400), max(12, max(image.size) // 45)
    font = ImageFont.load_default(size)
    for box, text in zip(np.rint(factor * np.asarray(boxes)).astype(int).tolist(), texts, strict=True):
        top, left, bottom, right = box
        draw.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=_WRONG, width=line)
        width, height = math.ceil(draw.textlength(text, font)) + 2 * line, size + 2 * line
        x = max(0, min(left - line, image.width - width))
        y = top - line - height if top - line >= height else min(bottom + line, image.height - height)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=_WRONG)
        draw.text((x + line, y + height - line), text, fill="white", font=font, anchor="lb")
    return np.asarray(image)


def detections(found: Found, class_names: Sequence[str], least: float = 0.5) -> Figure:
    """Draws scenes with what was found in them, and below them the surest false alarms and digits that were missed.

    Args:
        found: of `detection.find_in_scenes`.
        class_names: one a class.
        least: the lowest score of a detection that counts.

    Returns:
        A figure of the first four scenes, and of up to six places each of the two kinds of mistakes. Green boxes are
        right, vermilion ones wrong; dashed blue ones are round digits that were missed.
    """
    names = canvas.labels(class_names)
    images, truth, classes = (np.asarray(part) for part in found.scenes[:3])
    boxes, labels, scores = (np.asarray(part) for part in found.detections)
    wrong, missed = np.argwhere((found.hits < 0) & (scores >= least)), np.argwhere(found.missed(least))
    wrong = wrong[np.argsort(-scores[wrong[:, 0], wrong[:, 1]], kind="stable")]
    false_alarms = [
        (images[s], boxes[s, k], f"said {names[labels[s, k]]}\n{scores[s, k]:.0%} sure") for s, k in wrong[:_CROPS]
    ]
    misses = [(images[s], truth[s, k], f"is {names[classes[s, k]]}") for s, k in missed[:_CROPS]]

    width = canvas.WIDTH - 2 * canvas.MARGIN
    tall, low = canvas.grid_height(4, 2, width), canvas.grid_height(_CROPS, _CROPS, width) + 3.6 * _LINE
    figure = canvas.new_figure(2 * canvas.MARGIN + tall + 2 * low)
    _scenes(canvas.place(figure, canvas.MARGIN, canvas.MARGIN, width, tall), found, names, least)
    top = canvas.MARGIN + tall + 0.5 * _LINE
    _mistakes(figure, top, f"false alarms, the surest of {len(wrong):,}", false_alarms, _WRONG)
    _mistakes(figure, top + low, f"missed, the first of {len(missed):,}", misses, _MISSED)
    return figure


def _scenes(axes: Axes, found: Found, names: Sequence[str], least: float) -> None:
    boxes, labels, scores = (np.asarray(part) for part in found.detections)
    images, truth, missed = np.asarray(found.scenes.image[:4]), np.asarray(found.scenes.boxes), found.missed(least)
    canvas.show_grid(axes, [canvas.as_picture(image) for image in images], 2, cmap="gray", vmin=0, vmax=1)
    for scene, image in enumerate(images):
        corner = canvas.tile_corner(scene, 2, 1.0)
        for k in np.flatnonzero(scores[scene] >= least):
            colour = _RIGHT if found.hits[scene, k] >= 0 else _WRONG
            _outline(axes, corner, boxes[scene, k] / len(image), colour, names[labels[scene, k]])
        for k in np.flatnonzero(missed[scene]):
            _outline(axes, corner, truth[scene, k] / len(image), _MISSED)


def _mistakes(
    figure: Figure, top: float, title: str, mistakes: Sequence[tuple[np.ndarray, np.ndarray, str]], colour: str
) -> None:
    """A row of crops out of scenes, round boxes in them, with a title above and a text below each."""
    across, down = figure.get_size_inches()
    figure.text(canvas.MARGIN / across, 1 - top / down, title, va="top", fontsize=canvas.LABEL)
    width = canvas.WIDTH - 2 * canvas.MARGIN
    below = 2.0 * _LINE * (_CROPS * (1 + canvas.GAP) - canvas.GAP) / width
    height = canvas.grid_height(_CROPS, _CROPS, width, below=below)
    axes = canvas.place(figure, canvas.MARGIN, top + 1.2 * _LINE, width, height)
    crops = [np.zeros((_CROP, _CROP, 4))] * _CROPS  # transparent where there are fewer
    for tile, (image, box, text) in enumerate(mistakes):
        middle = np.rint((box[:2] + box[2:]) / 2).astype(int)
        wide = np.pad(image[..., 0], _CROP // 2)
        crops[tile] = wide[middle[0] : middle[0] + _CROP, middle[1] : middle[1] + _CROP] / 255
        corner = canvas.tile_corner(tile, _CROPS, 1.0, below)
        _outline(axes, corner, (box - np.tile(middle - _CROP // 2, 2)) / _CROP, colour)
        axes.text(
            corner[0] + 0.5, 1.05, text,
            ha="center", va="top", fontsize=canvas.SMALL, linespacing=1.1, parse_math=False,
        )  # fmt: skip
    canvas.show_grid(axes, crops, _CROPS, below, cmap="gray", vmin=0, vmax=1)


def _outline(axes: Axes, corner: tuple[float, float], box: np.ndarray, colour: str, text: str = "") -> None:
    """A box, in shares of a tile's side, on the tile at `corner`, and a text above or, at the upper edge, below it."""
    from matplotlib.patches import Rectangle

    top, left, bottom, right = (float(edge) for edge in box)
    x, y = corner[0] + left, corner[1] + top
    style = "--" if colour == _MISSED else "-"
    axes.add_patch(Rectangle((x, y), right - left, bottom - top, fill=False, ec=colour, ls=style, lw=1))
    high = top < 0.08
    axes.text(
        x, corner[1] + bottom if high else y, text,
        color=colour, fontsize=canvas.SMALL, va="top" if high else "bottom", clip_on=True, parse_math=False,
    )  # fmt: skip
