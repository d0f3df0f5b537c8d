"""Arrays in a NumPy file as a data source."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from cnn_jax.data.dataset import Dataset, make_datasets
from cnn_jax.data.folders import say_once
from cnn_jax.data.pictures import shown
from cnn_jax.data.source import Source, absolute, path_as_text, short_name
from cnn_jax.data.splits import find_split, repeated, share_of, validation_of
from cnn_jax.errors import InputError
from cnn_jax.files import expanded
from cnn_jax.terminal import one_line

_IMAGES, _LABELS = "images", "labels"


@dataclass(frozen=True)
class Arrays(Source):
    """Arrays in an .npz file: `train_images`, `train_labels`, `test_images`, `test_labels`, and so on.

    Images are uint8 (N, H, W) or (N, H, W, C), all of one size, which is kept. Labels are (N,): whole numbers from
    0, or strings, which are then the classes' names, sorted. `class_names`, strings (K,), names the classes of whole
    numbers; without it they are named by their numbers, up to the largest of the training split.

    Where there is no test split, a validation split ("val", "valid" or "validation") is used instead. With `images` and
    `labels` alone, a test split is made of them by a hash of the contents of each image, as for `Folder`. Images of
    other splits that are in the training split too are reported on standard error.

    Raises:
      InputError: for a blank path or a share outside of (0, 1).
    """

    path: str
    """File of arrays, .npz, with train_images, train_labels, test_images and test_labels, or with images and labels."""
    test_share: float = 0.2
    """Share of the images that becomes the test split where the file has none."""

    def __post_init__(self) -> None:
        path_as_text(self, "path")
        self.check("path", lambda path: isinstance(path, str) and bool(path.strip()), "the path of an .npz file")
        self.check("test_share", lambda share: 0 < share < 1, "a number between 0 and 1")

    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        datasets = self._splits()
        return replace(datasets[find_split(self.label(), split, datasets)], split=split)

    def validation(self, image_size: tuple[int, int]) -> Dataset | None:
        datasets = self._splits()
        split = validation_of(datasets)
        return datasets[split] if split else None

    def _splits(self) -> dict[str, Dataset]:
        path = expanded(self.path, "file of arrays")
        if not path.is_file():
            raise InputError(f"{shown(path)}: expected a file of arrays, there is none")
        try:
            datasets, notes = _read(path.absolute(), path.stat().st_mtime_ns, self.test_share)
        except InputError as error:
            raise InputError(f"{shown(path)}: {error}") from None
        for note in notes:
            say_once(f"{self.label()}: {note}")
        return datasets

    def label(self) -> str:
        return short_name(Path(absolute(self.path, "file of arrays")).stem)

    def here(self) -> Self:
        return replace(self, path=absolute(self.path, "file of arrays"))


@functools.lru_cache(maxsize=1)  # the other splits are asked for next
def _read(path: Path, changed: int, test_share: float) -> tuple[dict[str, Dataset], list[str]]:
    """All splits, "train" first, and lines to say about them."""
    arrays = _load(path)
    pairs = _pairs(arrays, test_share)
    class_names, labels = _classes(arrays.get("class_names"), {split: pair[1] for split, pair in pairs.items()})
    images = {split: pair[0] for split, pair in pairs.items()}
    splits = {split: (images[split], labels[split]) for split in pairs}
    datasets = make_datasets(short_name(path.stem), class_names, splits)
    digests = {split: [hashlib.sha256(image.data).digest() for image in own] for split, own in images.items()}
    places = {split: [f"{split}[{index}]" for index in range(len(own))] for split, own in images.items()}
    return datasets, repeated({split: (digests[split], places[split]) for split in images})


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # NumPy leaves a file open that it cannot read
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise InputError("expected an .npz file of named arrays, it is a single array; use numpy.savez")
            return dict(loaded)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"expected a readable .npz file, got: {one_line(error.strerror or str(error))}") from None
    except Exception as error:  # damaged files make NumPy and zipfile raise almost any kind
        raise InputError(f"expected an .npz file of plain arrays, got: {one_line(str(error))[:200]}") from None


def _pairs(arrays: Mapping[str, np.ndarray], test_share: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images, uint8 (N, H, W, C), and labels of each split, "train" first."""
    whole = _IMAGES in arrays
    prefixes = [""] if whole else [name.removesuffix(_IMAGES) for name in arrays if name.endswith(f"_{_IMAGES}")]
    if not whole and "train_" not in prefixes:
        wanted = "train_images, train_labels, test_images and test_labels, or images and labels"
        raise InputError(f"expected arrays {wanted}; got {one_line(', '.join(arrays)) or 'none'}")
    pairs = {}
    for prefix in sorted(prefixes, key=lambda prefix: prefix != "train_"):
        names = f"{prefix}{_IMAGES}", f"{prefix}{_LABELS}"
        if names[1] not in arrays:
            raise InputError(f"expected an array {names[1]} to go with {names[0]}")
        pairs[prefix.removesuffix("_")] = _checked(*names, arrays[names[0]], arrays[names[1]])
    shape = pairs["" if whole else "train"][0].shape[1:]
    for split, (images, _) in pairs.items():
        if images.shape[1:] != shape:
            raise InputError(f"expected {split} images of the training images' shape {shape}, got {images.shape[1:]}")
    if not whole:
        return pairs
    images, labels = pairs[""]
    in_test = np.array([share_of(image.data) < test_share for image in images])
    if in_test.all() or not in_test.any():
        raise InputError(
            f"expected enough images for two splits, {len(images)} leave one of them empty; add some, or change "
            f"test_share ({test_share})"
        )
    return {"train": (images[~in_test], labels[~in_test]), "test": (images[in_test], labels[in_test])}


def _checked(
    images_name: str, labels_name: str, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise InputError(
            f"expected {images_name} to be uint8 (N, H, W) or (N, H, W, C), levels from 0 to 255, got {images.dtype} "
            f"{images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
        raise InputError(
            f"expected {labels_name} to be whole numbers or strings, ({len(images)},) like the images, got "
            f"{labels.dtype} {labels.shape}"
        )
    return np.ascontiguousarray(images if images.ndim == 4 else images[..., None]), labels


def _classes(names: np.ndarray | None, labels: dict[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names, and the labels as their indices, int32."""
    train = labels["train"]
    if len({own.dtype.kind == "U" for own in labels.values()}) > 1:
        raise InputError("expected the labels of all splits to be whole numbers, or of all to be strings")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U" or len(np.unique(names)) != len(names)):
        raise InputError(f"expected class_names to be different strings (K,), got {names.dtype} {names.shape}")
    strings = train.dtype.kind == "U"
    if names is None and not strings and (largest := int(train.max())) >= len(train):
        raise InputError(f"expected labels from 0, fewer than the {len(train)} training images, got {largest}")
    if names is None:
        names = np.unique(train) if strings else np.arange(int(train.max()) + 1).astype(str)
    if len(names) < 2:
        raise InputError(f"expected two classes or more, got {len(names)}")
    class_names = tuple(map(str, names))
    indices = {name: index for index, name in enumerate(class_names)}
    found = {}
    for split, own in labels.items():
        known = np.isin(own, names) if strings else (own >= 0) & (own < len(names))
        if not known.all():
            expected = "those of the training split" if strings else f"0 to {len(names) - 1}"
            raise InputError(f"expected {split} labels to be {expected}, got {own[~known][0]}")
        found[split] = np.array([indices[str(label)] for label in own] if strings else own, np.int32)
    return class_names, found
