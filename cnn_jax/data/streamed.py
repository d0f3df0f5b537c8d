"""The streamed feed: batches are read and decoded ahead of the steps, so that neither device nor memory holds a set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.data.ahead import ReadAhead
from cnn_jax.data.batching import epochs_of, train_order
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.feed import Chunk, padded

_CHUNK = 2**24  # bytes of images a chunk has at most, unless one batch alone has more: what is read, and then waits


class Streamed:
    """Images that are read ahead of the steps; a chunk is some batches of them, taking picks one.

    The batches are those of `Resident`, bit for bit, from whatever step on, however many read.

    Args:
        train: images at the size of the model's input, and labels.
        rows: int (seeds, n), which of the images each seed learns from.
        seeds: the seeds, each with an order of its own.
        batch_size: images a step.
        steps: number of steps of the run.
        workers: how many processes decode, if images are encoded; 0 has threads do it.
        with_epochs: whether the batches say which pass over its images each image belongs to.
        spread: puts arrays, one a seed, where those seeds are trained, and joins them as their chunk; it is told how
            many axes there are after that of a batch.
    """

    def __init__(
        self,
        train: Dataset,
        rows: np.ndarray,
        seeds: Sequence[int],
        batch_size: int,
        *,
        steps: int,
        workers: int = 0,
        with_epochs: bool,
        spread: Callable[[list[np.ndarray], int], Any],
    ):
        self._images, self._labels, self._steps = train.images, train.labels, steps
        self._batches = _Batches(rows, tuple(seeds), batch_size)
        self._workers, self._with_epochs, self._spread = workers, with_epochs, spread
        self._stream: ReadAhead | None = None
        self._next = 0

    def most(self, steps: int) -> int:
        """How many batches a chunk should have at most, up to that many."""
        size = self._batches.images * int(np.prod(self._images.shape[1:]))
        return min(steps, max(1, _CHUNK // size))

    def chunk(self, step: int, count: int, length: int) -> Chunk:
        """What `count` steps from `step` on learn from, in a chunk made for `length`; the rest is never read.

        What follows is read ahead; a chunk that does not follow the last begins another stream.
        """
        if self._stream is None or step != self._next:
            self.close()
            self._stream = self._open(step, self._steps - step, self._workers)
        self._next = step + count
        return self._made_of(self._stream, step, count, length)

    def aside(self, step: int, count: int) -> Chunk:
        """A chunk of some batches, without a disturbance of what is read ahead."""
        stream = self._open(step, count, 0)
        try:
            return self._made_of(stream, step, count, count)
        finally:
            stream.close()

    def blank(self, length: int) -> Chunk:
        """A chunk with nothing in it, for a program to be compiled for."""
        return self._made_of(iter(()), 0, 0, length)

    @staticmethod
    def take(chunk: Chunk, k: jax.Array) -> dict[str, jax.Array]:
        """Batch k of one seed's chunk, as a pure function: as that of `Resident`."""
        return {name: jax.lax.dynamic_index_in_dim(rows, k, keepdims=False) for name, rows in chunk[1].items()}

    @staticmethod
    def length(chunk: Chunk) -> int:
        """How many batches a chunk is for."""
        return len(chunk[1]["index"])

    def close(self) -> None:
        """Ends what reads."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, step: int, count: int, workers: int) -> ReadAhead:
        return ReadAhead(self._images, self._batches.part(step, count), self._batches.images, workers)

    def _made_of(self, stream: Iterator[np.ndarray], step: int, count: int, length: int) -> Chunk:
        seeds, size, shape = self._batches.seeds, self._batches.size, self._images.shape[1:]
        if length == count == 1:  # as it is, not copied
            images = next(stream).reshape(len(seeds), 1, size, *shape)
        else:
            images = np.zeros((len(seeds), length, size, *shape), np.uint8)
            for k in range(count):
                images[:, k] = next(stream).reshape(len(seeds), size, *shape)
        index = np.stack([padded(rows, length) for rows in self._batches.indices(step, count)])
        own = {"image": images, "label": self._labels[index], "index": index}
        if self._with_epochs:
            epochs = padded(epochs_of(self._batches.rows.shape[1], size, step, count), length)
            own["epoch"] = np.broadcast_to(epochs, (len(seeds), length, size))
        after = {"image": len(shape)}
        return {}, {name: self._spread(list(values), after.get(name, 0)) for name, values in own.items()}


class _Batches:
    """Which images the batches of some steps have: item k is int (seeds * size,), those of one seed after another."""

    def __init__(self, rows: np.ndarray, seeds: tuple[int, ...], size: int, step: int = 0, count: int = 0):
        self.rows, self.seeds, self.size, self._step, self._count = rows, seeds, size, step, count
        self._begin()

    def _begin(self) -> None:
        self._orders = [train_order(self.rows.shape[1], self.size, seed) for seed in self.seeds]
        self._lock = threading.Lock()  # so that no two threads make the same permutation

    @property
    def images(self) -> int:
        """How many images a batch has, those of all seeds."""
        return len(self.seeds) * self.size

    def part(self, step: int, count: int) -> _Batches:
        """The batches of some steps."""
        return _Batches(self.rows, self.seeds, self.size, step, count)

    def indices(self, step: int, count: int) -> np.ndarray:
        """Which images each seed learns from in some steps: int (seeds, count, size)."""
        with self._lock:
            chosen = [order(step, count) for order in self._orders]
        return np.stack([rows[places] for rows, places in zip(self.rows, chosen, strict=True)])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> np.ndarray:
        return self.indices(self._step + k, 1).ravel()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_orders", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()


def streamed_rows(
    dataset: Dataset, chosen: Sequence[np.ndarray], spread: Callable[[list[np.ndarray], int], Any]
) -> Iterator[dict[str, Any]]:
    """Images and labels to evaluate, read ahead.

    Args:
        dataset: images at the size of the model's input, and labels.
        chosen: of each batch, which images each seed is measured on, int (seeds, batch size).
        spread: puts arrays, one a seed, where those seeds are measured; as for `Streamed`.

    Yields:
        "image" and "label" of each batch.
    """
    pairs = [np.unique(rows, return_inverse=True) for rows in chosen]
    once = [rows for rows, _ in pairs]
    stream = ReadAhead(dataset.images, once, max(map(len, once)))
    try:
        for rows, (_, places), images in zip(chosen, pairs, stream, strict=True):
            yield {
                "image": spread([images[own] for own in places.reshape(rows.shape)], images.ndim - 1),
                "label": spread([dataset.labels[own] for own in rows], 0),
            }
    finally:
        stream.close()
