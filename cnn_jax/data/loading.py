"""`load`: from the name of a data set to its arrays."""

from __future__ import annotations

import os
from pathlib import Path

from cnn_jax.data import cache
from cnn_jax.data.dataset import Dataset, compute_fingerprint, compute_statistics
from cnn_jax.data.drawings import measure_ink
from cnn_jax.data.folders import EMBEDDED, Prepared, Request, data_root, embedded_root, find_prepared, parse_name
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

    Returns:
      A `Dataset`.

    Raises:
      InputError: for an unknown name or split, images that differ in size without `image_size`, a data set that is not
        one image and one class label an example, or one that is not available (no internet, TensorFlow needed).
    """
    request, root = parse_name(name), data_root(data_dir)
    size = None if image_size is None else checked_size(image_size)
    prepared = _prepared(request, root)
    if not prepared.splits.get(split):
        sizes = ", ".join(f"{known} ({count:,})" for known, count in prepared.splits.items() if count)
        raise InputError(f"data set {prepared.name}: expected one of the splits {sizes}; got {split!r}")
    decoded = _decoded(prepared, split, size)
    for array in (decoded.images, decoded.labels):
        array.setflags(write=False)
    return Dataset(
        name=prepared.name,
        version=prepared.version,
        split=split,
        images=decoded.images,
        labels=decoded.labels,
        class_names=decoded.class_names,
        statistics=decoded.training.statistics,
        fingerprint=decoded.training.fingerprint,
        ink=decoded.training.ink,
    )


def _prepared(request: Request, root: Path) -> Prepared:
    for place in (root, embedded_root()) if request.name == EMBEDDED else (root,):
        if prepared := find_prepared(request, place):
            return prepared
    from cnn_jax.data.prepare import prepare

    return prepare(request, root)


def _decoded(prepared: Prepared, split: str, size: tuple[int, int] | None) -> cache.Decoded:
    # Only data sets whose images differ in size are kept by size; which they are is known once they are decoded.
    for kept_size in dict.fromkeys((None, size)):
        if found := cache.read(prepared, split, kept_size):
            return found
    from cnn_jax.data.decode import decode_split

    images, labels, class_names, varied = decode_split(prepared.name, prepared.path, split, size)
    kept_size = size if varied else None
    # The training split is the one of that name; of a data set without it, the first.
    training_split = "train" if prepared.splits.get("train") else next(iter(prepared.splits))
    key = (prepared.key, kept_size)
    if split == training_split:
        fingerprint = compute_fingerprint(images, labels, class_names)
        _TRAINING[key] = cache.Training(
            statistics=compute_statistics(images), ink=measure_ink(images), fingerprint=fingerprint
        )
    elif key not in _TRAINING:
        _TRAINING[key] = _decoded(prepared, training_split, size).training
    decoded = cache.Decoded(images=images, labels=labels, class_names=class_names, training=_TRAINING[key])
    cache.write(prepared, split, kept_size, decoded)
    return decoded
