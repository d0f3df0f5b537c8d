"""One look at every image of a set whose images stay encoded: what is to be known of them before any is used.

It takes as long as decoding all once, in threads, and a few megabytes. What it finds is what decoding them into an
array would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data.cache import Listed, Training
from cnn_jax.data.dataset import Fingerprint, statistics_of
from cnn_jax.data.decode import Split
from cnn_jax.data.drawings import COUNTED, measure_ink
from cnn_jax.data.pictures import with_channels
from cnn_jax.data.pile import LARGEST_KEPT, in_order
from cnn_jax.data.resizing import fit_images

Shape = tuple[int, int, int]
Read = Callable[[Path], tuple[np.ndarray, bytes] | str]
"""`read_paper`, with its options."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What was found in the files of a split.

    Attributes:
      image_shape: (H, W, C) that all pictures are brought to.
      read: the indices of the files that can be read, ascending.
      digests: a hash of the pixels of each, before they are brought to a size, as `Pile` has it.
      faults: of the other files, index and what is wrong.
      varied: whether the size asked for makes a difference.
      training: what the training split says of the whole set; None for another split.
    """

    image_shape: Shape
    read: list[int]
    digests: list[bytes]
    faults: list[tuple[int, str]]
    varied: bool
    training: Training | None


class _Tally:
    """Adds up what `Training` says of images, one after the other."""

    def __init__(self, count: int, image_shape: Shape, class_names: tuple[str, ...]):
        self._fingerprint = Fingerprint((count, *image_shape), class_names)
        self._sums: np.ndarray | int = 0
        self._first: list[np.ndarray] = []
        self._drawn = image_shape[-1] == 1  # else they are no drawings, and none need be kept

    def add(self, image: np.ndarray, sums: np.ndarray) -> None:
        self._fingerprint.add(image)
        self._sums = self._sums + sums
        if self._drawn and len(self._first) < COUNTED:
            self._first.append(image)

    def finish(self, labels: np.ndarray, *, padded: bool) -> Training:
        """What was found; of images padded by us, dark margins say nothing of how they are drawn."""
        statistics = statistics_of([[int(value) for value in channel] for channel in np.transpose(self._sums)])
        drawn = self._drawn and not padded
        ink = measure_ink(np.stack(self._first), statistics.mean[0]) if drawn else None
        return Training(statistics=statistics, ink=ink, fingerprint=self._fingerprint.finish(labels))


def _sums(image: np.ndarray) -> np.ndarray:
    """Of each channel the number of pixels, their sum, and that of their squares: int64 (3, C)."""
    values = image.reshape(-1, image.shape[-1]).astype(np.float64)  # which holds whole numbers up to 2^53
    powers = [np.full(values.shape[1], len(values)), np.ones(len(values)) @ values, np.diagonal(values.T @ values)]
    return np.stack(powers).astype(np.int64)


def scan_records(split: Split, is_training: bool, strict: bool) -> Listed:
    """Looks at all records of a split of TFDS; where some cannot be read, twice at the training split's others.

    Args:
      split: the records.
      is_training: whether it is the split that statistics and fingerprint are of.
      strict: whether to refuse records that cannot be read.

    Returns:
      What is to be kept, with `Training` only where this is the split for it.

    Raises:
      InputError: as `Split.check`.
    """
    faults: list[tuple[int, str]] = []
    rows: Sequence[int] = range(len(split))

    def look(index: int) -> tuple[np.ndarray, int, np.ndarray | None] | str:
        found = split.read(index)
        return found if isinstance(found, str) else (*found, _sums(found[0]) if is_training else None)

    while True:
        tally = _Tally(len(rows), split.image_shape, split.class_names) if is_training else None
        labels: list[int] = []
        read: list[int] = []
        for index, found in zip(rows, in_order(look, rows), strict=True):
            if isinstance(found, str):
                faults.append((index, found))
                continue
            image, label, sums = found
            read.append(index)
            labels.append(label)
            if tally is not None and sums is not None:
                tally.add(image, sums)
        if tally is None or len(read) == len(rows) or not read:
            break
        rows = read
    notes = split.check(np.array(labels, np.int64), sorted(faults), strict)
    kept = np.array(labels, np.int32)
    return Listed(
        rows=np.array(read, np.int64), labels=kept, image_shape=split.image_shape, class_names=split.class_names,
        training=tally.finish(kept, padded=False) if tally else None, notes=notes,
    )  # fmt: skip


@dataclass(frozen=True)
class _Looked:
    """A picture brought to the shape of all; the hash of what it was, and its own height, width and channels."""

    image: np.ndarray
    digest: bytes
    shape: Shape
    sums: np.ndarray


def scan_pictures(paths: Sequence[Path], like: Shape, read_picture: Read) -> Scan:
    """Looks at the files of a split other than the training split, whose pictures have the shape `like`."""

    def look(path: Path) -> bytes | str:
        found = read_picture(path)
        return found if isinstance(found, str) else found[1]

    found = list(in_order(look, paths))
    read = [index for index, digest in enumerate(found) if isinstance(digest, bytes)]
    return Scan(
        image_shape=like, read=read, digests=[digest for digest in found if isinstance(digest, bytes)],
        faults=[(index, fault) for index, fault in enumerate(found) if isinstance(fault, str)],
        varied=False, training=None,
    )  # fmt: skip


def scan_training(
    paths: Sequence[Path],
    size: tuple[int, int],
    labels: Sequence[int],
    class_names: tuple[str, ...],
    read_picture: Read,
) -> Scan:
    """Looks at the files of the training split, by the rules of `read_pile`.

    The shape of all is guessed from the first picture. Where a later one shows that it is another, and where files
    cannot be read, all others are looked at again.
    """
    faults: dict[int, str] = {}
    guess: tuple[int, int, int] | None = None
    while True:
        good = [index for index in range(len(paths)) if index not in faults]
        chosen, own = [paths[index] for index in good], [labels[index] for index in good]
        found = _look_at_all(chosen, size, guess, own, class_names, read_picture)
        if isinstance(found, tuple):
            guess = found
            continue
        new = {good[place]: fault for place, fault in found.faults}
        faults |= new
        if not new or len(new) == len(good):
            return Scan(
                image_shape=found.image_shape, read=[good[place] for place in found.read], digests=found.digests,
                faults=sorted(faults.items()), varied=found.varied, training=found.training,
            )  # fmt: skip


def _look_at_all(
    paths: Sequence[Path],
    size: tuple[int, int],
    guess: Shape | None,
    labels: Sequence[int],
    class_names: tuple[str, ...],
    read_picture: Read,
) -> Scan | Shape:
    """The scan of files whose pictures have the shape guessed, or else another guess."""
    shape = guess or next(filter(None, (_own_shape(path, size, read_picture) for path in paths)), (*size, 1))
    tally = _Tally(len(paths), shape, class_names)
    read: list[int] = []
    digests: list[bytes] = []
    faults: list[tuple[int, str]] = []
    varied = False
    for index, picture in enumerate(in_order(_looker(shape, read_picture), paths)):
        if isinstance(picture, str):
            faults.append((index, picture))
            continue
        height, width, channels = picture.shape
        large = height * width > LARGEST_KEPT
        if channels > shape[-1]:
            return (*shape[:2], channels)
        if (large or (height, width) != shape[:2]) and shape[:2] != size:
            return (*size, shape[-1])
        varied |= large or (height, width) != shape[:2]
        tally.add(picture.image, picture.sums)
        read.append(index)
        digests.append(picture.digest)
    given = np.array([labels[index] for index in read], np.int32)
    training = tally.finish(given, padded=varied) if read and not faults else None
    return Scan(image_shape=shape, read=read, digests=digests, faults=faults, varied=varied, training=training)


def _own_shape(path: Path, size: tuple[int, int], read_picture: Read) -> Shape | None:
    found = read_picture(path)
    if isinstance(found, str):
        return None
    height, width, channels = found[0].shape
    return (*size, channels) if height * width > LARGEST_KEPT else (height, width, channels)


def _looker(shape: Shape, read_picture: Read) -> Callable[[Path], _Looked | str]:
    def look(path: Path) -> _Looked | str:
        found = read_picture(path)
        if isinstance(found, str):
            return found
        pixels, digest = found
        own = pixels.shape[0], pixels.shape[1], pixels.shape[2]
        image = with_channels(fit_images(pixels[None], shape[:2])[0], shape[-1]) if own[-1] <= shape[-1] else pixels
        return _Looked(image, digest, own, _sums(image))

    return look
