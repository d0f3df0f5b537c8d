"""Files and records that are no readable pictures: named and passed over, or refused, of whatever source they are."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_jax.terminal import one_line

Fault = tuple[str, str]
"""What a file or record is called, and what is wrong with it."""

_MOST = 20  # named one by one


def refusal(faults: Sequence[Fault], what: str) -> str:
    """Why a strict source refuses them, the first by name; there are some, and `what` they are: "files of train"."""
    (name, fault), others = faults[0], len(faults) - 1
    return f"{name}: {fault}{f' (and {others:,} more of the {what})' if others else ''}"


def notes_on(faults: Sequence[Fault], what: str) -> list[str]:
    """A line for each up to a number, and how many more there are; `what` they are: "files"."""
    notes = [f"{name}: {one_line(fault)}; passed over" for name, fault in faults[:_MOST]]
    return notes if len(faults) <= _MOST else [*notes, f"{len(faults) - _MOST:,} more {what} passed over"]
