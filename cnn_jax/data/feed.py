"""Feeds: how training examples reach the steps.

A feed gives chunks, what some steps in a row learn from, and the steps take their batches out of them on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.data.batching import epochs_of, train_order
from cnn_jax.data.dataset import Dataset

Chunk = Any
"""A tree of arrays: those that all seeds share, and those of each seed."""


class Resident:
    """Images that are whole on the device; a chunk is all of them and the order of some batches, taking is a gather.

    Args:
        train: images at the size of the model's input, and labels.
        rows: int (seeds, n), which of the images each seed learns from.
        seeds: the seeds, each with an order of its own.
        batch_size: images a step.
        with_epochs: whether the batches say which pass over its images each image belongs to.
        share: puts a tree of arrays where all seeds can read it.
        spread: puts arrays, one a seed, where those seeds are trained, and joins them as their chunk.
    """

    def __init__(
        self,
        train: Dataset,
        rows: np.ndarray,
        seeds: Sequence[int],
        batch_size: int,
        *,
        with_epochs: bool,
        share: Callable[[Any], Any],
        spread: Callable[[list[np.ndarray]], Any],
    ):
        self.images = share({"image": train.images, "label": train.labels})
        self._rows, self._batch_size, self._with_epochs, self._spread = rows, batch_size, with_epochs, spread
        self._orders = [train_order(rows.shape[1], batch_size, seed) for seed in seeds]

    def chunk(self, step: int, count: int, length: int) -> Chunk:
        """What `count` steps from `step` on learn from, in a chunk made for `length`; the rest is never read."""
        orders = [rows[order(step, count)] for rows, order in zip(self._rows, self._orders, strict=True)]
        chosen = {"index": self._spread([padded(order, length) for order in orders])}
        if self._with_epochs:
            epochs = epochs_of(self._rows.shape[1], self._batch_size, step, count)
            chosen["epoch"] = self._spread([padded(epochs, length)] * len(orders))
        return self.images, chosen

    def most(self, steps: int) -> int:
        """How many batches a chunk should have at most, up to that many: all, as it holds no images of its own."""
        return steps

    def aside(self, step: int, count: int) -> Chunk:
        """A chunk of some batches."""
        return self.chunk(step, count, count)

    def blank(self, length: int) -> Chunk:
        """A chunk with nothing in it, for a program to be compiled for."""
        return self.chunk(0, 0, length)

    def close(self) -> None:
        """Nothing is open."""

    @staticmethod
    def take(chunk: Chunk, k: jax.Array) -> dict[str, jax.Array]:
        """Batch k of one seed's chunk, as a pure function: "image", "label", "index", and "epoch" if it has that."""
        images, order = chunk
        picked = {name: jax.lax.dynamic_index_in_dim(rows, k, keepdims=False) for name, rows in order.items()}
        rows = picked["index"]
        return {name: a.at[rows].get(mode="promise_in_bounds") for name, a in images.items()} | picked

    @staticmethod
    def length(chunk: Chunk) -> int:
        """How many batches a chunk is for."""
        return len(chunk[1]["index"])


def padded(rows: np.ndarray, length: int) -> np.ndarray:
    """(count, ...) as int32 (length, ...), with zeros at the end."""
    padded = np.zeros((length, *rows.shape[1:]), np.int32)
    padded[: len(rows)] = rows
    return padded
