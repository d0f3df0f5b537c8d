"""From the records of a prepared data set to arrays, without TensorFlow.

Stock TFDS decodes example by example, 0.2 ms each for MNIST. Here records are fetched thousands at a time and only
the image and the label are taken out of them; plain PNG pictures of one size are decoded together, others by Pillow.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data import png
from cnn_jax.data.resizing import fit_images
from cnn_jax.errors import InputError

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")  # what a TFDS image feature holds, the commonest first
_RECORDS = 4096  # fetched at a time


def decode_split(
    name: str, path: Path, split: str, image_size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], bool]:
    """Decodes one split of the data set prepared in `path`.

    Args:
      name: what to call the data set in messages.
      path: a prepared folder, `.../NAME/VERSION`.
      split: a split that the data set has.
      image_size: (height, width) to bring images to by the rule of `fit_images` where they differ in size; images
        that are all of one size keep it.

    Returns:
      uint8 images (N, H, W, C), int32 labels (N,), class names, and whether the images differ in size.

    Raises:
      InputError: if the data set is not one of images in classes, its images differ in size and no `image_size` is
        given, examples have no label, it was not prepared as array_record, or its records are damaged.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    image_key, label_key = _keys(name, builder.info)
    image, label = builder.info.features[image_key], builder.info.features[label_key]
    varied = None in image.shape[:2]
    if varied and image_size is None:
        raise InputError(
            f"data set {name}: its images differ in size; give an image size (height, width) to bring them to"
        )
    if image.shape[-1] not in _MODES or image.np_dtype != np.uint8:
        raise InputError(
            f"data set {name}: expected uint8 images of 1 to 4 channels, got {image.np_dtype} {image.shape}"
        )
    try:
        source = builder.as_data_source(split=split).data_source
    except NotImplementedError as error:
        form = builder.info.file_format.value
        raise InputError(
            f"data set {name}: prepared as {form} in {path}, which cannot be read without TensorFlow; "
            "prepare it with file_format='array_record'"
        ) from error
    try:
        size = image_size if image_size and varied else image.shape[:2]
        images, labels = _decode_records(source, image_key, label_key, image.shape[-1], size, fit=varied)
    except MemoryError:
        raise
    except Exception as error:  # what damaged records make protobuf, Pillow and array_record raise is a long list
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"data set {name}: {path} cannot be decoded ({reason}); delete that folder, and it is prepared again"
        ) from error
    if labels.min(initial=0) < 0:
        raise InputError(f"data set {name}: split {split!r} has examples without a label")
    return images, labels, tuple(label.names), varied


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The features that are the image and the class: the supervised pair, else the only image and the only class."""
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    pair = info.supervised_keys
    if (
        pair
        and len(pair) == 2
        and all(isinstance(features.get(key), kind) for key, kind in zip(pair, kinds, strict=True))
    ):
        return pair
    found = [[key for key, feature in features.items() if isinstance(feature, kind)] for kind in kinds]
    if [len(keys) for keys in found] != [1, 1]:
        listing = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in sorted(features.items()))
        raise InputError(
            f"data set {name}: expected one image and one class label an example, got {listing or info.features}"
        )
    return found[0][0], found[1][0]


def _decode_records(
    source: Any, image_key: str, label_key: str, channels: int, size: tuple[int, int], fit: bool
) -> tuple[np.ndarray, np.ndarray]:
    from tensorflow_datasets.proto import tf_example_pb2

    images = np.empty((len(source), *size, channels), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _RECORDS):
        chunk = range(start, min(start + _RECORDS, len(source)))
        fields = [tf_example_pb2.Example.FromString(record).features.feature for record in source.__getitems__(chunk)]
        labels[start : chunk.stop] = [field[label_key].int64_list.value[0] for field in fields]
        pictures = [field[image_key].bytes_list.value[0] for field in fields]
        plain = None if fit else png.decode_plain(pictures, (*size, channels))
        if plain is not None:
            images[start : chunk.stop] = plain
            continue
        for index, picture in enumerate(pictures, start):
            image = _decode_image(picture, channels)
            if fit:
                image = fit_images(image[None], size)[0]
            if image.shape != images.shape[1:]:  # an assignment would stretch a single pixel or line
                raise ValueError(f"an image of shape {image.shape} among those of {images.shape[1:]}")
            images[index] = image
    return images, labels


def _decode_image(encoded: bytes, channels: int) -> np.ndarray:
    from PIL import Image

    png.check(io.BytesIO(encoded))
    picture: Image.Image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    if picture.mode != _MODES[channels]:
        picture = picture.convert(_MODES[channels])
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, channels)
