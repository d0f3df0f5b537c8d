"""Downloading and preparing: what happens once, when a data set is not there yet."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.data.folders import Prepared, Request, cache_root, find_prepared, say, writable
from cnn_jax.errors import InputError


def prepare(request: Request, root: Path) -> Prepared:
    """Prepares a data set."""
    if request.name == "digits":
        return prepare_digits(request, root)
    raise InputError(f"data set {request.name} is not prepared in {root}")


def prepare_digits(request: Request, root: Path) -> Prepared:
    """Prepares the embedded digits under `root`, or in the cache folder where that cannot be written."""
    if not writable(root):
        root = embedded_root()
    say(f"preparing digits (1,797 images, once) in {root}")
    with _folder_for(root) as temporary:
        from cnn_jax.data.digits import Digits

        with _silence():
            builder = Digits(data_dir=temporary, file_format="array_record")
            builder.download_and_prepare(download_dir=os.path.join(temporary, "downloads"))
        _put_in_place(temporary, root, builder)
    prepared = find_prepared(request, root)
    assert prepared is not None
    return prepared


def embedded_root() -> Path:
    """The data folder inside the cache folder, for the digits of those who cannot write their data folder."""
    return cache_root() / "tfds"


@contextlib.contextmanager
def _folder_for(root: Path) -> Iterator[str]:
    """A temporary folder inside `root`, so that what is made in it can be renamed into place."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=root, prefix=".preparing-")
    except OSError as error:
        raise InputError(
            f"the data folder {root} cannot be written ({error.strerror}); choose another by TFDS_DATA_DIR"
        ) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: str, root: Path, builder: Any) -> None:
    target = root / Path(builder.data_dir).relative_to(temporary)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(builder.data_dir, target)
    except OSError:
        if not target.is_dir():  # else another process has prepared the same meanwhile
            raise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps TFDS's headline and progress bars off the terminal."""
    from tensorflow_datasets.core.utils import tqdm_utils

    shown = tqdm_utils._active
    tqdm_utils.display_progress_bar(False)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(shown)
