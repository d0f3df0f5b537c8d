"""The user's home folder, where there is one: in containers there may be none, or one that cannot be written."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from pathlib import Path

from cnn_jax import terminal
from cnn_jax.errors import InputError


def at_home(*parts: str) -> Path:
    """A place in the user's home folder, or in a folder of the user's among the temporary files.

    The second where there is no home folder, or nothing at that place and nothing can be made there.
    """
    with contextlib.suppress(RuntimeError):
        place = Path.home().joinpath(*parts)
        if os.path.exists(place) or writable(place):
            return place
    return _temporary_home().joinpath(*parts)


def cache_root() -> Path:
    """Where this package keeps what it can make again: CNN_JAX_CACHE, else the user's cache folder."""
    if own := os.environ.get("CNN_JAX_CACHE"):
        return expanded(own, "CNN_JAX_CACHE")
    if given := os.environ.get("XDG_CACHE_HOME"):
        return expanded(given, "XDG_CACHE_HOME") / "cnn_jax"
    return at_home(".cache", "cnn_jax")


def expanded(place: str | os.PathLike[str], named: str) -> Path:
    """A path with ~ and ~NAME replaced by the home folders.

    Raises:
        InputError: there is no such home folder; `named` is what named the path.
    """
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise InputError(f"{named}: expected a folder, got {place}, but there is no such home folder") from None


def provide_home() -> None:
    """Gives libraries a home folder where the user has none, and matplotlib a folder that it can write.

    They look for one as they are imported, and fail or complain. For commands, not for libraries: it changes the
    environment of the process.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_temporary_home())
    places = (
        Path(os.environ.get(name) or Path.home() / own, "matplotlib")
        for name, own in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
    )
    if "MPLCONFIGDIR" not in os.environ and not all(map(writable, places)):
        os.environ["MPLCONFIGDIR"] = str(cache_root() / "matplotlib")


def writable(folder: Path) -> bool:
    """Whether files may be made in `folder`, or in its nearest parent that exists.

    A folder that its mode forbids everybody to write is left alone even by the superuser, who could.
    """
    while not os.path.exists(folder):  # of what may not be looked at this says that it is not there
        if folder == folder.parent:
            return False
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK) and bool(stat.S_IMODE(folder.stat().st_mode) & 0o222)


@functools.cache
def _temporary_home() -> Path:
    """The same folder for all processes of a user, if it is the user's alone; else a new one. Said once."""
    place = Path(tempfile.gettempdir(), f"cnn_jax-{os.getuid()}")
    with contextlib.suppress(OSError):  # then nothing can be written there, which is said where it is tried
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        status = place.lstat()
        # Compiled programs are kept in it: who can write here can run code as the user.
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            place = Path(tempfile.mkdtemp(prefix="cnn_jax-"))
    said = f"no home folder that can be written: data and caches go to {place}"
    terminal.complain(f"cnn_jax: {terminal.one_line(said)}; TFDS_DATA_DIR and CNN_JAX_CACHE name other places")
    return place
