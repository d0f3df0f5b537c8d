"""`cnn-jax report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path

from cnn_jax import terminal
from cnn_jax.data.pictures import shown
from cnn_jax.files import is_stream
from cnn_jax.report import write_report


def report(path: Path, out: Path | None) -> None:
    """Writes the report on a run and prints where it is.

    Raises:
        InputError: there is no such run, or the file cannot be written.
    """
    written = write_report(path, out)
    if not is_stream(written):  # standard output among them: there the page is to be alone
        terminal.say(shown(written))
