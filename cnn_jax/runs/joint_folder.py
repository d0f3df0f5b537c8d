"""The folder of a run of several processes: process 0 opens and writes it, the others know where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_jax.errors import InputError
from cnn_jax.runs import hosts
from cnn_jax.runs.folder import IDENTITY, RunFolder, differences


@dataclass(frozen=True)
class JointFolder:
    """A folder that process 0 has opened, in another process.

    Attributes:
        path: the folder.
        run: the identity of the run, which its checkpoints carry.
    """

    path: Path
    run: str

    def close(self) -> None:
        """Nothing is open."""


def open_together(
    path: Callable[[], Path], contents: dict[str, Any], code: Mapping[str, Path] | None = None, **options: bool
) -> RunFolder | JointFolder:
    """A `RunFolder` in process 0, and what the others need of it there.

    Args:
        path: gives the folder; only process 0 asks.
        contents: as for `RunFolder`.
        code: as for `RunFolder`.
        **options: `resume` and `overwrite`.

    Raises:
        InputError: as `RunFolder`, in process 0; or, before it is opened and in all, one has another recipe, other data
            or other seeds than process 0.
        SystemExit: process 0 has refused.
    """
    identity = _identity(contents)
    other = differences(hosts.agree(lambda: identity), identity)
    named = ", ".join(other).replace("(run ", "(process 0 ").replace(", now ", ", here ")
    refusal = f"process: expected the options and data of process 0, but those of {hosts.index()} differ in {named}"
    hosts.end_together(InputError(refusal) if other else None)
    opened: list[RunFolder] = []

    def open_it() -> dict[str, str]:
        opened.append(RunFolder(path(), contents, code=code, **options))
        return {"path": str(opened[0].path), "run": opened[0].run}

    found = hosts.by_first(open_it)
    return opened[0] if opened else JointFolder(Path(found["path"]), found["run"])


def _identity(contents: Mapping[str, Any]) -> dict[str, Any]:
    return {key: json.loads(json.dumps(contents[key])) for key in IDENTITY if key in contents}
