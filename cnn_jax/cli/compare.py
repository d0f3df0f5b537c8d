"""`cnn-jax compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnn_jax import terminal
from cnn_jax.data.pictures import shown
from cnn_jax.files import is_stream
from cnn_jax.report.comparison import differing, figures, read_sides, write_comparison


def compare(paths: Sequence[Path], out: Path | None) -> None:
    """Prints the figures of some runs and which of their options differ; with `out`, writes a page with curves too.

    Raises:
        InputError: there are fewer than two runs, one of them cannot be read, or the file cannot be written.
    """
    sides = read_sides(paths)
    if out is not None:
        write_comparison(sides, out)
        if is_stream(out):  # standard output among them: there the page is to be alone
            return
    header, rows = figures(sides)
    terminal.show_table(header, rows)
    differences = differing(sides)
    if differences:
        terminal.say("")
        header = ["option", *(side.name for side in sides)]
        terminal.show_table(header, differences, left=range(len(header)))
    else:
        terminal.say("no option differs")
    if out is not None:
        terminal.say(f"page: {shown(out)}")
