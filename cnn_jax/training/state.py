"""The state of training: one pytree that holds all that the next step depends on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from cnn_jax.training.averaging import Average, Averaging


class TrainState(flax.struct.PyTreeNode):
    """All that the next step depends on, besides the data.

    Attributes:
        step: int32 scalar, the number of steps taken.
        params: the model's parameters.
        batch_stats: running statistics of batch norms; an empty dict where the model has none.
        opt_state: the state of the Optax optimiser.
        rng: the run's random key. It never changes: step k draws from `fold_in(rng, k)`.
        average: the averaged variables; an empty tuple where nothing is averaged.
        picks: int32 (steps, n), which rows of the batch of each step are learned from, as a `Selection` picks them; an
            empty tuple where all are.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    rng: jax.Array
    average: Average | tuple[()] = ()
    picks: jax.Array | tuple[()] = ()

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes, to be trained on."""
        return _variables(self)

    @property
    def eval_variables(self) -> dict[str, Any]:
        """What `model.apply` takes, to be measured and used: the averaged variables where there are any."""
        return _variables(self.average or self)


def _variables(held: Any) -> dict[str, Any]:
    return {"params": held.params, "batch_stats": held.batch_stats} if held.batch_stats else {"params": held.params}


def path_of(path: Any) -> str:
    """A leaf's path in a tree, as `jax.tree_util` gives it, in words: params/conv_1/kernel."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    key: jax.Array,
    averaging: Averaging | None = None,
    set_by_data: Callable[[Any], Any] | None = None,
) -> TrainState:
    """The state before the first step, as a pure function, not compiled.

    Args:
        model: a Linen module called as `model.apply(variables, images, train=...)`.
        optimizer: its state is created for the new parameters.
        image_shape: (height, width, channels) of one image.
        key: decides the parameters and all later randomness.
        averaging: how variables are averaged, if they are.
        set_by_data: changes the parameters that are drawn to those that training begins with.
    """
    params_key, rng = split_key(key)
    variables = init_variables(model, image_shape, params_key)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if set_by_data is not None:
        params = set_by_data(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        rng=rng,
        average=averaging.begin(params, batch_stats) if averaging else (),
    )


def split_key(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The key that the parameters of a run are drawn with, and its state's `rng`, from the run's key."""
    params_key, rng = jax.random.split(key)
    return params_key, rng


def init_variables(model: nn.Module, image_shape: tuple[int, ...], key: jax.Array) -> Any:
    """The model's parameters and statistics before the first step, for images (height, width, channels)."""
    return model.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)


def create_state(
    model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...], seed: int
) -> TrainState:
    """`init_state` of a seed's key, as one program: compiling each initialiser alone takes seconds."""
    return jax.jit(functools.partial(init_state, model, optimizer, image_shape))(jax.random.key(seed))
