"""The records of a run: `metrics.jsonl`, a JSON object a line, and the same numbers as TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.training.folder import EVENTS, RECORDS, write_atomically


class Records:
    """Appends to a run's records.

    Args:
        folder: the folder of the run.
        step: the step the run goes on from. Records of later steps, which the run is about to take again, are
            dropped, and so is a last line that a crash cut off.
    """

    def __init__(self, folder: Path, step: int):
        with _no_torch():
            from tensorboardX import SummaryWriter

        path = folder / RECORDS
        kept = read_records(folder, until=step)
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._written = {(record.get("split"), record["step"]) for record in kept}
        self._file = path.open("a")
        # TensorBoard itself then hides the events of steps that are taken again.
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1 if step else None)

    def write(self, split: str, step: int, values: dict[str, Any]) -> None:
        """Records the values of a split ("train", "batch", "validation", "test") after so many steps, once."""
        if (split, step) in self._written:
            return
        self._written.add((split, step))
        self._file.write(json.dumps({"split": split, "step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Hands the events to the system, so that a crash of this process loses none before here."""
        self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._events.close()


@contextlib.contextmanager
def _no_torch() -> Iterator[None]:
    """tensorboardX imports PyTorch where there is one, which takes longer than all else at the start of a run."""
    modules: dict[str, Any] = sys.modules
    absent = "torch" not in modules
    if absent:
        modules["torch"] = None  # so that an import of it fails
    try:
        yield
    finally:
        if absent:
            del modules["torch"]


def read_records(folder: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The records of a run in order, up to and including step `until`; lines that are no records are passed over."""
    try:
        lines = (folder / RECORDS).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return [record for record in records if until is None or record["step"] <= until]
