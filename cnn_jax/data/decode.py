"""From the records of a prepared data set to arrays, without TensorFlow.

Stock TFDS decodes example by example, 0.2 ms each for MNIST. Here records are fetched thousands at a time and only
the image and the label are taken out of them; plain PNG pictures of one size are decoded together, others by Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data import jpeg, png
from cnn_jax.data.faults import notes_on, refusal
from cnn_jax.data.resizing import fit_images
from cnn_jax.errors import InputError

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")  # what a TFDS image feature holds, the commonest first
_RECORDS = 4096  # fetched at a time


@dataclass(frozen=True, kw_only=True)
class Split:
    """The records of a split, each of which can be read by itself.

    Attributes:
      name: what to call the data set in messages.
      path: the prepared folder.
      split: which of its splits.
      source: of the serialised examples.
      image_key: the feature that is the image.
      label_key: the feature that is the class.
      image_shape: (H, W, C) that each image has or, where they differ in size, is brought to.
      class_names: one name a class.
      varied: whether they differ in size.
    """

    name: str
    path: Path
    split: str
    source: Any
    image_key: str
    label_key: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    varied: bool

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`, uint8 (H, W, C); InputError if it is damaged."""
        found = self.read(index)
        if isinstance(found, str):
            raise self._refusal(f"{self._called(index)}: {found}")
        return found[0]

    def read(self, index: int) -> tuple[np.ndarray, int] | str:
        """Image and label `index`, or what is wrong with the record."""
        try:
            picture, label = self.parse(self.source[index])
        except Exception as error:
            return _fault(error)
        return self.decode(picture, label)

    def parse(self, record: bytes) -> tuple[bytes, int]:
        """The encoded image and the label in a record."""
        from tensorflow_datasets.proto import tf_example_pb2

        fields = tf_example_pb2.Example.FromString(record).features.feature
        return fields[self.image_key].bytes_list.value[0], fields[self.label_key].int64_list.value[0]

    def decode(self, picture: bytes, label: int) -> tuple[np.ndarray, int] | str:
        """An image from its bytes, with its label, or what is wrong with it."""
        try:
            return self._decode(picture), label
        except Exception as error:
            return _fault(error)

    def _decode(self, encoded: bytes) -> np.ndarray:
        image = _decode_image(encoded, self.image_shape[-1])
        if self.varied:
            image = fit_images(image[None], self.image_shape[:2])[0]
        if image.shape != self.image_shape:  # an assignment would stretch a single pixel or line
            raise ValueError(f"an image of shape {image.shape} among those of {self.image_shape}")
        return image

    def check(self, labels: np.ndarray, faults: Sequence[tuple[int, str]], strict: bool) -> tuple[str, ...]:
        """Notes on the records that cannot be read.

        Args:
          labels: those of all others.
          faults: of those records, index and what is wrong.
          strict: whether to refuse them.

        Raises:
          InputError: there are some, if strict; no others; or a label that is no class.
        """
        named = [(self._called(index), fault) for index, fault in faults]
        if named and (strict or not len(labels)):
            raise self._refusal(refusal(named, f"records of {self.split}"))
        if labels.min(initial=0) < 0:
            raise InputError(f"data set {self.name}: split {self.split!r} has examples without a label")
        most = len(self.class_names) - 1
        if labels.max(initial=0) > most:
            raise InputError(
                f"data set {self.name}: expected labels from 0 to {most} in {self.split}, got {labels.max()}"
            )
        return tuple(f"{self.name}: {note}" for note in notes_on(named, "records"))

    def _called(self, index: int) -> str:
        return f"record {index} of {self.split}"

    def _refusal(self, fault: str) -> InputError:
        return InputError(f"data set {self.name}: {fault}; delete {self.path}, and it is prepared again")


def open_split(name: str, path: Path, split: str, image_size: tuple[int, int] | None) -> Split:
    """Opens one split of the data set prepared in `path`.

    Args:
      name: what to call the data set in messages.
      path: a prepared folder, `.../NAME/VERSION`.
      split: a split that the data set has.
      image_size: (height, width) to bring images to by the rule of `fit_images` where they differ in size; images
        that are all of one size keep it.

    Raises:
      InputError: if the data set is not one of images in classes, its images differ in size and no `image_size` is
        given, or it was not prepared as array_record.
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
    height, width = image_size if image_size and varied else image.shape[:2]
    return Split(
        name=name, path=path, split=split, source=source, image_key=image_key, label_key=label_key,
        image_shape=(height, width, image.shape[-1]), class_names=tuple(label.names), varied=varied,
    )  # fmt: skip


def decode_split(
    name: str, path: Path, split: str, image_size: tuple[int, int] | None, strict: bool
) -> tuple[np.ndarray, np.ndarray, Split, tuple[str, ...]]:
    """Decodes one split of the data set prepared in `path`; the arguments are those of `open_split`.

    Returns:
      uint8 images (N, H, W, C), int32 labels (N,), the split, and a line for each record that was passed over.

    Raises:
      InputError: as `open_split` and `Split.check`.
    """
    opened = open_split(name, path, split, image_size)
    images = np.empty((len(opened), *opened.image_shape), np.uint8)
    labels: list[int] = []
    faults: list[tuple[int, str]] = []
    for start in range(0, len(opened), _RECORDS):
        chunk = range(start, min(start + _RECORDS, len(opened)))
        for index, found in zip(chunk, _read_chunk(opened, chunk), strict=True):
            if isinstance(found, str):
                faults.append((index, found))
                continue
            images[len(labels)] = found[0]
            labels.append(found[1])
    notes = opened.check(np.array(labels, np.int64), faults, strict)
    return images[: len(labels)], np.array(labels, np.int32), opened, notes


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


def _read_chunk(split: Split, chunk: range) -> Iterator[tuple[np.ndarray, int] | str]:
    """`Split.read` of each."""
    try:
        examples = [split.parse(record) for record in split.source.__getitems__(chunk)]
    except Exception:  # one of them at least cannot be read
        yield from map(split.read, chunk)
        return
    together = None if split.varied else png.decode_plain([picture for picture, _ in examples], split.image_shape)
    if together is None:
        yield from (split.decode(*example) for example in examples)
    else:
        yield from zip(together, (label for _, label in examples), strict=True)


def _fault(error: Exception) -> str:
    """What is wrong with a record that made protobuf, Pillow or array_record raise something, which is a long list."""
    from PIL import UnidentifiedImageError

    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, UnidentifiedImageError):
        return "expected a PNG, JPEG, BMP or GIF picture, its contents are something else"
    return f"expected a readable picture, got: {' '.join(str(error).split())[:200] or type(error).__name__}"


def _decode_image(encoded: bytes, channels: int) -> np.ndarray:
    from PIL import Image

    pixels = jpeg.decode_plain(encoded)
    if pixels is not None and pixels.shape[-1] == channels:
        return pixels
    png.check(io.BytesIO(encoded))
    picture: Image.Image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    if picture.mode != _MODES[channels]:
        picture = picture.convert(_MODES[channels])
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, channels)
