"""Which feed a run has, and how the images reach it that it is measured on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from cnn_jax import data
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.feed import Resident
from cnn_jax.data.streamed import Streamed, streamed_rows
from cnn_jax.runs.execution import Execution
from cnn_jax.runs.layout import Layout
from cnn_jax.training.recipe import Recipe

Read = Callable[[Sequence[np.ndarray], Sequence[int]], Iterator[dict[str, Any]]]
"""Of each batch, which images each seed is measured on, int (seeds, n), and how many of these count -> "image" and
"label"."""


def make_feed(
    train: data.Dataset,
    others: Mapping[str, data.Dataset],
    rows: np.ndarray,
    seeds: Sequence[int],
    recipe: Recipe,
    execution: Execution,
    steps: int,
    layout: Layout,
) -> tuple[Resident | Streamed, dict[str, Read]]:
    """The feed of a run, and for each split to be measured what reads it; "validation" is part of `train` by default.

    Args:
        train: images at the size of the model's input, and labels.
        others: the splits to be measured on that are not part of those.
        rows: int (seeds, n), which of the images each seed learns from.
        seeds: the seeds.
        recipe: what decides the batches.
        execution: which feed; with "auto" the one for the kind of images.
        steps: number of steps of the run.
        layout: where the seeds are trained.
    """
    share, spread, with_epochs = layout.share, layout.rows, bool(recipe.augment)
    streams = execution.feed == "streamed" or (execution.feed == "auto" and isinstance(train.images, Encoded))
    splits = {"validation": train, **others}
    if streams:
        feed = Streamed(
            train, rows, seeds, recipe.batch_size, steps=steps, workers=execution.workers, with_epochs=with_epochs,
            spread=spread, own=layout.own_rows(recipe.batch_size), spread_own=layout.own_to_rows,
        )  # fmt: skip
        return feed, {name: functools.partial(_streamed, split, layout) for name, split in splits.items()}
    # Of all that was left encoded, arrays.
    train, others = _decoded(train), {name: _decoded(split) for name, split in others.items()}
    resident = Resident(train, rows, seeds, recipe.batch_size, with_epochs=with_epochs, share=share, spread=spread)
    held = {name: share({"image": split.images, "label": split.labels}) for name, split in others.items()}
    gather = jax.jit(lambda images, rows: jax.tree.map(lambda values: values[rows], images))

    def read(name: str, chosen: Sequence[np.ndarray], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
        images = held.get(name, resident.images)
        return (gather(images, spread(list(rows))) for rows in chosen)

    return resident, {name: functools.partial(read, name) for name in splits}


def _streamed(
    split: data.Dataset, layout: Layout, chosen: Sequence[np.ndarray], counts: Sequence[int]
) -> Iterator[dict[str, Any]]:
    own = layout.own_rows(chosen[0].shape[1])
    return streamed_rows(split, chosen, counts, layout.rows, own, layout.own_to_rows)


def _decoded(split: data.Dataset) -> data.Dataset:
    return replace(split, images=np.asarray(split.images)) if isinstance(split.images, Encoded) else split
