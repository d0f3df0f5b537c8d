"""Opening a run for a command."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cnn_jax.errors import InputError
from cnn_jax.training import Run, load_run


def open_run(path: Path) -> Run:
    """`load_run`, with nothing from Orbax on standard error; what matters of it is in our own lines.

    Orbax logs warnings as it reads. Where a checkpoint is damaged it also leaves tasks behind, and Python prints page
    long tracebacks when it throws those away, up to the end of the process; so they are ignored for good.
    """
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    sys.unraisablehook = lambda unraisable: None
    return load_run(path)


def check_finite(run: Run, numbers: np.ndarray) -> None:
    """InputError if what the model of a run gives is not all finite."""
    if not np.isfinite(numbers).all():
        raise InputError(f"{run.path}: expected finite outputs of its model, got NaN or infinity; train it again")
