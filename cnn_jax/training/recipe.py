"""A configuration as pure functions: how a state begins, what a step does to it, and how it is measured."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import optax

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.losses import beside_loss, make_loss
from cnn_jax.training.optimizers import make_optimizer, make_schedule
from cnn_jax.training.state import TrainState, init_state
from cnn_jax.training.step import Batch, Metrics, make_augment, make_eval_step, make_train_step

_MOST_STEPS = 2**31 - 1


class Hyperparameters(flax.struct.PyTreeNode):
    """The numbers of a configuration that one program can vary: `jax.vmap` over them is a sweep.

    Attributes:
        learning_rate: peak learning rate; the configuration's schedule scales it.
        weight_decay: decay of the kernels, as `OptimizerConfig.weight_decay`.
    """

    learning_rate: jax.Array | float
    weight_decay: jax.Array | float


class Recipe(NamedTuple):
    """Pure functions, none compiled.

    Attributes:
        init: random key -> `TrainState` before the first step.
        train_step: (state, batch) -> (state, metrics), see `make_train_step`.
        eval_step: (variables, batch) -> (sums, scores), see `make_eval_step`.
        schedule: step -> learning rate.
    """

    init: Callable[[jax.Array], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]
    schedule: optax.Schedule


def count_steps(config: TrainConfig, images: int) -> int:
    """How many steps a run takes: the fewest batches that hold `config.epochs` passes over so many images.

    Batch k is the k-th stretch of one endless stream of permutations, so no image is dropped and an epoch may end
    inside a batch.

    Raises:
        InputError: there would be more steps than 32 bits count, as optimisers and states do.
    """
    steps = -(-config.epochs * images // config.batch_size)
    if steps > _MOST_STEPS:
        raise InputError(
            f"epochs: expected at most {_MOST_STEPS * config.batch_size // images:,} of {images:,} images in batches "
            f"of {config.batch_size:,}, as steps are counted in 32 bits; got {config.epochs:,}"
        )
    return steps


def count_per_call(config: TrainConfig, images: int) -> int:
    """How many steps one call of a compiled program takes at most: what is configured, or those of the longest epoch.

    A call never crosses the end of an epoch, so more are never needed.
    """
    return min(config.steps_per_call or images, math.ceil(images / config.batch_size))


def make_recipe(
    model: nn.Module,
    config: TrainConfig,
    statistics: data.Statistics,
    image_shape: tuple[int, ...],
    steps: int,
    hyperparameters: Hyperparameters | None = None,
) -> Recipe:
    """The functions of a configuration.

    Args:
        model: a Linen module called as `model.apply(variables, images, train=...)`.
        config: optimiser, schedule, loss and distortions; seed and lengths are not looked at.
        statistics: of the training images, to normalise all images by.
        image_shape: (height, width, channels) of one image.
        steps: length of the run, which the schedule is stretched to.
        hyperparameters: used instead of the configuration's; they may be traced.
    """
    preprocess = functools.partial(data.normalise, statistics=statistics)
    loss = make_loss(config.loss)
    if hyperparameters is None:
        schedule = make_schedule(config.schedule, config.optimizer.learning_rate, steps)
        optimizer = make_optimizer(config.optimizer, schedule)
    else:
        shape = make_schedule(config.schedule, 1.0, steps)
        peak = hyperparameters.learning_rate

        def schedule(count: Any) -> Any:
            return peak * shape(count)

        optimizer = make_optimizer(config.optimizer, schedule, hyperparameters.weight_decay)
    return Recipe(
        init=functools.partial(init_state, model, optimizer, image_shape),
        train_step=make_train_step(model, optimizer, loss, preprocess, make_augment(config.augment)),
        eval_step=make_eval_step(model, loss, preprocess, beside_loss(config.loss)),
        schedule=schedule,
    )
