"""Tables on standard output, never narrower than what they hold: a pipe gets whole lines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

WIDTH = 80  # columns that a matrix may take before it is summed up instead


def show(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """Prints a table.

    Args:
        header: names of the columns.
        rows: cells.
        left: columns to align left; the others are aligned right.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def show_json(value: Any) -> None:
    """Prints a value as JSON; numbers that are not finite, for which JSON has no words, as null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(plain(value), indent=2))


def percent(share: float) -> str:
    """A share as 98.33%, one that is not defined as a dash."""
    return f"{share:.2%}" if math.isfinite(share) else "-"
