"""Emptying the folder of a run that is replaced: anything that cannot be deleted is refused before anything is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from cnn_jax.errors import InputError


def check_folder(path: Path) -> None:
    """InputError unless `path` is a folder, a link to one, or nothing yet."""
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(f"{path}: expected a folder, it is {_kind(path)}; put a folder there, or delete it")


def _kind(path: Path) -> str:
    return f"a link to {os.readlink(path)}, where there is none" if path.is_symlink() else "a file"


def plan(path: Path, names: Iterable[str], is_ours: Callable[[str, str], bool]) -> list[Path]:
    """What has to be deleted so that `path` has nothing of these names; nothing is deleted yet.

    A link to a folder, or a folder on which another disk is mounted, is kept: only its contents go.

    Args:
        path: a folder.
        names: names in it; missing ones are ignored.
        is_ours: whether, given such a name and an entry of the folder behind it, the entry may be deleted.

    Raises:
        InputError: something of it may not be deleted.
    """
    doomed: list[Path] = []
    for target in (path / name for name in sorted(names)):
        if target.is_dir() and (target.is_symlink() or os.path.ismount(target)):
            entries = sorted(target.iterdir())
            foreign = [entry.name for entry in entries if not is_ours(target.name, entry.name)]
            if foreign:
                raise InputError(
                    f"{target}: expected only what a run leaves in the folder that is linked or mounted there "
                    f"({target.resolve()}), found {foreign[0]!r}; nothing was deleted: remove the link, or choose "
                    "another folder"
                )
            doomed += entries
        elif target.is_symlink() and not target.exists():
            check_folder(target)
        elif os.path.lexists(target):
            doomed.append(target)
    for target in doomed:
        _check_may_delete(target)
    return doomed


def delete(doomed: Iterable[Path]) -> None:
    """Deletes files, folders with what is in them, and links, not what they lead to."""
    for target in doomed:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _check_may_delete(target: Path) -> None:
    folders = [target.parent]
    if target.is_dir() and not target.is_symlink():
        folders += [Path(folder) for folder, *_ in os.walk(target)]
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{folder}: expected a folder whose contents may be deleted, they may not; nothing was")
        if folder != target.parent and os.path.ismount(folder):
            raise InputError(f"{folder}: expected a plain folder, another disk is mounted on it; nothing was deleted")
