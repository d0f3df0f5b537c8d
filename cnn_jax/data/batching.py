"""Which examples make up which batch: a pure function of seed and position, so that any step can be computed at once.

Training reads one endless stream of positions. Positions [e*n, (e+1)*n) are epoch e, a fresh permutation made from
(seed, e) alone; batch k is positions [k*B, (k+1)*B). So batches may span two epochs, no example is ever dropped, and
step k is the same batch on every machine and after every restart; see `cnn_jax.data.permutation`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from cnn_jax.data.ahead import ReadAhead
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.encoded import Encoded, taken
from cnn_jax.data.permutation import KEYED, LARGEST, KeyedPermutation, permutation
from cnn_jax.errors import InputError

_HOLDOUT_STREAM = 2**64 - 1  # as an epoch number: no run gets there


def batch_indices(seed: int, n: int, batch_size: int, step: int) -> np.ndarray:
    """Returns the int64 (batch_size,) indices of training batch `step` of a data set of n examples.

    Raises:
      InputError: for a seed outside [0, 2**64), n < 1, batch_size < 1 or step < 0.
    """
    return train_order(n, batch_size, seed)(step, 1)[0]


def train_order(n: int, batch_size: int, seed: int, largest: int = LARGEST) -> Callable[[int, int], np.ndarray]:
    """The order in which a run takes the examples; for consecutive steps no permutation is made twice.

    Args:
      n: number of examples.
      batch_size: of them a step.
      seed: in [0, 2**64).
      largest: number of examples up to which the permutations are arrays, see `permutation`.

    Returns:
      `order(step, steps)`, the `batch_indices` of `steps` training batches from `step` on, int64 (steps, batch_size).

    Raises:
      InputError: here or from `order`, as `batch_indices`.
    """
    _check_seed(seed)
    _check_batch_size(batch_size)
    if n < 1:
        raise InputError(f"training: expected at least one example, got {n}")
    in_epoch = functools.lru_cache(maxsize=2)(functools.partial(permutation, seed, n, largest=largest))

    def order(step: int, steps: int) -> np.ndarray:
        if step < 0:
            raise InputError(f"training step: expected 0 or more, got {step}")
        return _stretch(step * batch_size, (step + steps) * batch_size, n, in_epoch).reshape(steps, batch_size)

    return order


def order_name(n: int) -> str | None:
    """What config.json calls the order of n examples; None where it is the one that needs no name."""
    return KEYED if n > LARGEST else None


def epochs_of(n: int, batch_size: int, step: int, steps: int) -> np.ndarray:
    """Which pass over n examples each place in the batches of `train_order` belongs to: int64 (steps, batch_size)."""
    positions = np.arange(step * batch_size, (step + steps) * batch_size, dtype=np.int64)
    return (positions // n).reshape(steps, batch_size)


def eval_batches(dataset: Dataset, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields every example exactly once, in order, in batches of one size.

    Yields:
      {"image": uint8 (batch_size, H, W, C), "label": int32 (batch_size,), "mask": float32 (batch_size,)}. The last
      batch is filled up with black images of label 0 whose mask is 0; the mask of every example is 1.

    Raises:
      InputError: at the call, if batch_size < 1.
    """
    _check_batch_size(batch_size)
    return _eval_batches(dataset, batch_size)


def _eval_batches(dataset: Dataset, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    places = np.arange(len(dataset))
    rows = [places[start : start + batch_size] for start in range(0, len(dataset), batch_size)]
    encoded = isinstance(dataset.images, Encoded)
    read = ReadAhead(dataset.images, rows, batch_size) if encoded else (dataset.images[own] for own in rows)
    for own, images in zip(rows, read, strict=True):
        labels = dataset.labels[own]
        missing = batch_size - len(labels)
        mask = np.ones(len(labels), np.float32)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
            labels, mask = np.pad(labels, (0, missing)), np.pad(mask, (0, missing))
        yield {"image": np.ascontiguousarray(images), "label": np.ascontiguousarray(labels), "mask": mask}


def holdout(train: Dataset, validation: float | int, seed: int) -> tuple[Dataset, Dataset]:
    """Splits a training set into what is trained on and what is held out for validation.

    Every class gives its share (rounded so that the total is exact), chosen by `seed` alone; both parts keep the
    order of `train` and its statistics.

    Args:
      train: the training split.
      validation: a fraction strictly between 0 and 1 of the examples (rounded, at least one), or
        a whole number of them.
      seed: in [0, 2**64).

    Returns:
      (rest, held out), with splits named as the split given and "validation".

    Raises:
      InputError: unless at least one example is left on either side.
    """
    rest, chosen = holdout_indices(train, validation, seed)
    parts = [replace(train, images=taken(train.images, rows), labels=train.labels[rows]) for rows in (rest, chosen)]
    return parts[0], replace(parts[1], split="validation")


def holdout_indices(train: Dataset, validation: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The ascending int64 indices of what `holdout` leaves for training and of what it holds out.

    How many there are of each does not depend on the seed.

    Raises:
      InputError: as `holdout`.
    """
    _check_seed(seed)
    n = len(train)
    whole = np.isfinite(validation) and validation == int(validation)
    if whole and 1 <= validation < n:
        count = int(validation)
    elif not whole and 0 < validation < 1 and n > 1:
        count = min(max(1, round(n * validation)), n - 1)
    else:
        raise InputError(
            f"validation: expected a fraction between 0 and 1 or a count from 1 to {n - 1} "
            f"(of {n} training examples), got {validation!r}"
        )
    order = np.asarray(permutation(seed, n, _HOLDOUT_STREAM, largest=n))
    labels = np.asarray(train.labels)
    shares = apportion(np.bincount(labels, minlength=len(train.class_names)), count)
    chosen = np.zeros(n, bool)
    for label, share in enumerate(shares):
        chosen[order[labels[order] == label][:share]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def apportion(counts: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` among classes in proportion to their `counts` (Hamilton's method of largest remainders).

    Args:
      counts: int (K,), how many examples each class has; 0 <= total <= sum(counts).

    Returns:
      int64 (K,) with sum `total` and 0 <= share <= count; ties go to the class named first.
    """
    counts = np.asarray(counts, np.int64)
    shares, remainders = np.divmod(counts * total, counts.sum())
    largest = np.argsort(-remainders, kind="stable")[: total - shares.sum()]
    shares[largest] += 1
    return shares


def _stretch(start: int, end: int, n: int, in_epoch: Callable[[int], np.ndarray | KeyedPermutation]) -> np.ndarray:
    """The examples at positions [start, end) of the stream."""
    pieces = [np.empty(0, np.int64)]
    while start < end:
        epoch, offset = divmod(start, n)
        pieces.append(in_epoch(epoch)[offset : offset + end - start])
        start += len(pieces[-1])
    return np.concatenate(pieces)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: expected a whole number from 0 to 2**64 - 1, got {seed}")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch size: expected at least 1, got {batch_size}")
