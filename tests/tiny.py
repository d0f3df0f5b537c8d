"""A data set and a network small enough to train in a test, and what is read off a run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import data, layers
from cnn_jax.runs import CheckpointConfig, Execution
from cnn_jax.runs.folder import RunFolder
from cnn_jax.training import Recipe

CLASSES = ("left", "right", "top")
TRACES: list[bool] = []


class TinyNet(nn.Module):
    """One convolution and scores; notes each time that JAX traces it."""

    input_size: ClassVar[tuple[int, int]] = (6, 6)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        TRACES.append(train)
        x = nn.relu(layers.Conv(4, (3, 3), name="conv")(images))
        return layers.Dense(3, name="scores")(x.reshape(len(x), -1))


class Wide(nn.Module):
    """With one kernel that is large enough to be divided."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(layers.Conv(4, (3, 3))(images))
        x = nn.relu(layers.Dense(512, name="wide")(x.reshape(len(x), -1)))
        return layers.Dense(3)(x)


def make_dataset(count: int = 61, seed: int = 0, split: str = "train") -> data.Dataset:
    """Noisy images of three kinds: the left, the right or the top part is bright."""
    draw = np.random.default_rng(seed)
    labels = (np.arange(count) % 3).astype(np.int32)
    images = draw.integers(0, 90, (count, 6, 6, 1), dtype=np.uint8)
    images[labels == 0, :, :2] += 120
    images[labels == 1, :, 4:] += 120
    images[labels == 2, :2] += 120
    statistics = data.Statistics(mean=(0.3,), std=(0.25,))
    return data.Dataset(
        name="bars", version="1.0.0", split=split, images=images, labels=labels, class_names=CLASSES,
        statistics=statistics, fingerprint="",
    )  # fmt: skip


def make_recipe(**changes) -> Recipe:
    return Recipe(**({"model": TinyNet(), "epochs": 4, "batch_size": 8} | changes))


def make_execution(**changes) -> Execution:
    return Execution(**({"checkpoint": CheckpointConfig(every_steps=10, every_seconds=None)} | changes))


def make_folder(
    path: Path, resume: bool = False, overwrite: bool = False, seeds: Sequence[int] = (0,), **recipe
) -> RunFolder:
    contents = {"recipe": {"model": "tiny()"} | recipe, "data": {"name": "bars"}, "seeds": list(seeds)}
    return RunFolder(path, contents, resume=resume, overwrite=overwrite)


def steps_kept(path: Path, kind: str = "checkpoints") -> list[int]:
    return sorted(int(entry.name) for entry in (path / kind).iterdir() if entry.name.isdigit())


def records(path: Path) -> list[dict]:
    """The records of a run without what depends on the clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith("seconds") and k != "images_per_second"} for line in lines
    ]


def assert_same_bits(state, expected) -> None:
    """Two training states are equal bit for bit, and so are their structures, shapes and dtypes."""

    def raw(leaf):
        return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    leaves, structure = jax.tree.flatten(state)
    expected_leaves, expected_structure = jax.tree.flatten(expected)
    assert structure == expected_structure
    for leaf, reference in zip(map(raw, leaves), map(raw, expected_leaves), strict=True):
        assert (leaf.dtype, leaf.shape, leaf.tobytes()) == (reference.dtype, reference.shape, reference.tobytes())


def assert_close(state, expected, **tolerance) -> None:
    """Two training states, or parts of them, are equal to rounding, and their random keys exactly."""

    def check(leaf, reference):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf, reference = jax.random.key_data(leaf), jax.random.key_data(reference)
        np.testing.assert_allclose(leaf, reference, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))

    jax.tree.map(check, state, expected)
