"""Writing a file for a user: afterwards the new one is there whole, or the old one as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path

from cnn_jax.errors import InputError
from cnn_jax.files.scratch import hold, sweep

_PREFIX = ".cnn_jax-writing-"
_LINKS = 40  # the system follows no more either


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all, whatever stands in its place.

    A regular file is replaced by one that is written beside it, with the mode and, if the system lets us, the owner of
    the old one. Links are followed and stay; what a dangling one names is made. Pipes, terminals and other character
    devices (/dev/null), and what /dev/stdout or /dev/fd/3 stand for, are written to.

    Args:
        path: the file, in an existing folder.
        content: text, to be written as UTF-8, or bytes.

    Raises:
        InputError: the path is that of a folder, a socket or a block device; or it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        descriptor = _own_descriptor(path)
        if descriptor is not None:
            sys.stdout.flush()  # what was printed before comes before
            _write_through(os.dup(descriptor), data)
            return
        mode = _mode(path)
        if mode is None or stat.S_ISREG(mode):
            _replace(Path(os.path.realpath(path)), data)
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            _write_through(os.open(path, os.O_WRONLY | os.O_NOCTTY), data)
        else:
            kinds = {stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device"}
            kind = kinds.get(stat.S_IFMT(mode), "none")
            raise InputError(f"{path}: expected a file to write to, it is {kind}; choose another")
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be written, got: {error.strerror or error}") from None


def is_stream(path: Path) -> bool:
    """Whether `write_file` writes to what stands at the path, a pipe, a device, standard output, and keeps no file."""
    with contextlib.suppress(OSError):
        return _own_descriptor(path) is not None or not stat.S_ISREG(_mode(path) or stat.S_IFREG)
    return False


def _mode(path: Path) -> int | None:
    """Kind and permissions of what is at the path, links followed; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that the path stands for, as /dev/stdout and /dev/fd/3 do; else None.

    Opening such a path anew would begin at the start of the file and cut off what was written by the descriptor.
    """
    place = os.path.abspath(path)
    for _ in range(_LINKS):
        folder, name = os.path.split(place)
        folder = os.path.realpath(folder)
        if folder in (f"/proc/{os.getpid()}/fd", "/dev/fd") and name.isdecimal():
            return int(name)
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


def _write_through(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    """Puts a regular file in place, whether or not there was one."""
    old = target.stat() if target.exists() else None
    # A file that its mode forbids everybody to write is left alone even by the superuser, who could.
    if old is not None and not (os.access(target, os.W_OK) and stat.S_IMODE(old.st_mode) & 0o222):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    sweep(target.parent, _PREFIX)
    temporary = target.parent / f"{_PREFIX}{secrets.token_hex(8)}"
    # Not by tempfile, whose files nobody else may read: a new file has the mode that the user's umask gives.
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        try:
            hold(file)
            if old is not None:
                with contextlib.suppress(OSError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """Makes a change of the names in a folder last."""
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
