"""A run's copies of the users' files that its parts are from: by them it is used wherever and whenever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_jax.errors import InputError

CODE = "code"  # the folder of the copies, in that of the run


class Code:
    """The users' files that parts of a run are from, read once: what is described is what is copied."""

    def __init__(self, files: Mapping[str, Path]):
        self._contents: dict[str, bytes] = {}
        self.described: dict[str, dict[str, str]] = {}
        for written, file in files.items():
            try:
                content = file.read_bytes()
            except OSError as error:
                raise InputError(f"{written}: expected a file that can be read, got: {error.strerror}") from None
            # Two files of one name in different folders are distinguished by a number.
            name, number = file.name, 1
            while name in self._contents:
                number += 1
                name = f"{file.stem}-{number}.py"
            self._contents[name] = content
            self.described[written] = {"copy": f"{CODE}/{name}", "sha256": hashlib.sha256(content).hexdigest()}

    def copy_to(self, folder: Path) -> None:
        """Writes the files into a folder, if there are any."""
        if self._contents:
            folder.mkdir(exist_ok=True)
        for name, content in self._contents.items():
            (folder / name).write_bytes(content)


def code_of(path: Path, contents: Mapping[str, Any]) -> dict[str, Path]:
    """The run's copies of users' files, by their paths as texts have them.

    Raises:
        InputError: a copy is missing, or is not what was copied.
    """
    found = {}
    for written, described in contents["code"].items():
        copy = path / described["copy"]
        try:
            digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{copy}: expected the run's copy of {written}, got: {error.strerror}") from None
        if digest != described["sha256"]:
            raise InputError(f"{copy}: expected the run's copy of {written}, but it has been changed; put it back")
        found[written] = copy
    return found
