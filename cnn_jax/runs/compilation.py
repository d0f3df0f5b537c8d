"""What XLA has compiled, kept on disk from one process to the next: a setting of JAX, for commands to make."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax

from cnn_jax.data.folders import say_once
from cnn_jax.files import cache_root, writable

LIMIT = 2**29  # bytes; LeNet-5 trained, tested and reported on takes about a hundredth of it
_STAMP = ".checked"
_OPTIONS: Any = jax.config  # some versions of JAX declare its options to type checkers, some do not


def keep_compiled() -> None:
    """Makes JAX keep what it compiles in the cache folder, and take it from there in later processes.

    For commands, not for libraries. A user who has named a folder (JAX_COMPILATION_CACHE_DIR) or has forbidden the
    cache (JAX_ENABLE_COMPILATION_CACHE=0) is obeyed. JAX finds its entries by the program, the versions, the options of
    XLA and the devices, a CPU's instructions included, so machines can share a folder. Where no folder can be written
    this is said once, and nothing is kept.
    """
    if _OPTIONS.jax_compilation_cache_dir is not None or not _OPTIONS.jax_enable_compilation_cache:
        return
    folder = cache_root() / "compiled"
    try:
        if not writable(folder):
            raise PermissionError
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who can write here can run code as the user
    except OSError:
        say_once(f"the cache folder {cache_root()} cannot be written; programs are compiled afresh at every start")
        return
    with contextlib.suppress(OSError):  # another process tidies at the same time
        _tidy(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # The small programs too: there are dozens, and together they take as long as the large ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # An entry that cannot be read or written costs a compilation and nothing else.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def _tidy(folder: Path) -> None:
    """Deletes what a crash cut off, which JAX would never replace, and beyond `LIMIT` what was not used for longest.

    JAX has a limit of its own, but with it locks the folder for each entry it looks for, by a library it may lack.
    """
    stamp = folder / _STAMP
    checked = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()
    kept = []
    for entry in folder.glob("*-cache"):
        status = entry.stat()
        if status.st_mtime >= checked and not _is_whole(entry):
            entry.unlink()
        else:
            kept.append((max(status.st_atime, status.st_mtime), status.st_size, entry))
    excess = sum(size for _, size, _ in kept) - LIMIT
    for _, size, entry in sorted(kept):
        if excess <= 0:
            break
        entry.unlink()
        excess -= size


def _is_whole(entry: Path) -> bool:
    """Whether an entry can be unpacked to its end."""
    content = entry.read_bytes()
    if content.startswith(b"\x28\xb5\x2f\xfd"):  # Zstandard, which JAX takes where it is installed: not looked into
        return True
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(content)
    except zlib.error:
        return False
    return unpacker.eof
