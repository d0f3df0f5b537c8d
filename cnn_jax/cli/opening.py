"""Checks that commands share."""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import InputError
from cnn_jax.runs.load import Run


def check_finite(run: Run, numbers: np.ndarray) -> None:
    """InputError if what the model of a run gives is not all finite."""
    if not np.isfinite(numbers).all():
        raise InputError(f"{run.path}: expected finite outputs of its model, got NaN or infinity; train it again")
