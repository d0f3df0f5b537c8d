"""The digits that a network finds in a picture: peaks of its scores at several scales, boxes, the best of those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import data
from cnn_jax.detection.boxes import cover, non_max_suppression
from cnn_jax.detection.ink import middle_box
from cnn_jax.detection.resampling import cut, paper
from cnn_jax.detection.sweep import side_of, stride_of, sweep
from cnn_jax.detection.windows import EXTENT, middle_and_length, shows

_SAME = 0.3  # intersection over union above which two boxes of one class are on one digit
_INSIDE = 0.6  # share of the smaller box above which two boxes of any classes are: one is on a part, or on both
_WINDOWS_A_PEAK = 32  # of a grid, one in so many windows can be a candidate: digits side by side take more room
_FEWEST = 16


class Detections(NamedTuple):
    """What was found in a picture; K rows, the best first where nothing else is said.

    Attributes:
        boxes: float32 (K, 4), (top, left, bottom, right) in pixels of the picture.
        labels: int32 (K,).
        scores: float32 (K,), from 0 to 1 as `candidates` says; -inf where a row holds nothing.
    """

    boxes: jax.Array
    labels: jax.Array
    scores: jax.Array


def candidates(model: nn.Module, variables: Any, statistics: data.Statistics, image: jax.Array) -> Detections:
    """Looks for digits in an image twice, at one scale.

    First the network is swept over the image: of all its windows, a candidate is where no neighbour among the eight on
    the grid has a likelier class other than the background. The box of a candidate is that of the ink in its middle
    (`middle_box`); it must lie there and be as large as a digit's, at twice the tolerances of the training windows.
    Then the network looks again, at a window with that box in its middle and at its right size, which the grid and the
    scales need not have. The second look gives the label; the score is the geometric mean of the highest probabilities
    of both.

    Args:
        model: of the things to find, and last the background; its `input_size` is a square.
        variables: of the model.
        statistics: by which the model's inputs are normalised.
        image: float (H, W) from 0 to 255, light on dark, at least as large as a window. Windows do not go beyond it.

    Returns:
        A row for each of so many windows with the highest probabilities, in pixels of the image, in no order.
    """
    side, stride = side_of(model), stride_of(model)

    def probabilities(images: jax.Array) -> jax.Array:
        return jax.nn.softmax(sweep(model, variables, data.normalise(images[..., None], statistics)))[..., :-1]

    best = jnp.max(probabilities(image[None])[0], axis=-1)
    around = jax.lax.reduce_window(best, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
    count = min(best.size, max(_FEWEST, best.size // _WINDOWS_A_PEAK))
    highest, index = jax.lax.top_k(jnp.where(best >= around, best, -jnp.inf).ravel(), count)
    corners = stride * jnp.stack(jnp.unravel_index(index, best.shape), axis=1)

    windows = jax.vmap(lambda corner: jax.lax.dynamic_slice(image, corner, (side, side)))(corners)
    boxes = jax.vmap(middle_box)(windows)
    fits = shows(boxes, jnp.float32(1), jnp.full(2, side / 2), side, slack=2.0)
    boxes += jnp.tile(corners, 2)
    middles, lengths = middle_and_length(boxes)
    windows = jax.vmap(lambda size, middle: cut(image, side, size, middle))(EXTENT * side / lengths, middles)
    again = probabilities(windows)[:, 0, 0]
    # A digit is one at both looks; either alone takes more of what only happens to look like one.
    both = jnp.sqrt(jnp.maximum(highest, 0.0) * jnp.max(again, axis=-1))
    scores = jnp.where(jnp.isfinite(highest) & fits, both, -jnp.inf)
    return Detections(boxes, jnp.argmax(again, axis=-1).astype(jnp.int32), scores)


def best_on_each(found: Detections, least: float) -> Detections:
    """Leaves out candidates with a score below `least`, and those whose box is on the same digit as a better one's.

    First within each class, by intersection over union; then across classes, by the share of the smaller box, since at
    some scale a part of a digit looks like another. Rows are sorted, the best first.
    """
    scores = jnp.where(found.scores >= least, found.scores, -jnp.inf)
    scores = jnp.where(non_max_suppression(found.boxes, scores, _SAME, found.labels), scores, -jnp.inf)
    scores = jnp.where(non_max_suppression(found.boxes, scores, _INSIDE, overlap=cover), scores, -jnp.inf)
    order = jnp.argsort(-scores, stable=True)
    return Detections(found.boxes[order], found.labels[order], scores[order])


def find(
    model: nn.Module,
    variables: Any,
    statistics: data.Statistics,
    image: jax.Array,
    factors: Sequence[float],
    least: float = 0.05,
) -> Detections:
    """Finds digits in a picture, as a pure function of arrays: `candidates` at every scale, the best one on each digit.

    Windows may reach beyond the picture by half their side, where its `paper` goes on.

    Args:
        model, variables, statistics: as for `candidates`.
        image: uint8 (H, W, 1), light on dark.
        factors: to resize the picture by, from `pyramid`.
        least: the lowest score of a detection.
    """
    shape, side, stride = image.shape[:2], side_of(model), stride_of(model)
    picture = image[..., 0].astype(jnp.float32)
    found = []
    for factor in factors:
        sizes = [max(1, round(length * factor)) for length in shape]
        level = jax.image.resize(picture, sizes, "linear", antialias=True)
        wide = jnp.pad(level, [margins(size, side, stride) for size in sizes], constant_values=paper(level))
        boxes, labels, scores = candidates(model, variables, statistics, wide)
        own = jnp.array([size / length for size, length in zip(sizes, shape, strict=True)])
        found.append(Detections((boxes - side // 2) / jnp.tile(own, 2), labels, scores))
    return best_on_each(Detections(*(jnp.concatenate(parts) for parts in zip(*found, strict=True))), least)


def margins(length: int, side: int, stride: int) -> tuple[int, int]:
    """Pixels to add before and after `length` so that windows are centred on 0, stride, ... up to or past the end."""
    return side // 2, side - side // 2 + -length % stride
