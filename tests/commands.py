"""`cnn-jax` in the process of a test."""

from __future__ import annotations

import sys

from cnn_jax import cli


def run_command(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it for its process
    monkeypatch.setattr(sys, "argv", ["cnn-jax", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()
