"""The embedded data set: scikit-learn's 1,797 handwritten digits, behind a TFDS builder.

Imported only when the digits are to be prepared, since it needs TensorFlow Datasets.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow_datasets as tfds

from cnn_jax.data.batching import apportion

TEST_EXAMPLES = 360


def split_digits(labels: np.ndarray) -> dict[str, list[int]]:
    """Returns the indices of the "train" and "test" examples; see `Digits` for the rule."""
    classes = int(labels.max()) + 1
    test: set[int] = set()
    for label, share in enumerate(apportion(np.bincount(labels, minlength=classes), TEST_EXAMPLES)):
        members = np.flatnonzero(labels == label).tolist()
        test.update(sorted(members, key=lambda index: hashlib.sha256(f"digits/{index}".encode()).digest())[:share])
    return {"train": [i for i in range(len(labels)) if i not in test], "test": sorted(test)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """The UCI test set of handwritten digits that scikit-learn carries (`sklearn.datasets.load_digits`).

    1,797 images of 8x8 pixels, one channel, ten classes. The original pixels count ink in 4x4 blocks, 0 to 16; here
    they are round(value * 255 / 16) in uint8, stored as PNG.

    The split is fixed and stratified: 360 test digits, divided among the classes in proportion to their sizes by
    largest remainders; in each class those whose index i in scikit-learn's order has the smallest SHA-256 of
    "digits/i". The other 1,437 are for training.

    Images are yielded as PNG bytes, so that preparing needs no TensorFlow.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8x8 pixels, the UCI test set that scikit-learn carries.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            citation="Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Repository.",
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict]]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        return {
            split: self._generate_examples(images, bunch.target, indices)
            for split, indices in split_digits(bunch.target).items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: Sequence[int]
    ) -> Iterator[tuple[int, dict]]:
        from PIL import Image

        for index in indices:
            buffer = io.BytesIO()
            Image.fromarray(images[index]).save(buffer, "PNG")
            yield index, {"image": buffer.getvalue(), "label": int(labels[index])}
