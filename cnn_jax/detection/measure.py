"""How well a network finds digits: what it finds in scenes, and the figures of that."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.detection.finding import Detections, find
from cnn_jax.detection.precision import average_precision, match
from cnn_jax.detection.scenes import Scene, SceneConfig, make_scene
from cnn_jax.detection.sweep import pyramid, side_of
from cnn_jax.detection.windows import EXTENT

IOU = 0.5  # of a box with the true one, for it to be right
SURE = 0.5  # probability from which a detection is shown to a user
_CHUNK = 32  # scenes at a time


@dataclass(frozen=True, kw_only=True)
class Found:
    """Scenes and what was found in them, as NumPy arrays: S scenes of up to M digits, with up to K detections.

    Attributes:
        scenes: with a leading axis S.
        detections: likewise.
        hits: int (S, K), the row of the digit that a detection found, -1 for false alarms and empty rows.
    """

    scenes: Scene
    detections: Detections
    hits: np.ndarray

    def missed(self, least: float) -> np.ndarray:
        """bool (S, M), the digits that no detection of at least this score found."""
        missed = np.array(self.scenes.valid)
        scene, row = np.nonzero((self.hits >= 0) & (self.detections.scores >= least))
        missed[scene, self.hits[scene, row]] = False
        return missed


def find_in_scenes(
    model: nn.Module,
    variables: Any,
    statistics: data.Statistics,
    digits: data.Dataset,
    key: jax.Array,
    count: int,
    config: SceneConfig,
) -> Found:
    """Makes `count` scenes and finds the digits in them.

    Args:
        model: as for `find`.
        variables: of the model.
        statistics: by which the model's inputs are normalised.
        digits: what to make scenes of, as `framed` gives them.
        key: of the scenes.
        count: number of scenes.
        config: what scenes look like.
    """
    side = side_of(model)
    smallest, largest = (EXTENT * side * size for size in config.sizes)
    static = model, statistics, config, pyramid(smallest, largest, side)
    keys, inputs = jax.random.split(key, count), (variables, jnp.asarray(digits.images), jnp.asarray(digits.labels))
    chunks = [keys[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    parts = [jax.device_get(_find_in_chunk(*static, chunk, *inputs)) for chunk in chunks]
    scenes, detections, hits = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return Found(scenes=scenes, detections=detections, hits=hits)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _find_in_chunk(
    model: nn.Module,
    statistics: data.Statistics,
    config: SceneConfig,
    factors: tuple[float, ...],
    keys: jax.Array,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[Scene, Detections, jax.Array]:
    def in_scene(key: jax.Array) -> tuple[Scene, Detections, jax.Array]:
        scene = make_scene(key, images, labels, config)
        found = find(model, variables, statistics, scene.image, factors)
        return scene, found, match(*found, scene.boxes, scene.labels, scene.valid, IOU)

    return jax.vmap(in_scene)(keys)


def figures(found: Found, class_names: Sequence[str]) -> dict[str, Any]:
    """The figures of detections, as plain values.

    Returns:
        "scenes" and "digits", their numbers; "iou" and "least", what counts as right and what as detected;
        "mean_average_precision", of the classes that occur, over all detections whatever their score; "precision" and
        "recall" of the detections with a score of at least `SURE`; and "classes", a list with the "name", the "digits"
        and the "average_precision", "precision" and "recall" of each. What is not defined, nothing being there to find
        or nothing being found, is None.
    """
    labels, scores, right = np.asarray(found.detections.labels), np.asarray(found.detections.scores), found.hits >= 0

    def shares(of_class: np.ndarray, total: int) -> dict[str, float | None]:
        sure = of_class & (scores >= SURE)
        return {
            "precision": float(np.mean(right[sure])) if sure.any() else None,
            "recall": float(np.sum(right[sure]) / total) if total else None,
        }

    classes, areas = [], []
    for label, name in enumerate(class_names):
        total = int(np.sum(found.scenes.labels == label))
        of_class = (labels == label) & np.isfinite(scores)
        area = average_precision(scores[of_class], right[of_class], total) if total else None
        classes.append({"name": name, "digits": total, "average_precision": area, **shares(of_class, total)})
        areas += [] if area is None else [area]
    total = int(np.sum(found.scenes.valid))
    return {
        "scenes": len(found.hits),
        "digits": total,
        "iou": IOU,
        "least": SURE,
        "mean_average_precision": float(np.mean(areas)) if areas else None,
        **shares(np.isfinite(scores), total),
        "classes": classes,
    }
