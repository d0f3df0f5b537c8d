"""Decoded arrays on disk: written whole or not at all, memory-mapped, and checked before they are trusted.

An entry is a folder `CACHE/decoded/NAME/VERSION/SPLIT-KEY` with `images.npy`, `labels.npy` and `entry.json`; of a split
whose images stay encoded, `SPLIT-KEY-listed` with `rows.npy`, which records are images, in place of the first. The
JSON file names what the arrays are, with their checksums and one of itself. Whatever is wrong with an entry, `read`
answers None, the caller decodes again and `write` replaces the entry by a new one. Files are never changed
once they are there, so an array mapped by another process stays what it was.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.dataset import Dataset, Statistics
from cnn_jax.data.drawings import Ink
from cnn_jax.data.encoded import Images
from cnn_jax.data.folders import Prepared, say, say_once
from cnn_jax.files import cache_root, temporary_folder, writable

FORMAT = 1  # raise it whenever decoding or the meaning of a field changes


@dataclass(frozen=True, kw_only=True)
class Training:
    """What every split carries of the training split: its statistics, how it is drawn, and a hash of its examples."""

    statistics: Statistics
    ink: Ink | None
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A split.

    Attributes:
      labels: int32 (N,).
      class_names: one name a class.
      training: what every split carries of the training split; None before that is known.
      notes: lines to be shown whenever it is read, such as which files could not be.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    training: Training | None
    notes: tuple[str, ...] = ()

    def dataset(self, images: Images, name: str, split: str, version: str | None = None) -> Dataset:
        """The split with its images; the version is by default the beginning of the fingerprint. Shows the notes."""
        training = self.training
        assert training is not None
        for note in self.notes:
            say_once(note)
        for array in (images, self.labels):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
        return Dataset(
            name=name, version=version or training.fingerprint[:8], split=split, images=images, labels=self.labels,
            class_names=self.class_names, statistics=training.statistics, fingerprint=training.fingerprint,
            ink=training.ink,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Decoded(_Kept):
    """A split as decoded, with uint8 images (N, H, W, C)."""

    images: np.ndarray
    training: Training


@dataclass(frozen=True, kw_only=True)
class Listed(_Kept):
    """A split whose images stay encoded.

    Attributes:
      rows: int64 (N,), which of its records or files are images.
      image_shape: (H, W, C) that each is brought to.
    """

    rows: np.ndarray
    image_shape: tuple[int, int, int]


def read(prepared: Prepared, split: str, image_size: tuple[int, int] | None) -> Decoded | None:
    """Returns the cached arrays, memory-mapped and read-only, or None if there is no sound entry."""
    found = _read_sound(prepared, split, image_size, listed=False)
    return None if found is None else Decoded(images=found.pop("images"), **found)


def read_listed(prepared: Prepared, split: str, image_size: tuple[int, int] | None) -> Listed | None:
    """As `read`, for a split whose images stay encoded."""
    found = _read_sound(prepared, split, image_size, listed=True)
    return None if found is None else Listed(rows=found.pop("rows"), **found)


def _read_sound(
    prepared: Prepared, split: str, image_size: tuple[int, int] | None, listed: bool
) -> dict[str, Any] | None:
    folder = _folder(prepared, split, image_size, listed)
    if not folder.is_dir():
        return None
    try:
        return _read(folder, _identity(prepared, split, image_size), prepared.splits.get(split), listed)
    except Exception as error:  # a damaged file can make NumPy and json raise nearly anything
        say(f"the cache entry {folder} is damaged ({' '.join(str(error).split())[:100]}); decoding again")
        return None


def write(prepared: Prepared, split: str, image_size: tuple[int, int] | None, decoded: Decoded | Listed) -> bool:
    """Puts an entry in place, atomically; whether one is there now. Where the cache cannot be written, says so once."""
    folder = _folder(prepared, split, image_size, isinstance(decoded, Listed))
    if not writable(folder.parent):
        say_once(f"the cache folder {cache_root()} cannot be written; data sets are decoded afresh at every start")
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, ".writing-") as temporary:
            new = temporary / "new"
            new.mkdir()
            _write(new, _identity(prepared, split, image_size), decoded)
            if folder.exists():  # damaged, or put there by another process since: either way ours is sound
                os.rename(folder, temporary / "old")
            os.rename(new, folder)
        _sync(folder.parent)
    except OSError as error:
        # Another process may have got there first; then its entry is as good as ours.
        if not folder.is_dir():
            say_once(f"the cache entry {folder} cannot be written ({error.strerror}); going on without it")
            return False
    return True


def drop_others(prepared: Prepared) -> None:
    """Removes the entries that data of this name and version had with another key, before their files changed."""
    folder = cache_root() / "decoded" / prepared.name / prepared.version
    for entry in folder.iterdir() if folder.is_dir() else ():
        if prepared.key not in entry.name and not entry.name.startswith("."):
            shutil.rmtree(entry, ignore_errors=True)


def _folder(prepared: Prepared, split: str, image_size: tuple[int, int] | None, listed: bool) -> Path:
    size = f"-{image_size[0]}x{image_size[1]}" if image_size else ""
    name = f"{split}-{prepared.key}{size}{'-listed' if listed else ''}"
    return cache_root() / "decoded" / prepared.name / prepared.version / name


def _identity(prepared: Prepared, split: str, image_size: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": prepared.name,
        "version": prepared.version,
        "split": split,
        "key": prepared.key,
        "image_size": list(image_size) if image_size else None,
    }


def _read(folder: Path, identity: dict[str, Any], count: int | None, listed: bool) -> dict[str, Any]:
    entry = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
    if entry.pop("checksum") != _checksum_of(entry):
        raise ValueError("entry.json does not match its checksum")
    if {name: entry[name] for name in identity} != identity:
        raise ValueError("it is of another data set")
    arrays: dict[str, Any] = {}
    first: tuple[str, Any] = ("rows", np.int64) if listed else ("images", np.uint8)
    for name, dtype in (first, ("labels", np.int32)):
        array = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        if array.dtype != dtype or list(array.shape) != entry[name]["shape"] or (count or len(array)) < len(array):
            raise ValueError(f"{name}.npy is {array.dtype} {array.shape}")
        if _crc(array) != entry[name]["crc32"]:
            raise ValueError(f"{name}.npy does not match its checksum")
        arrays[name] = array
    mean, std = (tuple(entry["statistics"][name]) for name in ("mean", "std"))
    extent = entry["statistics"]["ink"]
    ink = None if extent is None else Ink(extent=extent, mean=mean[0])
    training = Training(statistics=Statistics(mean=mean, std=std), ink=ink, fingerprint=entry["fingerprint"])
    notes = tuple(entry.get("notes", ()))  # entries written before there were any stay valid
    if listed:
        arrays["image_shape"] = tuple(entry["image_shape"])
    return arrays | {"class_names": tuple(entry["class_names"]), "training": training, "notes": notes}


def _write(folder: Path, identity: dict[str, Any], decoded: Decoded | Listed) -> None:
    entry = identity | {"class_names": list(decoded.class_names), "notes": list(decoded.notes)}
    training = decoded.training
    assert training is not None
    # Of the ink, the mean is among the statistics.
    entry["statistics"] = asdict(training.statistics) | {"ink": training.ink.extent if training.ink else None}
    entry["fingerprint"] = training.fingerprint
    first = ("rows", decoded.rows) if isinstance(decoded, Listed) else ("images", decoded.images)
    if isinstance(decoded, Listed):
        entry["image_shape"] = list(decoded.image_shape)
    for name, array in (first, ("labels", decoded.labels)):
        with open(folder / f"{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        entry[name] = {"shape": list(array.shape), "crc32": _crc(array)}
    # Through JSON once, so that the checksum is of what a reader will see (lists for tuples).
    entry = json.loads(json.dumps(entry))
    with open(folder / "entry.json", "w", encoding="utf-8") as file:
        json.dump(entry | {"checksum": _checksum_of(entry)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _checksum_of(entry: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())


def _sync(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
