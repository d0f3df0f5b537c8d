"""Folders with a folder of pictures for each class: their files, each with its split and class."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cnn_jax.data.pictures import SUFFIXES, shown
from cnn_jax.data.splits import HELD_OUT
from cnn_jax.errors import InputError
from cnn_jax.terminal import plain


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in the folder of a class: `path` within the whole, index of the class, size and time of change."""

    path: str
    label: int
    size: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder of classes.

    Attributes:
      root: the folder.
      class_names: the names of the training split's class folders, sorted.
      splits: the files of each split that has a folder, "train" first, by class and then by name; "train" alone where
        a test split is still to be made of some of them.
      notes: a line for each thing that was skipped, perhaps against the user's intention.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, tuple[File, ...]]
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        """A hash that changes when a file does."""
        return hashlib.sha256(repr((os.path.abspath(self.root), self.class_names, self.splits)).encode()).hexdigest()


def list_files(root: Path) -> Listing:
    """Finds the files of class folders: `root/train/CLASS/...` and the like for other splits, or `root/CLASS/...`.

    Hidden files and folders are passed over. The order is by name, whatever order the file system has.

    Raises:
      InputError: no such folder, fewer than two classes, a class without files or without training files.
    """
    if not root.is_dir():
        arrived = "it is a file" if root.exists() else "there is none"
        raise InputError(f"{shown(root)}: expected a folder of pictures, {arrived}")
    folders, notes = _split_folders(root)
    class_names = tuple(_subfolders(folders["train"]))
    if len(class_names) < 2:
        found = f"only {plain(class_names[0])}" if class_names else "none"
        raise InputError(f"{shown(folders['train'])}: expected a folder of pictures for each class, found {found}")
    splits = {}
    for split, folder in folders.items():
        for name in _subfolders(folder):
            if name not in class_names:
                known = f"one of {len(class_names)}" if len(class_names) > 10 else plain(", ".join(class_names))
                raise InputError(f"{shown(folder / name)}: expected a class of the training split ({known})")
        splits[split] = tuple(
            file for label, name in enumerate(class_names) for file in _files(root, folder / name, label)
        )
        stray = [name for name in _names(folder) if name.lower().endswith(SUFFIXES)]
        if stray:
            count = f"{len(stray):,} picture{'s' * (len(stray) > 1)}"
            notes.append(f"{shown(folder)}: {count} in no folder of a class, such as {plain(stray[0])}; passed over")
    if folders["train"] == root and splits["train"] and all(len(Path(f.path).parts) > 2 for f in splits["train"]):
        raise InputError(
            f"{shown(root)}: expected pictures in the folders of classes, these contain only folders: "
            f"{plain(', '.join(class_names))}; those of splits are called train and test"
        )
    present = {file.label for file in splits["train"]}
    for label, name in enumerate(class_names):
        if label not in present:
            raise InputError(f"{shown(folders['train'] / name)}: expected pictures, it is empty; fill or remove it")
    return Listing(root=root, class_names=class_names, splits=splits, notes=tuple(notes))


def _split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders that have the folders of classes in them, by split, and a line for each that should but does not."""
    if not _subfolders(root / "train"):
        return {"train": root}, []
    folders, notes = {"train": root / "train"}, []
    for name in HELD_OUT:
        if _subfolders(root / name):
            folders[name] = root / name
        elif (root / name).is_dir():
            notes.append(f"{shown(root / name)} has no folders of classes in it; passed over")
    return folders, notes


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise InputError(f"{shown(folder)}: expected a readable folder, got: {error.strerror}") from None


def _subfolders(folder: Path) -> list[str]:
    return [name for name in _names(folder) if (folder / name).is_dir()] if folder.is_dir() else []


def _files(root: Path, folder: Path, label: int) -> Iterator[File]:
    within, inside = str(folder.relative_to(root)), str(folder)
    for name in _names(folder) if folder.is_dir() else ():
        try:
            status = os.stat(os.path.join(inside, name))
        except OSError:  # a link to nothing: reading it tells
            status = None
        if status and stat.S_ISDIR(status.st_mode):
            if not (folder / name).is_symlink():  # which could lead round in a circle
                yield from _files(root, folder / name, label)
            continue
        yield File(
            path=os.path.join(within, name), label=label,
            size=status.st_size if status else 0, changed=status.st_mtime_ns if status else 0,
        )  # fmt: skip
