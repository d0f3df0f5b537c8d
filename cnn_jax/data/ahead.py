"""Reading ahead, by Grain: what comes next is read by threads or processes while something else is done with the last.

Only this file knows Grain. What is read has no state: item k is a function of k, so where reading begins and how many
read make no difference to what is read.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from cnn_jax.data.encoded import Encoded, Images
from cnn_jax.errors import InputError

_Item = TypeVar("_Item", covariant=True)
_PIECE = 2**21  # bytes of images that are read by one thread in one go
_WAITING = 2**27  # bytes of images that wait to be asked for
_MOST = 64  # pieces that wait
_DIED = "Worker process was terminated"  # how Grain's error begins that says so


class Items(Protocol[_Item]):
    """A sequence whose items can be read in any order, by several threads or copies in other processes at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> _Item: ...


def _cores() -> int:
    from cnn_jax.lowering.cores import cores  # with JAX, which Grain imports too

    return cores()


def _begin(number: int, count: int) -> None:
    """What a process does first: Ctrl-C is for the one that trains, and this one ends with it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Ahead(Iterator[Any]):
    """All items in their order, read ahead of when they are asked for.

    Args:
      items: what is read.
      ahead: how many may wait to be asked for.
      workers: how many processes read, with a thread a core between them; 0 has threads of this process read, as many.

    Raises:
      InputError: from `next`, what the items raise, or that a process has ended.
    """

    def __init__(self, items: Items[Any], ahead: int, workers: int = 0):
        import grain

        # What pictures hold besides their pixels may be damaged, which Pillow warns of. Other threads are reading, so
        # it cannot be told so for a while only.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        dataset = grain.MapDataset.source(items)
        if workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():  # which Grain asks, though its flags are of no use here
                flags.FLAGS.mark_as_parsed()
            options = grain.MultiprocessingOptions(workers, per_worker_buffer_size=max(1, ahead // workers))
            threads = _cores() // workers  # of each process; one is the process itself
            reading = grain.ReadOptions(threads, 2 * threads) if threads > 1 else grain.ReadOptions(0, 0)
            stream = dataset.to_iter_dataset(reading).mp_prefetch(options, _begin)
        else:
            threads = min(_cores(), ahead)
            stream = dataset.to_iter_dataset(grain.ReadOptions(threads, ahead))
        self._workers, self._stream = workers, iter(stream)

    def __next__(self) -> Any:
        try:
            return next(self._stream)
        except InputError as error:
            raise InputError(str(error)) from None  # without the notes that Grain adds
        except RuntimeError as error:
            if not str(error).startswith(_DIED):
                raise
            code = str(error).removeprefix(_DIED).partition("code ")[2].partition(".")[0]
            raise InputError(
                f"workers: a process that reads images has ended (exit code {code}), perhaps for want of memory; "
                f"resume with fewer than the {self._workers} that there were"
            ) from None

    def close(self) -> None:
        """Ends the threads or processes."""
        if hasattr(self._stream, "close"):
            self._stream.close()
        if self._workers:
            self._stream = iter(())
            gc.collect()  # Grain's iterators refer to each other, and one array of each process in shared memory


class ReadAhead(Iterator[np.ndarray]):
    """Batches of images, read ahead piece by piece, so that all threads or processes work on the next one.

    Args:
      images: where they are taken from, uint8 (N, H, W, C).
      batches: of each batch, which images it has, int (n,).
      most: the largest n.
      workers: as for `Ahead`; an array is always read by threads, as it would have to be copied to processes first.

    Yields:
      uint8 (n, H, W, C).

    Raises:
      InputError: as `Ahead`.
    """

    def __init__(self, images: Images, batches: Items[np.ndarray], most: int, workers: int = 0):
        self._batches, self._shape, self._next = batches, images.shape[1:], 0
        a_piece = min(most, max(1, _PIECE // int(np.prod(self._shape))))
        self._pieces = -(-most // a_piece)
        size = a_piece * int(np.prod(self._shape))
        ahead = max(2, _cores(), workers, min(_MOST, _WAITING // size))
        items = _Pieces(images, batches, a_piece, self._pieces)
        self._stream = Ahead(items, ahead, workers if isinstance(images, Encoded) else 0)

    def __next__(self) -> np.ndarray:
        if self._next == len(self._batches):
            raise StopIteration
        self._next += 1
        parts = [next(self._stream) for _ in range(self._pieces)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Ends the threads or processes."""
        self._stream.close()


class _Pieces:
    """Of each batch equally many pieces, those at its end perhaps with fewer images or none."""

    def __init__(self, images: Images, batches: Items[np.ndarray], size: int, pieces: int):
        self._images, self._batches, self._size, self._pieces = images, batches, size, pieces

    def __len__(self) -> int:
        return len(self._batches) * self._pieces

    def __getitem__(self, k: int) -> np.ndarray:
        batch, part = divmod(k, self._pieces)
        return self._images[self._batches[batch][part * self._size : (part + 1) * self._size]]
