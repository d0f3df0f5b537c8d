"""Opening a run for a command."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_jax.errors import InputError
from cnn_jax.training import Run, load_run
from cnn_jax.training.checkpoints import hush_orbax


def open_run(path: Path) -> Run:
    """`load_run`, with nothing from Orbax on standard error."""
    hush_orbax()
    return load_run(path)


def check_finite(run: Run, numbers: np.ndarray) -> None:
    """InputError if what the model of a run gives is not all finite."""
    if not np.isfinite(numbers).all():
        raise InputError(f"{run.path}: expected finite outputs of its model, got NaN or infinity; train it again")
