"""A whole training as one pure function, for `jax.jit`, `jax.vmap` and whatever else JAX does to functions.

Ten seeds are `jax.vmap` over keys, a sweep is `jax.vmap` over learning rates:

    digits = data.load("digits", "train")
    model, config = models.build("mlp"), training.TrainConfig(epochs=5)
    train = training.make_train(model, config, digits.statistics)
    arrays = training.train_arrays(model, digits, config, seeds=range(10))
    keys = jax.vmap(jax.random.key)(jnp.arange(10))
    numbers = training.Hyperparameters(learning_rate=3e-3, weight_decay=0.0)
    each = {"image": None, "label": None, "order": 0}  # one copy of the images, ten orders of them
    states, metrics = jax.jit(jax.vmap(train, (0, None, each)))(keys, numbers, arrays)
    print(metrics["accuracy"][:, -10:].mean(axis=1))  # of each seed, over its last ten batches

`map_replicas` stands in for `jax.vmap` where there are several devices. `fit` and `fit_replicas` take the same steps
in many calls, and add what a function has no place for: checkpoints, records, signals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.evaluation import at_input_size
from cnn_jax.training.recipe import Hyperparameters, count_steps, make_recipe
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Batch, Metrics

Train = Callable[[jax.Array, Hyperparameters, Batch], tuple[TrainState, Metrics]]


def make_train(model: nn.Module, config: TrainConfig, statistics: data.Statistics) -> Train:
    """Training as a pure function, not yet compiled.

    Args:
        model: a Linen module called as `model.apply(variables, images, train=...)`.
        config: optimiser, schedule, loss and distortions.
        statistics: of the training images, to normalise them by.

    Returns:
        `train(key, hyperparameters, data) -> (state, metrics)`. The key `jax.random.key(s)` gives what `fit` gives with
        the seed s; the hyperparameters stand in for the configuration's; the data are those of `train_arrays`. The
        state is the last; the metrics are those of `make_train_step` for every step, float32 (steps,).
    """

    def train(key: jax.Array, hyperparameters: Hyperparameters, data: Batch) -> tuple[TrainState, Metrics]:
        steps, image_shape = len(data["order"]), data["image"].shape[1:]
        recipe = make_recipe(model, config, statistics, image_shape, steps, hyperparameters)

        def step(state: TrainState, indices: jax.Array) -> tuple[TrainState, Metrics]:
            return recipe.train_step(state, {"image": data["image"][indices], "label": data["label"][indices]})

        return jax.lax.scan(step, recipe.init(key), data["order"])

    return train


def train_arrays(
    model: nn.Module, train: data.Dataset, config: TrainConfig, seeds: int | Iterable[int]
) -> dict[str, jax.Array]:
    """What a `make_train` function learns from, on the device.

    Args:
        model: has the `input_size` that the images are brought to.
        train: the training images.
        config: number of epochs and batch size.
        seeds: one seed, or several.

    Returns:
        "image", uint8 (n, H, W, C), "label", int32 (n,), and "order", int32 (steps, batch size): the indices of the
        batches that `fit` takes with the seed. Of several seeds the orders are stacked, (seeds, steps, batch size).
    """
    train = at_input_size(train, model.input_size)
    steps = count_steps(config, len(train))

    def order(seed: int) -> np.ndarray:
        return data.train_order(len(train), config.batch_size, seed)(0, steps)

    orders = order(seeds) if isinstance(seeds, int) else np.stack([order(seed) for seed in seeds])
    arrays = {"image": train.images, "label": train.labels, "order": orders.astype(np.int32)}
    return jax.tree.map(jnp.asarray, arrays)
