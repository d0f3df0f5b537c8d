"""Boxes: how far two overlap, and which of many on the same thing to keep.

A box is (top, left, bottom, right) in pixels, of edges and not of pixel centres: rows 3 to 5 of an image, whole, run
from top 3 to bottom 6. Its area is (bottom - top) * (right - left), nothing where an edge is on the wrong side.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
    """Areas (...) of boxes (..., 4)."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def intersection(first: jax.Array, second: jax.Array) -> jax.Array:
    """Areas (N, M) that boxes (N, 4) share with boxes (M, 4)."""
    begin = jnp.maximum(first[:, None, :2], second[None, :, :2])
    end = jnp.minimum(first[:, None, 2:], second[None, :, 2:])
    return area(jnp.concatenate([begin, end], axis=-1))


def iou(first: jax.Array, second: jax.Array) -> jax.Array:
    """Intersection over union (N, M), from 0 to 1, of boxes (N, 4) with boxes (M, 4); 0 where both have no area."""
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1.0), 0.0)


def cover(first: jax.Array, second: jax.Array) -> jax.Array:
    """Share (N, M), from 0 to 1, of the smaller box's area that boxes (N, 4) have in common with boxes (M, 4).

    1 where one lies in the other, however small it is; 0 where the smaller has no area.
    """
    smaller = jnp.minimum(area(first)[:, None], area(second)[None, :])
    return intersection(first, second) / jnp.where(smaller > 0, smaller, 1.0)


def non_max_suppression(
    boxes: jax.Array,
    scores: jax.Array,
    threshold: float,
    labels: jax.Array | None = None,
    overlap: Callable[[jax.Array, jax.Array], jax.Array] = iou,
) -> jax.Array:
    """Keeps the boxes that no better one covers: greedily, from the highest score down.

    Args:
        boxes: (N, 4).
        scores: (N,); -inf marks a row that holds no box. Of equal scores the first row comes first.
        threshold: a box goes if its overlap with a box that is kept is above this.
        labels: int (N,) classes; boxes then remove those of their own class only. By default of any.
        overlap: `iou` or `cover`.

    Returns:
        bool (N,), the boxes that are kept.
    """
    if not len(boxes):
        return jnp.zeros(0, bool)
    order = jnp.argsort(-scores, stable=True)
    rivals = overlap(boxes[order], boxes[order]) > threshold
    if labels is not None:
        rivals &= labels[order][:, None] == labels[order][None, :]
    before = jnp.tri(len(boxes), k=-1, dtype=bool)

    def decide(row: jax.Array, kept: jax.Array) -> jax.Array:
        return kept.at[row].set(kept[row] & ~jnp.any(rivals[row] & before[row] & kept))

    kept = jax.lax.fori_loop(0, len(boxes), decide, jnp.isfinite(scores)[order])
    return jnp.zeros(len(boxes), bool).at[order].set(kept)
