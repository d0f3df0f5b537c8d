"""The records of a run: `metrics.jsonl`, a JSON object a line, and the same numbers as TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.errors import StorageError
from cnn_jax.runs.folder import EVENTS, RECORDS, write_atomically
from cnn_jax.runs.storage import storing


class Records:
    """Appends to a run's records.

    The events are written here and not by tensorboardX's `SummaryWriter`, whose thread dies of a full disk; what is
    written after that waits for it for ever.

    Args:
        folder: the folder of the run.
        step: the step the run goes on from. Records of later steps, which the run is about to take again, are
            dropped, and so is a last line that a crash cut off.

    Raises:
        StorageError: here and in all methods, if the system does not take what is written.
    """

    def __init__(self, folder: Path, step: int):
        with _no_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2

        self._protos = event_pb2, summary_pb2
        self._folder, self._failed = folder, False
        path = folder / RECORDS
        kept = read_records(folder, until=step)
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._written = {(record.get("split"), record["step"]) for record in kept}
        with self._storing():
            self._file = path.open("a")
            (folder / EVENTS).mkdir(exist_ok=True)
            # The name has the second in it; two starts in one second are told apart by the step.
            self._events = EventsWriter(str(folder / EVENTS / "events"), f".{step}")
            if step:  # TensorBoard itself then hides the events of steps that are taken again.
                start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                self._write_event(step + 1, session_log=start)

    def write(self, split: str, step: int, values: dict[str, Any]) -> None:
        """Records the values of a split ("train", "batch", "validation", "test") after that many steps, once."""
        if (split, step) in self._written:
            return
        self._written.add((split, step))
        with self._storing():
            self._file.write(json.dumps({"split": split, "step": step, **values}) + "\n")
            self._file.flush()
            for name, value in values.items():
                scalar = self._protos[1].Summary.Value(tag=f"{split}/{name}", simple_value=value)
                self._write_event(step, summary=self._protos[1].Summary(value=[scalar]))

    def _write_event(self, step: int, **what: Any) -> None:
        self._events.write_event(self._protos[0].Event(wall_time=time.time(), step=step, **what))

    def flush(self) -> None:
        """Hands the events to the system, so that a crash of this process loses none before here."""
        with self._storing():
            self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        for file in (self._file, self._events):
            # What could not be written before is tried again, in vain; that has been said.
            with contextlib.suppress(OSError) if self._failed else self._storing():
                file.close()

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            with storing(self._folder, "its records "):
                yield
        except StorageError:
            self._failed = True
            raise


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
