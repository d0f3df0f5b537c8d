"""What a loaded data set is: arrays, class names, and the statistics its images are normalised by."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cnn_jax.data.drawings import Ink, measure_ink
from cnn_jax.data.encoded import Images
from cnn_jax.errors import InputError

_CHUNK = 4096  # images a histogram takes at a time, so that its int64 copy stays small


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of a training split, on images scaled to [0, 1]; what `normalise` does follows from them.

    Attributes:
      mean: mean of images / 255, one float a channel.
      std: population standard deviation of images / 255, one float a channel; 0 for a constant channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """One split of an image classification data set, decoded.

    Attributes:
      name: TFDS name, with the configuration where there is one: "mnist", "emnist/letters"; or the name of the folder
        or file that the images come from.
      version: TFDS version: "3.0.1"; or the first digits of the fingerprint.
      split: "train", "test", ..., or what `holdout` made of it.
      images: uint8 (N, H, W, C), read-only, possibly memory-mapped, or `Encoded` and then decoded where they are used.
      labels: int32 (N,), indices into `class_names`.
      class_names: one name a class.
      statistics: of the *training* split, whichever split this is.
      fingerprint: a hash of the *training* split's images, labels and class names: two data sets of one name and
        version are told apart, copies of one are not.
      ink: how the *training* split's images are drawn, where they are drawings, light on dark; else None.
    """

    name: str
    version: str
    split: str
    images: Images = field(repr=False)
    labels: np.ndarray = field(repr=False)
    class_names: tuple[str, ...]
    statistics: Statistics
    fingerprint: str
    ink: Ink | None = None

    def __len__(self) -> int:
        return len(self.images)


def make_datasets(
    name: str, class_names: Sequence[str], splits: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Dataset]:
    """Splits of one data set from arrays.

    Args:
      name: what the set is called; letters, digits, "-" and "_" are fit for folders.
      class_names: one name a class.
      splits: of each split, "train" among them, uint8 images (N, H, W, C) and int labels (N,). They become read-only.

    Returns:
      The splits by name; their version is the beginning of the fingerprint.

    Raises:
      InputError: arrays of other shapes or dtypes, labels that are no classes, or no training images.
    """
    classes = tuple(class_names)
    if "train" not in splits:
        raise InputError(f"{name}: expected a split 'train', got {', '.join(splits) or 'none'}")
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, (images, given) in splits.items():
        labels = np.asarray(given, np.int32)
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise InputError(f"{name}: expected {split} images uint8 (N, H, W, C), got {images.dtype} {images.shape}")
        if labels.shape != images.shape[:1] or labels.min() < 0 or labels.max() >= len(classes):
            raise InputError(f"{name}: expected {len(images)} {split} labels from 0 to {len(classes) - 1}")
        for array in (images, labels):
            array.setflags(write=False)
        arrays[split] = images, labels
    statistics, ink = compute_statistics(arrays["train"][0]), measure_ink(arrays["train"][0])
    fingerprint = compute_fingerprint(*arrays["train"], classes)
    return {
        split: Dataset(
            name=name, version=fingerprint[:8], split=split, images=images, labels=labels, class_names=classes,
            statistics=statistics, fingerprint=fingerprint, ink=ink,
        )
        for split, (images, labels) in arrays.items()
    }  # fmt: skip


def compute_statistics(images: np.ndarray) -> Statistics:
    """Returns the `Statistics` of uint8 images (N, H, W, C); exact, from a histogram of every channel."""
    levels = np.arange(256)
    sums = []
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), _CHUNK):
            counts += np.bincount(images[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
        sums.append([int(counts @ levels**power) for power in range(3)])
    return statistics_of(sums)


def statistics_of(sums: Sequence[Sequence[int]]) -> Statistics:
    """The `Statistics` of images with, of each channel, the number of its pixels, their sum and that of their squares.

    In whole numbers, so that the std of a constant channel is exactly 0, not a rounding error to divide by.
    """
    means = [total / pixels / 255 for pixels, total, _ in sums]
    stds = [math.sqrt(pixels * squares - total**2) / pixels / 255 for pixels, total, squares in sums]
    return Statistics(mean=tuple(means), std=tuple(stds))


def compute_fingerprint(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> str:
    """Returns 16 hexadecimal digits that tell a training split from any other: see `Dataset.fingerprint`."""
    digest = Fingerprint(images.shape, class_names)
    digest.add(images)
    return digest.finish(labels)


class Fingerprint:
    """`compute_fingerprint` of images that come one after the other.

    Args:
      shape: (N, H, W, C) of all.
      class_names: one name a class.
    """

    def __init__(self, shape: tuple[int, ...], class_names: tuple[str, ...]):
        self._digest = hashlib.sha256(repr((shape, class_names)).encode())

    def add(self, images: np.ndarray) -> None:
        """The next image, or several."""
        self._digest.update(np.ascontiguousarray(images).data)

    def finish(self, labels: np.ndarray) -> str:
        """The fingerprint, with the labels of all images."""
        self._digest.update(np.ascontiguousarray(labels).data)
        return self._digest.hexdigest()[:16]


def rescale(dataset: Dataset, background: float, foreground: float) -> Dataset:
    """The data set with `normalise` bringing black pixels to `background` and white ones to `foreground`.

    LeCun et al. 1998, section II.B, take -0.1 and 1.175 for digits drawn in white on black: about mean 0 and variance
    1 over MNIST. The mean and the deviation in the result's statistics are the ones that do this, in every channel.

    Raises:
      ValueError: unless background < foreground.
    """
    if not background < foreground:
        raise ValueError(f"rescale: background must be below foreground, got {background} and {foreground}")
    channels, width = dataset.images.shape[-1], foreground - background
    statistics = replace(dataset.statistics, mean=(-background / width,) * channels, std=(1 / width,) * channels)
    return replace(dataset, statistics=statistics)


def normalise(images: Any, statistics: Statistics) -> Any:
    """Returns (images / 255 - mean) / std in float32, as the kind of array that came in.

    Args:
      images: uint8 (..., C), a NumPy or a JAX array (also while tracing).
      statistics: of the training split; C entries each in `mean` and `std`.

    Returns:
      float32 (..., C). A channel whose std is 0 is centred only: it tells the network nothing either way.

    Raises:
      ValueError: if the channels do not match.
    """
    if images.shape[-1] != len(statistics.mean):
        raise ValueError(
            f"normalise: statistics are of {len(statistics.mean)} channels, images have {images.shape[-1]}"
        )
    every = (1,) * (images.ndim - 1) + (-1,)
    std, mean = (np.asarray(values).reshape(every) for values in ([s or 1.0 for s in statistics.std], statistics.mean))
    # One multiplication and one addition a pixel instead of two divisions: this runs inside the training step.
    scale = (1.0 / (255.0 * std)).astype(np.float32)
    shift = (-mean / std).astype(np.float32)
    return images.astype(np.float32) * scale + shift


def to_pixels(images: np.ndarray, statistics: Statistics) -> np.ndarray:
    """The pixels, uint8 (..., C), that `normalise` would make these images of, or the nearest that there are."""
    std = np.array([s or 1.0 for s in statistics.std])
    values = 255 * (np.asarray(images, np.float64) * std + np.asarray(statistics.mean))
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
