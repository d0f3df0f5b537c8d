"""A minimal stand-in for TensorFlow while TFDS prepares a data set.

TFDS writes records without TensorFlow, yet reaches for it in a few places on the way: to read and write plain files,
to encode images, to ask whether it runs eagerly. That little is here, on plain files and Pillow, so that the stock
builders run unchanged where TensorFlow is not installed. Whatever else is asked for raises `MissingTensorFlowError`.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

_JPEG_QUALITY = 95  # the default of tf.image.encode_jpeg


class MissingTensorFlowError(AttributeError):
    """Something of TensorFlow was asked for that the stand-in does not have; the message is its name: "tf.foo"."""


@contextlib.contextmanager
def without_tensorflow(*module_names: str) -> Iterator[None]:
    """Puts the stand-in in place of TensorFlow in TFDS's modules, and takes it out again.

    Does nothing where TensorFlow is installed. Modules that TFDS loads meanwhile take the stand-in over from the
    module they all import TensorFlow from, and are restored with the others.

    Args:
      module_names: further modules that may hold TFDS's lazily imported TensorFlow, such as a builder's own.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    from tensorflow_datasets.core.utils import lazy_imports_utils

    lazy, stand_in = lazy_imports_utils.tensorflow, _tensorflow()
    try:
        _replace(lazy, stand_in, module_names)
        yield
    finally:
        _replace(stand_in, lazy, module_names)


def _replace(old: Any, new: Any, module_names: tuple[str, ...]) -> None:
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "tensorflow_datasets" or name in module_names:
            for attribute, value in list(vars(module).items()):
                if value is old:
                    setattr(module, attribute, new)


class _Namespace:
    def __init__(self, path: str, **members: Any):
        self._path = path
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        raise MissingTensorFlowError(f"{self._path}.{name}")


class _Errors:
    """tf.errors: plain files raise OSError, so any error class can be named in an `except` and none ever comes."""

    def __getattr__(self, name: str) -> type[Exception]:
        return type(name, (Exception,), {})


class _Encoded:
    """The result of an encoder, as far as TFDS looks at it."""

    def __init__(self, data: bytes):
        self._data = data

    def numpy(self) -> bytes:
        return self._data


def _encode_png(image: np.ndarray) -> _Encoded:
    return _encode(image, "PNG")


def _encode_jpeg(image: np.ndarray) -> _Encoded:
    return _encode(image, "JPEG", quality=_JPEG_QUALITY)


def _encode(image: np.ndarray, form: str, **options: Any) -> _Encoded:
    from PIL import Image

    if image.dtype != np.uint8:
        raise MissingTensorFlowError(f"tf.image.encode_{form.lower()} of {image.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form, **options)
    return _Encoded(buffer.getvalue())


def _open(name: str | os.PathLike[str], mode: str = "r") -> Any:
    return open(name, mode, encoding=None if "b" in mode else "utf-8")


def _copy(source: str | os.PathLike[str], target: str | os.PathLike[str], overwrite: bool = False) -> None:
    if not overwrite and os.path.exists(target):
        raise FileExistsError(f"{os.fspath(target)} is there already")
    shutil.copyfile(source, target)


def _as_text(text: str | bytes, encoding: str = "utf-8") -> str:
    return text if isinstance(text, str) else text.decode(encoding)


def _as_bytes(text: str | bytes, encoding: str = "utf-8") -> bytes:
    return text if isinstance(text, bytes) else text.encode(encoding)


def _tensorflow() -> _Namespace:
    gfile = _Namespace(
        "tf.io.gfile",
        GFile=_open,
        copy=_copy,
        exists=os.path.exists,
        glob=glob.glob,
        isdir=os.path.isdir,
        listdir=os.listdir,
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        remove=os.remove,
        walk=os.walk,
    )
    return _Namespace(
        "tf",
        compat=_Namespace("tf.compat", as_bytes=_as_bytes, as_text=_as_text),
        errors=_Errors(),
        executing_eagerly=lambda: True,
        image=_Namespace("tf.image", encode_jpeg=_encode_jpeg, encode_png=_encode_png),
        io=_Namespace("tf.io", gfile=gfile),
    )
