"""Small TFDS data sets written for tests, without TensorFlow: images are given as encoded bytes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest

needs_no_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed, so its stand-in is not used"
)


def encoded(image: np.ndarray, form: str = "PNG") -> bytes:
    """uint8 (H, W, C) as the bytes of a picture file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, form)
    return buffer.getvalue()


def image_feature(*shape: int | None, **options):
    import tensorflow_datasets as tfds

    return tfds.features.Image(shape=shape, **options)


def label_feature(classes: int = 10):
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(num_classes=classes)


def write_set(root: Path, features: dict, splits: dict[str, list[dict]], *, supervised_keys=None) -> Path:
    """Prepares a data set "small_set" 1.2.3 under `root`; returns its folder. Examples are records of `features`."""
    import tensorflow_datasets as tfds

    class SmallSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=supervised_keys,
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(records) for split, records in splits.items()}

        def _generate_examples(self, records):
            yield from enumerate(records)

    builder = SmallSet(data_dir=root, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(download_dir=root / "downloads")
    return Path(builder.data_dir)


def random_images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def plain_records(images: np.ndarray, classes: int = 10) -> list[dict]:
    return [{"image": encoded(image), "label": index % classes} for index, image in enumerate(images)]


def assert_nothing_left(root: Path, *kept: str) -> None:
    assert sorted(path.name for path in root.iterdir()) == sorted(kept)
