"""Windows cut out of scenes of digits, as a source of data: what a detector learns from and is tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import jax

from cnn_jax import data
from cnn_jax.data.source import TFDS
from cnn_jax.detection.scenes import SceneConfig
from cnn_jax.detection.windows import framed, window_dataset
from cnn_jax.errors import InputError
from cnn_jax.runs.capacity import check_count
from cnn_jax.terminal import complain

TEST_SCENES = 256
TRAIN, TEST = 1, 2  # streams of keys, so that training and test scenes have nothing in common
_A_SCENE = 24  # windows, or so


def test_key() -> jax.Array:
    """Of test scenes: the same for all runs, whatever seeds they were trained with."""
    return jax.random.fold_in(jax.random.key(0), TEST)


def train_windows(digits: data.Dataset, side: int, seed: int, scenes: int) -> data.Dataset:
    """What a detector learns from: the windows, (side, side), of that many scenes of training digits.

    Raises:
        InputError: the images are not one-channel drawings, light on dark.
    """
    return window_dataset(framed(digits, side), jax.random.fold_in(jax.random.key(seed), TRAIN), scenes, SceneConfig())


def test_windows(digits: data.Dataset, side: int) -> data.Dataset:
    """What its reading of single windows is tested on: the windows of `TEST_SCENES` scenes of test digits.

    Raises:
        InputError: the images are not one-channel drawings, light on dark.
    """
    return window_dataset(framed(digits, side), test_key(), TEST_SCENES, SceneConfig())


@dataclass(frozen=True)
class Windows(TFDS):
    """Windows cut out of scenes made of the digits of a data set of TensorFlow Datasets, and background.

    The training split are `train_windows`; any other split is `test_windows` of that split's digits, the same whatever
    the fields below.

    Raises:
        InputError: for a blank name, a count of scenes below 1, or a seed that is none.
    """

    scenes: int | None = None
    """Training scenes to cut windows out of, about 24 each; by default 1,000 for digits and 8,000 for anything else."""
    seed: int = 0
    """Seed of the training scenes, whatever the seeds of the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("scenes", lambda scenes: scenes is None or scenes >= 1, "a whole number >= 1, or None")
        self.check("seed", lambda seed: 0 <= seed < 2**31, "a whole number from 0 to 2147483647")

    def __call__(self, split: str, image_size: tuple[int, int] | None) -> data.Dataset:
        """The windows of a split's digits, (side, side) for an `image_size` of that.

        Raises:
            InputError: as `data.load`; or the images are not one-channel drawings, light on dark, the windows are not
                squares, or need more memory than there is.
        """
        if image_size is None or image_size[0] != image_size[1]:
            raise InputError(f"windows: expected a model whose input_size is a square, got {image_size}")
        side, digits = image_size[0], self.digits(split)
        if split != "train":
            return replace(test_windows(digits, side), fingerprint=self._fingerprint(digits, side))
        check_count("scenes", self._scenes, "scenes", _A_SCENE * side**2)
        complain(f"cutting windows out of {self._scenes:,} scenes")
        windows = train_windows(digits, side, self.seed, self._scenes)
        return replace(windows, fingerprint=self._fingerprint(digits, side))

    def digits(self, split: str) -> data.Dataset:
        """The digits themselves, of a split.

        Raises:
            InputError: as `data.load`.
        """
        return data.load(self.name, split, data_dir=self.dir, strict=self.strict)

    @property
    def _scenes(self) -> int:
        return self.scenes or (1000 if self.name == "digits" else 8000)

    def _fingerprint(self, digits: data.Dataset, side: int) -> str:
        """Of what the training windows follow from, so that the test split needs no training windows."""
        parts = (digits.fingerprint, side, self._scenes, self.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
