"""The streamed feed: batches are read and decoded ahead of the steps, so that neither device nor memory holds a set."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from cnn_jax.data.ahead import ReadAhead
from cnn_jax.data.batching import epochs_of, train_order
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.feed import Chunk, padded

SpreadOwn = Callable[[list[np.ndarray], int, int], Any]
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
        own: int, which places of a batch this process reads the images for, where others read the rest; None reads all.
        spread_own: as `spread`, of images of those places alone; it is told the batch size as well.
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
        own: np.ndarray | None = None,
        spread_own: SpreadOwn | None = None,
    ):
        self._images, self._labels, self._steps = train.images, train.labels, steps
        self._batches = _Batches(rows, tuple(seeds), batch_size, own)
        self._workers, self._with_epochs, self._spread = workers, with_epochs, spread
        self._spread_own = spread_own or _of_all(spread)
        self._stream: ReadAhead | None = None
        self._next = 0
        self._putter = ThreadPoolExecutor(1)
        self._made: Future[Chunk] | None = None  # the chunk that follows, where each is of one batch

    def most(self, steps: int) -> int:
        """How many batches a chunk should have at most, up to that many."""
        size = self._batches.images * int(np.prod(self._images.shape[1:]))
        return min(steps, max(1, _CHUNK // size))

    def chunk(self, step: int, count: int, length: int) -> Chunk:
        """What `count` steps from `step` on learn from, in a chunk made for `length`; the rest is never read.

        What follows is read ahead; a chunk that does not follow the last begins another stream.
        """
        if self._stream is None or step != self._next or (self._made and length > 1):
            self.close()
            self._stream = self._open(step, self._steps - step, self._workers)
        self._next = step + count
        if length > 1:
            return self._made_of(self._stream, step, count, length)
        # To join a large batch and to put it on a device takes a while in which a CPU may not have taken steps.
        chunk = self._made.result() if self._made else self._made_of(self._stream, step, count, length)
        more = self._next < self._steps
        self._made = self._putter.submit(self._made_of, self._stream, self._next, 1, 1) if more else None
        return chunk

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
        if self._made is not None:
            wait([self._made])
            self._made = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, step: int, count: int, workers: int) -> ReadAhead:
        return ReadAhead(self._images, self._batches.part(step, count), self._batches.images, workers)

    def _made_of(self, stream: Iterator[np.ndarray], step: int, count: int, length: int) -> Chunk:
        seeds, size, shape = self._batches.seeds, self._batches.size, self._images.shape[1:]
        read = self._batches.images // len(seeds)
        if length == count == 1:  # as it is, not copied
            images = next(stream).reshape(len(seeds), 1, read, *shape)
        else:
            images = np.zeros((len(seeds), length, read, *shape), np.uint8)
            for k in range(count):
                images[:, k] = next(stream).reshape(len(seeds), read, *shape)
        index = np.stack([padded(rows, length) for rows in self._batches.indices(step, count)])
        own = {"label": self._labels[index], "index": index}
        if self._with_epochs:
            epochs = padded(epochs_of(self._batches.rows.shape[1], size, step, count), length)
            own["epoch"] = np.broadcast_to(epochs, (len(seeds), length, size))
        image = self._spread_own(list(images), len(shape), size)
        return {}, {"image": image, **{name: self._spread(list(values), 0) for name, values in own.items()}}


class _Batches:
    """Which images are read for the batches of some steps: item k is int (n,), those of one seed after another."""

    def __init__(
        self,
        rows: np.ndarray,
        seeds: tuple[int, ...],
        size: int,
        own: np.ndarray | None,
        step: int = 0,
        count: int = 0,
    ):
        self.rows, self.seeds, self.size, self._own, self._step, self._count = rows, seeds, size, own, step, count
        self._begin()

    def _begin(self) -> None:
        self._orders = [train_order(self.rows.shape[1], self.size, seed) for seed in self.seeds]
        self._lock = threading.Lock()  # so that no two threads make the same permutation

    @property
    def images(self) -> int:
        """How many images are read for a batch, those of all seeds."""
        return len(self.seeds) * (self.size if self._own is None else len(self._own))

    def part(self, step: int, count: int) -> _Batches:
        """The batches of some steps."""
        return _Batches(self.rows, self.seeds, self.size, self._own, step, count)

    def indices(self, step: int, count: int) -> np.ndarray:
        """Which images each seed learns from in some steps: int (seeds, count, size)."""
        with self._lock:
            chosen = [order(step, count) for order in self._orders]
        return np.stack([rows[places] for rows, places in zip(self.rows, chosen, strict=True)])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> np.ndarray:
        chosen = self.indices(self._step + k, 1)
        return (chosen if self._own is None else chosen[..., self._own]).ravel()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_orders", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()


def streamed_rows(
    dataset: Dataset,
    chosen: Sequence[np.ndarray],
    counts: Sequence[int],
    spread: Callable[[list[np.ndarray], int], Any],
    own: np.ndarray | None = None,
    spread_own: SpreadOwn | None = None,
) -> Iterator[dict[str, Any]]:
    """Images and labels to evaluate, read ahead.

    Args:
        dataset: images at the size of the model's input, and labels.
        chosen: of each batch, which images each seed is measured on, int (seeds, batch size).
        counts: of each batch, how many of these count; what follows only fills it, with any image, and is not read.
        spread: puts arrays, one a seed, where those seeds are measured; as for `Streamed`.
        own: as for `Streamed`.
        spread_own: as for `Streamed`.

    Yields:
        "image" and "label" of each batch.
    """
    size = chosen[0].shape[1]
    put = spread_own or _of_all(spread)
    places_read = np.arange(size) if own is None else own
    read = [rows[:, places_read[places_read < count]] for rows, count in zip(chosen, counts, strict=True)]
    pairs = [np.unique(rows, return_inverse=True) for rows in read]
    once = [rows for rows, _ in pairs]
    shape = dataset.images.shape[1:]
    anything = np.resize(np.arange(256, dtype=np.uint8), (1, *shape))
    stream = ReadAhead(dataset.images, once, max(1, *map(len, once)))
    try:
        for rows, mine, (_, places), images in zip(chosen, read, pairs, stream, strict=True):
            filling = len(places_read) - mine.shape[1]
            images = images if len(images) else anything
            places = np.pad(places.reshape(mine.shape), [(0, 0), (0, filling)])
            yield {
                "image": put([images[of_seed] for of_seed in places], images.ndim - 1, size),
                "label": spread([dataset.labels[of_seed] for of_seed in rows], 0),
            }
    finally:
        stream.close()


def _of_all(spread: Callable[[list[np.ndarray], int], Any]) -> SpreadOwn:
    """What puts images where this process reads all of them."""
    return lambda arrays, after, rows: spread(arrays, after)
