"""How good detections are: which of them are right, and the average precision of a class.

The convention is that of PASCAL VOC from 2010 on (Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC)
Challenge", section 4.2, but with the area under the whole curve instead of eleven points of it).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.detection.boxes import iou


def match(
    boxes: jax.Array,
    labels: jax.Array,
    scores: jax.Array,
    true_boxes: jax.Array,
    true_labels: jax.Array,
    true_valid: jax.Array,
    threshold: float = 0.5,
) -> jax.Array:
    """Says of the detections in one image which are right.

    From the highest score down, each detection looks for the box of its own class that it overlaps most. It is right
    if their intersection over union is at least `threshold` and no detection before it took that box; a second
    detection of one thing is wrong.

    Args:
        boxes: (N, 4).
        labels: int (N,).
        scores: (N,); -inf marks a row that holds no detection.
        true_boxes: (M, 4).
        true_labels: int (M,).
        true_valid: bool (M,); False marks a row that holds no box.
        threshold: above 0.

    Returns:
        int (N,): the row of the true box that each right detection found, -1 for wrong ones and empty rows.
    """
    if not len(boxes) or not len(true_boxes):
        return jnp.full(len(boxes), -1)
    overlaps = jnp.where((labels[:, None] == true_labels) & true_valid, iou(boxes, true_boxes), 0.0)
    candidates = jnp.where(jnp.isfinite(scores), jnp.max(overlaps, axis=1), 0.0) >= threshold
    nearest = jnp.argmax(overlaps, axis=1)

    def take(taken: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        hit = candidates[row] & ~taken[nearest[row]]
        return taken.at[nearest[row]].max(hit), jnp.where(hit, nearest[row], -1)

    order = jnp.argsort(-scores, stable=True)
    _, found = jax.lax.scan(take, jnp.zeros(len(true_boxes), bool), order)
    return jnp.zeros(len(boxes), found.dtype).at[order].set(found)


def precision_recall(scores: np.ndarray, hits: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of the detections of a class as the least score that counts goes down.

    Args:
        scores: (N,), finite.
        hits: bool (N,), which detections are right.
        total: how many things there were to find.

    Returns:
        float64 (K,) each, one entry for each different score, from the highest: detections of equal scores count
        together, since no threshold tells them apart. Recall is NaN where `total` is 0.
    """
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order], dtype=np.float64)
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    with np.errstate(invalid="ignore", divide="ignore"):
        return right[last] / (last + 1), right[last] / np.float64(total)


def average_precision(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    """Area under the precision-recall curve of a class, precision at a recall being the best at that recall or more.

    Arguments as `precision_recall`. 0 where nothing was detected, NaN where there was nothing to find.
    """
    if not total:
        return float("nan")
    precision, recall = precision_recall(scores, hits, total)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best_from_here))
