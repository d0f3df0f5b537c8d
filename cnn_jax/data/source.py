"""The kind of part that says where images come from."""

from __future__ import annotations

import abc
import os
import re
from dataclasses import dataclass, replace
from typing import Self

from cnn_jax.data.dataset import Dataset
from cnn_jax.errors import InputError
from cnn_jax.files import expanded
from cnn_jax.parts import Part, snake


@dataclass(frozen=True)
class Source(Part, abc.ABC):
    """The base of data sources. Asked twice for a split, a source gives equal arrays in the same order."""

    @abc.abstractmethod
    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        """Reads one split.

        Args:
          split: "train", "test", or another split that the data have.
          image_size: (height, width) that images are brought to, by the rule of `fit_images`, where they differ in
            size. Images that are all of one size keep it: to fit them, and what is padded with them, is the
            training's business.

        Returns:
          A `Dataset`. Its statistics and its fingerprint are those of the training split, whichever split it is.

        Raises:
          InputError: for data that are not there or cannot be used, or a split that they do not have.
        """

    @classmethod
    def named(cls, name: str) -> Source:
        """What a text means that is a name and no call: a data set of TensorFlow Datasets."""
        return TFDS(name)

    def validation(self, image_size: tuple[int, int]) -> Dataset | None:
        """The data's own images for choosing the best checkpoint, besides those to test on; None if there are none."""
        return None

    def encoded(self) -> Source:
        """The same images, but encoded until they are used, see `Encoded`; as they are where a source has no such."""
        return self

    @property
    def streams(self) -> bool:
        """Whether the images always stay encoded until they are used."""
        return False

    def decoded_bytes(self, image_size: tuple[int, int]) -> int:
        """About how large all images are as arrays; 0 where a source has no others."""
        return 0

    def label(self) -> str:
        """A short name for folders and screens: letters, digits, "-" and "_" only."""
        return snake(type(self).__name__)

    def here(self) -> Self:
        """The same with its paths made absolute, to be kept: a run may be evaluated from another folder."""
        return self


@dataclass(frozen=True)
class TFDS(Source):
    """A prepared data set of TensorFlow Datasets, read without TensorFlow; see `cnn_jax.data.load`.

    Raises:
      InputError: for a blank name.
    """

    name: str = "digits"
    """Data set: digits (built in, needs no download), mnist, fashion_mnist, kmnist, cifar10, cifar100, or any
    image classification data set of TensorFlow Datasets, as name, name/config or name:version."""
    dir: str | None = None
    """Folder of prepared data sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    strict: bool = False
    """Refuse a data set with records that cannot be read, instead of naming them."""

    def __post_init__(self) -> None:
        path_as_text(self, "dir")
        self.check("name", lambda name: isinstance(name, str) and bool(name.strip()), "the name of a data set")
        self.check("dir", lambda dir: dir is None or isinstance(dir, str), "the path of a folder")

    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        from cnn_jax.data.loading import load

        return load(self.name, split, data_dir=self.dir, image_size=image_size, strict=self.strict)

    def encoded(self) -> Source:
        return _EncodedTFDS(self.name, self.dir, self.strict)

    def decoded_bytes(self, image_size: tuple[int, int]) -> int:
        from cnn_jax.data.loading import decoded_bytes

        return decoded_bytes(self.name, data_dir=self.dir, image_size=image_size)

    def label(self) -> str:
        return short_name(self.name.partition(":")[0])

    def here(self) -> Self:
        return replace(self, dir=absolute(self.dir, "data folder")) if self.dir else self


class _EncodedTFDS(TFDS):
    """A prepared data set whose images stay encoded."""

    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        from cnn_jax.data.loading import load_encoded

        return load_encoded(self.name, split, data_dir=self.dir, image_size=image_size, strict=self.strict)


def path_as_text(source: Source, field: str) -> None:
    """Makes a path that was given as a `Path` what it is in texts and in files, a string."""
    value = getattr(source, field)
    if isinstance(value, os.PathLike):
        object.__setattr__(source, field, os.fspath(value))


def absolute(path: str, named: str) -> str:
    """A path with ~ replaced by the home folder, from the root of the file system.

    Raises:
      InputError: there is no such home folder, or no current folder any more; `named` is what named the path.
    """
    try:
        return str(expanded(path, named).absolute())
    except FileNotFoundError:
        raise InputError(f"{named}: {path} is relative to a current folder that is no longer there") from None


def short_name(text: str) -> str:
    """The characters of a text that are fit for a folder's name on any system: ASCII letters, digits, "-" and "_"."""
    return re.sub("[^A-Za-z0-9_]+", "-", text).strip("-") or "data"
