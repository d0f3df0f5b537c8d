"""A real run on the embedded digits, trained once a test session. Only to be read: copy it to damage it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import data, models, training
from cnn_jax.training import folder


def trained(factory: pytest.TempPathFactory) -> Path:
    """The folder of LeNet-5 trained for a dozen epochs, the same for all tests of a session."""
    return _trained(factory.getbasetemp() / "trained")


@functools.cache
def _trained(path: Path) -> Path:
    train = data.load("digits", "train")
    config = training.TrainConfig(epochs=12, batch_size=64)
    contents = {
        "config": training.config.to_dict(config) | {"data": {"name": "digits", "dir": None, "validation": 0.0}},
        "model": {"name": "lenet5", "activation": "tanh", "num_classes": 10},
        "data": {
            "name": "digits",
            "version": train.version,
            "image_shape": list(train.images.shape[1:]),
            "class_names": list(train.class_names),
            "statistics": dataclasses.asdict(train.statistics),
        },
    }
    opened = folder.RunFolder(path, contents, resume=False, overwrite=False)
    try:
        training.fit(models.build("lenet5"), train, config, folder=opened)
    finally:
        opened.close()
    return path


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
