"""The streamed feed: batches are read and decoded ahead of the steps, so that neither device nor memory holds a set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.data.ahead import Ahead, cores
from cnn_jax.data.batching import epochs_of, train_order
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.encoded import Encoded, Images
from cnn_jax.data.feed import Chunk

_CHUNK = 2**24  # bytes of images a chunk has at most, unless one batch alone has more: what is read, and then waits
_WAITING = 2**27  # bytes of images that are read ahead
_MOST_WAITING = 64  # batches


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
        spread: puts arrays, one a seed, where those seeds are trained, and joins them as their chunk.
    """

    axes = (None, 0)

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
        spread: Callable[[list[np.ndarray]], Any],
    ):
        self._labels, self._shape, self._steps = train.labels, train.images.shape[1:], steps
        self._batches = _Batches(train.images, rows, tuple(seeds), batch_size)
        # An array is only copied, and would have to be copied to the processes first.
        self._workers = workers if isinstance(train.images, Encoded) else 0
        self._with_epochs, self._spread = with_epochs, spread
        self._bytes = len(seeds) * batch_size * int(np.prod(self._shape))
        self._stream: Ahead | None = None
        self._next = 0

    def most(self, steps: int) -> int:
        """How many batches a chunk should have at most, up to that many."""
        return min(steps, max(1, _CHUNK // self._bytes))

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

    def _open(self, step: int, count: int, workers: int) -> Ahead:
        ahead = min(_MOST_WAITING, max(2, cores(), workers, _WAITING // self._bytes))
        return Ahead(self._batches.part(step, count), ahead, workers)

    def _made_of(self, stream: Iterator[np.ndarray], step: int, count: int, length: int) -> Chunk:
        seeds, size = self._batches.seeds, self._batches.batch_size
        if length == count == 1:
            images = next(stream)[:, None]
        else:
            images = np.zeros((len(seeds), length, size, *self._shape), np.uint8)
            for k in range(count):
                images[:, k] = next(stream)
        index = np.zeros((len(seeds), length, size), np.int32)
        index[:, :count] = self._batches.indices(step, count)
        own = {"image": images, "label": self._labels[index], "index": index}
        if self._with_epochs:
            epochs = np.zeros((length, size), np.int32)
            epochs[:count] = epochs_of(self._batches.rows.shape[1], size, step, count)
            own["epoch"] = np.broadcast_to(epochs, (len(seeds), length, size))
        return {}, {name: self._spread(list(values)) for name, values in own.items()}


class _Batches:
    """The images of batches, for Grain: item k is uint8 (seeds, batch size, H, W, C)."""

    def __init__(
        self,
        images: Images,
        rows: np.ndarray,
        seeds: tuple[int, ...],
        batch_size: int,
        step: int = 0,
        count: int = 0,
    ):
        self.images, self.rows, self.seeds, self.batch_size = images, rows, seeds, batch_size
        self.step, self.count = step, count
        self._begin()

    def _begin(self) -> None:
        self._orders = [train_order(self.rows.shape[1], self.batch_size, seed) for seed in self.seeds]
        self._lock = threading.Lock()  # so that no two threads make the same permutation

    def part(self, step: int, count: int) -> _Batches:
        """The batches of some steps."""
        return _Batches(self.images, self.rows, self.seeds, self.batch_size, step, count)

    def indices(self, step: int, count: int) -> np.ndarray:
        """Which images each seed learns from in some steps: int (seeds, count, batch size)."""
        with self._lock:
            chosen = [order(step, count) for order in self._orders]
        return np.stack([rows[places] for rows, places in zip(self.rows, chosen, strict=True)])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> np.ndarray:
        return self.images[self.indices(self.step + k, 1)[:, 0]]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_orders", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()


def streamed_rows(
    dataset: Dataset, chosen: Sequence[np.ndarray], spread: Callable[[list[np.ndarray]], Any]
) -> Iterator[dict[str, Any]]:
    """Images and labels to evaluate, read ahead.

    Args:
        dataset: images at the size of the model's input, and labels.
        chosen: of each batch, which images each seed is measured on, int (seeds, batch size).
        spread: puts arrays, one a seed, where those seeds are measured.

    Yields:
        "image" and "label" of each batch.
    """
    stream = Ahead(_Chosen(dataset.images, chosen), max(2, cores()))
    try:
        for rows in chosen:
            images, places = next(stream)
            yield {
                "image": spread([images[own] for own in places]),
                "label": spread([dataset.labels[own] for own in rows]),
            }
    finally:
        stream.close()


class _Chosen:
    """Some batches of images, each image once in it, and where in these those of each seed are."""

    def __init__(self, images: Images, chosen: Sequence[np.ndarray]):
        self._images, self._chosen = images, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        rows, places = np.unique(self._chosen[k], return_inverse=True)
        return self._images[rows], places.reshape(self._chosen[k].shape)
