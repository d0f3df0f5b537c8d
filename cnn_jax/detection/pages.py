"""Finding digits in pictures as people have them: of any size and colour, dark on light or light on dark."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import data
from cnn_jax.data.drawings import lift_ink, light_on_dark
from cnn_jax.data.pictures import on_paper, with_channels
from cnn_jax.detection.finding import Detections, best_on_each, candidates, margins
from cnn_jax.detection.runs import check_finds
from cnn_jax.detection.sweep import pyramid, stride_of
from cnn_jax.runs.load import Run

_LONGEST = 1024  # pixels: larger pictures are brought down to this
_SMALLEST = 14  # pixels: digits less long are not looked for
_STROKE = 2.0  # pixels: strokes are at least so wide at the scale at which they are looked at; MNIST's are 2 to 4
_CELLS = 32  # windows of a tile, down and across
_ROUND = 256  # rows; detections are filled up to a multiple of it


def find_in_picture(run: Run, pixels: np.ndarray, least: float) -> Detections:
    """Finds digits in a picture.

    What is drawn is separated from its paper by `data.drawings.lift_ink`; pictures longer than 1024 pixels are scaled
    down to that. Digits are looked for from 14 pixels up to the picture's shorter side. Where strokes would be thinner
    than the training digits' at some scale, they are widened for it.

    Args:
        run: whose last class is the background.
        pixels: uint8 (h, w, channels): grey, grey and alpha, RGB, or RGB and alpha.
        least: the lowest score of a detection.

    Returns:
        NumPy arrays of one row a detection, the best first; boxes are in pixels of the picture given.

    Raises:
        InputError: the run has no background class, or is not on drawings.
    """
    check_finds(run)
    ink, _ = lift_ink(light_on_dark(with_channels(on_paper(pixels), 1)[..., 0]), _LONGEST)
    side, stride = run.input_size[0], stride_of(run.model)
    found = []
    for factor in pyramid(_SMALLEST, max(min(ink.shape), 2 * _SMALLEST), side):
        level = _level(ink, factor)
        unit = np.tile(np.divide(pixels.shape[:2], level.shape), 2)  # pixels of the picture to one of the level
        for corner, tile in _tiles(level, side, stride):
            boxes, labels, scores = jax.device_get(_candidates(run.model, run.statistics, run.variables, tile))
            kept = scores >= least
            found.append((unit * (boxes[kept] + np.tile(corner, 2)), labels[kept], scores[kept]))
    boxes, labels, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    empty = (0, -len(scores) % _ROUND)
    padded = np.pad(boxes, (empty, (0, 0))), np.pad(labels, empty), np.pad(scores, empty, constant_values=-np.inf)
    boxes, labels, scores = jax.device_get(_best_on_each(*padded, least))
    there = np.isfinite(scores)
    boxes = np.clip(boxes[there], 0, np.tile(pixels.shape[:2], 2))
    return Detections(boxes, labels[there], scores[there])


@jax.jit
def _best_on_each(boxes: jax.Array, labels: jax.Array, scores: jax.Array, least: float) -> Detections:
    return best_on_each(Detections(boxes, labels, scores), least)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _candidates(model: nn.Module, statistics: data.Statistics, variables: Any, tile: jax.Array) -> Detections:
    return candidates(model, variables, statistics, tile)


def _level(ink: np.ndarray, factor: float) -> np.ndarray:
    """What is drawn, (H, W) from 0 to 1, resized by a factor, its strokes wide enough: float32 (h, w) from 0 to 255."""
    from PIL import Image
    from scipy import ndimage

    # Half the width is the greatest distance from the edge; the mean distance over a stroke is half of that.
    inside = ndimage.distance_transform_edt(ink >= 0.5)
    width = max(1.0, 4 * inside[ink >= 0.5].mean() - 2) if (ink >= 0.5).any() else 1.0
    missing = (_STROKE / factor - width) / 2
    if missing > 0:
        ink = np.maximum(ink, np.clip(missing + 1 - ndimage.distance_transform_edt(ink < 0.5), 0, 1))
    size = [max(1, round(length * factor)) for length in reversed(ink.shape)]
    image = Image.fromarray(255 * ink.astype(np.float32))
    return np.asarray(image.resize((size[0], size[1]), Image.Resampling.BILINEAR))


def _tiles(level: np.ndarray, side: int, stride: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cuts a level up for the sweep, each window being in one of the tiles.

    All tiles are of one size, so that one compiled program serves pictures of all sizes.

    Yields:
        The upper left corner (2,) of a tile in the level, and the tile, float32 (T, T).
    """
    step = stride * _CELLS
    extent = step - stride + side
    wide = np.pad(level, [margins(length, side, stride) for length in level.shape])
    counts = [max(1, -(-(length - extent) // step) + 1) for length in wide.shape]
    lengths = [extent + step * (count - 1) for count in counts]
    wide = np.pad(wide, [(0, length - own) for length, own in zip(lengths, wide.shape, strict=True)])
    for row, column in np.ndindex(*counts):
        corner = step * np.array([row, column])
        yield corner - side // 2, wide[corner[0] : corner[0] + extent, corner[1] : corner[1] + extent]
