"""Files of the user's that hold parts: they are imported where a text names them, and told of where a text is made."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_jax.errors import InputError
from cnn_jax.parts.classes import PACKAGE

_WRITTEN = "__cnn_jax_written__"  # On a module of a user's file: its path as a text has it, or None for its own.


def load(path: Path, written: str) -> ModuleType:
    """The module of a user's file: as Python has imported it, the running script too, or else imported now.

    While it is imported its folder is on `sys.path`. It is imported once for each content it has, so that its classes
    are the same whenever a text names them.

    Args:
        path: the file.
        written: its path as the text has it, which texts of its classes keep.

    Raises:
        InputError: the file cannot be read, or its code raises; that exception is the cause.
    """
    try:
        resolved = path.resolve(strict=True)
        content = resolved.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL in the path
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"{written}: expected a Python file with the part's class, got {reason.lower()}") from error
    for module in list(sys.modules.values()):
        if not hasattr(module, _WRITTEN) and _is_of(module, resolved):
            return module
    digest = hashlib.sha256(os.fsencode(resolved) + b"\0" + content).hexdigest()[:16]
    name = f"{resolved.stem}_{digest}"
    own = None if _is_same(Path(written), resolved) else written
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, resolved)
        assert spec is not None  # as the name ends in .py
        sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            with _on_path(resolved.parent):
                # Not by the loader, which would leave a __pycache__ beside the file.
                exec(compile(content, resolved, "exec", dont_inherit=True), vars(sys.modules[name]))
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{written}: expected a file that can be imported, got {said}") from error
        except BaseException:
            del sys.modules[name]
            raise
    setattr(sys.modules[name], _WRITTEN, own)
    return sys.modules[name]


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _is_same(path: Path, resolved: Path) -> bool:
    try:
        return path.resolve() == resolved
    except (OSError, RuntimeError, ValueError):
        return False


def _is_of(module: Any, resolved: Path) -> bool:
    file = getattr(module, "__file__", None)
    # Resolving the files of all modules would take longer than it may.
    return isinstance(file, str) and os.path.basename(file) == resolved.name and _is_same(Path(file), resolved)


def file_of(kind: type) -> Path | None:
    """The file that a class's module was read from; None for a notebook, a prompt, or what is no Python file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    path = Path(file) if isinstance(file, str) else None
    return path.absolute() if path is not None and path.suffix == ".py" and path.is_file() else None


def is_installed(kind: type) -> bool:
    """Whether a class is one of this package, of the standard library or of an installed package."""
    if kind.__module__.partition(".")[0] == PACKAGE:
        return True
    file = file_of(kind)
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    folders += [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")]
    is_script = kind.__module__ == "__main__"
    return not is_script and file is not None and any(file.is_relative_to(folder) for folder in folders)


def written(kind: type, file: Path) -> str:
    """The path of a class's file as its text has it: as it was written, relative to this folder, or absolute."""
    own = getattr(sys.modules[kind.__module__], _WRITTEN, None)
    if own is not None:
        return str(own)
    here = Path.cwd()
    for path, folder in ((file, here), (file.resolve(), here.resolve())):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return file.as_posix()


def files_of(*parts: Any) -> dict[str, Path]:
    """The user's files that parts, and the parts in tuples, come from: the path as its text has it, the actual file."""
    found = {}
    for part in parts:
        if isinstance(part, tuple):
            found.update(files_of(*part))
        elif not is_installed(type(part)):
            file = file_of(type(part))
            if file is not None:
                found[written(type(part), file)] = file
    return found
