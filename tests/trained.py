"""A real run on the embedded digits, trained once a test session. Only to be read: copy it to damage it."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data import TFDS
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import LeNet5
from cnn_jax.runs import CheckpointConfig, Execution, Place
from cnn_jax.training import Recipe
from tests.sharing import made_once


def trained(factory: pytest.TempPathFactory) -> Path:
    """The folder of LeNet-5 trained for ten epochs, the same for all tests of a session."""
    return made_once(factory, "trained", train)


def train(path: Path) -> None:
    # One checkpoint, at the end, however slow the machine is: tests damage it, and an older one would stand in for it.
    once = Execution(checkpoint=CheckpointConfig(every_seconds=None))
    recipe = Recipe(model=LeNet5(activation="tanh"), epochs=10, batch_size=64)
    config = Experiment(recipe=recipe, data=TFDS("digits"), execution=once, place=Place(out=path, report=False))
    with contextlib.redirect_stdout(io.StringIO()):
        run_experiment(config, "lenet5")


def tree_hash(path: Path) -> str:
    """Of all names and contents under a folder."""
    digest = hashlib.sha256()
    for entry in sorted(path.rglob("*")):
        digest.update(f"{entry.relative_to(path)}\0".encode())
        digest.update(entry.read_bytes() if entry.is_file() else b"folder")
    return digest.hexdigest()


def draw_page(image: np.ndarray, factor: int = 20, offset: tuple[int, int] = (40, 130)) -> np.ndarray:
    """A digit uint8 (H, W, 1) as dark ink on a larger white page: uint8 (h, w)."""
    from PIL import Image

    height, width = (side * factor for side in image.shape[:2])
    large = np.asarray(Image.fromarray(image[..., 0]).resize((width, height), Image.Resampling.BICUBIC))
    page = np.zeros((height + 180, width + 200), np.uint8)
    page[offset[0] : offset[0] + height, offset[1] : offset[1] + width] = large
    return 255 - page
