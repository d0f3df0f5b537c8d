"""What a network is shown in a step of its training, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.data.batching import epochs_of
from cnn_jax.errors import InputError
from cnn_jax.training.evaluation import input_size
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.state import split_key
from cnn_jax.training.step import distributions, make_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """The batch of one step.

    Attributes:
        images: float32 (N, H, W, C), normalised and augmented.
        targets: float32 (N, classes), each row a distribution, mixed where images are; labels are not smoothed.
        indices: int64 (N,), which of the training images each row begins with.
    """

    images: np.ndarray
    targets: np.ndarray
    indices: np.ndarray


def see(recipe: Recipe, train: data.Dataset, seed: int = 0, step: int = 0) -> Seen:
    """The batch of one step of a run, to the bit as its model is given it; with a `selection`, all that it picks from.

    Args:
        recipe: of the run. It is not asked for its `pixel_range`: images are normalised by the statistics of `train`.
        train: the training images, with those held out by `Recipe.validation`.
        seed: of the run.
        step: from 0 to the last of the run.

    Raises:
        InputError: there is no such step.
    """
    rows = np.arange(len(train))
    if recipe.validation:
        rows = data.holdout_indices(train, recipe.validation, seed)[0]
    steps = recipe.count_steps(len(rows))
    if not 0 <= step < steps:
        raise InputError(f"step: expected one of the run, from 0 to {steps - 1:,}, got {step:,}")
    indices = rows[data.train_order(len(rows), recipe.batch_size, seed)(step, 1)[0]]
    classes, augment = len(train.class_names), recipe.at_step(step, len(rows)).augment
    inputs = make_inputs(lambda images: data.normalise(images, train.statistics), augment, classes, steps)

    @jax.jit
    def give(step: jax.Array, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        images, targets = inputs(split_key(jax.random.key(seed))[1], step, batch)
        mixed = batch if targets is None else {"target": targets}
        return images, distributions(mixed, classes)

    batch = {
        "image": data.fit_images(train.images[indices], input_size(recipe.model, train.images)),
        "label": train.labels[indices],
        "index": indices.astype(np.int32),
        "epoch": epochs_of(len(rows), recipe.batch_size, step, 1)[0].astype(np.int32),
    }
    images, targets = jax.device_get(give(jnp.int32(step), batch))
    return Seen(images=images, targets=targets, indices=indices)
