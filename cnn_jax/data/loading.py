"""`load`: from the name of a data set to its arrays."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

from cnn_jax.data import cache
from cnn_jax.data.dataset import Dataset, compute_fingerprint, compute_statistics
from cnn_jax.data.drawings import measure_ink
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.folders import (
    EMBEDDED,
    FEATURES_FILE,
    Prepared,
    Request,
    data_root,
    embedded_root,
    find_prepared,
    parse_name,
    say,
)
from cnn_jax.data.resizing import checked_size
from cnn_jax.errors import InputError

# Of the training splits decoded by this process: without a writable cache, loading the test split next would otherwise
# decode the training split a second time.
_TRAINING: dict[tuple[str, tuple[int, int] | None], cache.Training] = {}


def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    strict: bool = False,
) -> Dataset:
    """Loads one split of an image classification data set.

    The data set is looked for under `data_dir`; when it is not there it is prepared by its TFDS builder, which may
    download it. Its records are decoded once: the arrays are kept in the cache folder (CNN_JAX_CACHE, else
    $XDG_CACHE_HOME/cnn_jax, else ~/.cache/cnn_jax) and mapped into memory from then on.

    Args:
      name: "digits" (embedded, needs no network), or a TFDS name: "mnist", "emnist/letters", "cifar10:3.0.2".
        Without a version, the newest prepared.
      split: "train", "test" or another split of the data set.
      data_dir: where prepared data sets are; default the environment variable TFDS_DATA_DIR, else
        ~/tensorflow_datasets.
      image_size: (height, width) to bring images to, by the rule of `fit_images`, where they differ in size. Images
        that are all of one size keep it: fitting and padding them is left to training.
      strict: refuse a set with records that cannot be read, instead of passing over them and naming them on standard
        error.

    Returns:
      A `Dataset`.

    Raises:
      InputError: for an unknown name or split, images that differ in size without `image_size`, a data set that is not
        one image and one class label an example, or one that is not available (no internet, TensorFlow needed);
        examples without a label that is a class; no record that can be read, or one that cannot, if `strict`.
    """
    prepared, size = _asked_for(name, split, data_dir, image_size)
    decoded = _decoded(prepared, split, size, strict)
    return decoded.dataset(decoded.images, prepared.name, split, prepared.version)


def load_encoded(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] | None = None,
    strict: bool = False,
) -> Dataset:
    """`load`, but with images that stay encoded until they are used; only what was found out about them is kept.

    The first time, all are looked at once, by several threads. Statistics and fingerprint are those of `load`.
    """
    from cnn_jax.data.decode import open_split

    prepared, size = _asked_for(name, split, data_dir, image_size)
    listed = _listed(prepared, split, size, strict)
    opened = open_split(prepared.name, prepared.path, split, size)
    return listed.dataset(Encoded(opened, listed.rows), prepared.name, split, prepared.version)


def decoded_bytes(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, image_size: tuple[int, int] | None = None
) -> int:
    """How large the images of all splits of a data set are as arrays; 0 where it does not say."""
    prepared = _prepared(parse_name(name), data_root(data_dir))
    try:
        features = json.loads((prepared.path / FEATURES_FILE).read_bytes())["featuresDict"]["features"].values()
        (shape,) = (feature["image"]["shape"]["dimensions"] for feature in features if "image" in feature)
        height, width, channels = map(int, shape)
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    if min(height, width) < 0:  # they differ
        height, width = image_size or (0, 0)
    return sum(prepared.splits.values()) * height * width * channels


def _asked_for(
    name: str, split: str, data_dir: str | os.PathLike[str] | None, image_size: tuple[int, int] | None
) -> tuple[Prepared, tuple[int, int] | None]:
    """The prepared data set, which has the split, and the size checked."""
    request, root = parse_name(name), data_root(data_dir)
    size = None if image_size is None else checked_size(image_size)
    prepared = _prepared(request, root)
    if not prepared.splits.get(split):
        sizes = ", ".join(f"{known} ({count:,})" for known, count in prepared.splits.items() if count)
        raise InputError(f"data set {prepared.name}: expected one of the splits {sizes}; got {split!r}")
    return prepared, size


def _prepared(request: Request, root: Path) -> Prepared:
    for place in (root, embedded_root()) if request.name == EMBEDDED else (root,):
        if prepared := find_prepared(request, place):
            return prepared
    from cnn_jax.data.prepare import prepare

    return prepare(request, root)


def _decoded(prepared: Prepared, split: str, size: tuple[int, int] | None, strict: bool) -> cache.Decoded:
    # Only data sets whose images differ in size are kept by size; which they are is known once they are decoded.
    for kept_size in dict.fromkeys((None, size)):
        found = cache.read(prepared, split, kept_size)
        if found and not (strict and found.notes):
            return found
    from cnn_jax.data.decode import decode_split

    images, labels, opened, notes = decode_split(prepared.name, prepared.path, split, size, strict)
    class_names, kept_size = opened.class_names, size if opened.varied else None
    training_split = _training_split(prepared)
    key = (prepared.key, kept_size)
    if split == training_split:
        fingerprint = compute_fingerprint(images, labels, class_names)
        _TRAINING[key] = cache.Training(
            statistics=compute_statistics(images), ink=measure_ink(images), fingerprint=fingerprint
        )
    elif key not in _TRAINING:
        _TRAINING[key] = _decoded(prepared, training_split, size, strict).training
    decoded = cache.Decoded(images=images, labels=labels, class_names=class_names, training=_TRAINING[key], notes=notes)
    cache.write(prepared, split, kept_size, decoded)
    return decoded


def _training_split(prepared: Prepared) -> str:
    """The split of that name; of a data set without it, the first."""
    return "train" if prepared.splits.get("train") else next(iter(prepared.splits))


def _listed(prepared: Prepared, split: str, size: tuple[int, int] | None, strict: bool) -> cache.Listed:
    for kept_size in dict.fromkeys((None, size)):
        found = cache.read_listed(prepared, split, kept_size)
        if found and not (strict and found.notes):
            return found
    from cnn_jax.data.decode import open_split
    from cnn_jax.data.scanning import scan_records

    training_split = _training_split(prepared)
    training = None if split == training_split else _listed(prepared, training_split, size, strict).training
    say(f"looking at {prepared.splits[split]:,} images of {prepared.name}, {split}, once")
    opened = open_split(prepared.name, prepared.path, split, size)
    listed = scan_records(opened, is_training=training is None, strict=strict)
    listed = replace(listed, training=training or listed.training)
    cache.write(prepared, split, size if opened.varied else None, listed)
    return listed
