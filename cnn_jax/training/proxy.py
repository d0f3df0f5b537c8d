"""The training of a proxy, the network that picks the images of each batch that another then learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_jax import data, models
from cnn_jax.training.precision import apply
from cnn_jax.training.recipe import Recipe, make_functions
from cnn_jax.training.state import TrainState, split_key
from cnn_jax.training.step import Batch, distributions, make_inputs

_OWN = 2**31  # what a run's key is folded with for its proxy's


class Picker(NamedTuple):
    """The training of a proxy as pure functions, not compiled.

    Attributes:
        init: (random key of the run, images) -> its `TrainState` before the first step. The images as for
            `Functions.init`.
        step: (state, batch) -> (state, {"picked": int32 (keep,)}): which rows of the batch the run's own network learns
            from in this step. The batch is that of `make_train_step`.
    """

    init: Callable[..., TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_picker(
    recipe: Recipe, statistics: data.Statistics, image_shape: tuple[int, ...], classes: int, steps: int
) -> Picker:
    """The training of the proxy of a recipe that has a `selection`; arguments as for `make_functions`.

    In every step the proxy sees the whole batch, augmented as the run's own network sees it, with norms by the
    statistics of all of it. Where it learns, it is from the mean loss of what it picks.
    """
    [selection] = recipe.selection
    model = models.with_classes(selection.model, classes)
    own = dataclasses.replace(
        recipe, model=model, groups=selection.groups(recipe.groups), selection=(), averaging=(), accumulate=1,
        norm_batch=None,
    )  # fmt: skip
    functions = make_functions(own, statistics, image_shape, classes, -(-steps // selection.every))
    inputs = make_inputs(functions.preprocess, recipe.augment, classes, steps)

    def init(key: jax.Array, images: jax.Array | None = None) -> TrainState:
        state = functions.init(jax.random.fold_in(key, _OWN), images)
        return state.replace(rng=split_key(key)[1])  # the run's: augmentations draw from it

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        images, targets = inputs(state.rng, state.step, batch)
        targets = distributions(batch if targets is None else {"target": targets}, classes)
        options: dict[str, Any] = {
            "train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.fold_in(state.rng, state.step)},
        }  # fmt: skip

        def loss_of_picked(params: Any) -> tuple[jax.Array, jax.Array]:
            # Its running statistics stay as they begin: nothing is ever measured by them.
            scores, _ = apply(model, {**state.variables, "params": params}, images, recipe.precision, **options)
            losses = recipe.loss(scores, targets)
            picked = selection.pick(jax.lax.stop_gradient(losses))
            return jnp.mean(losses[picked]), picked

        def learn(params: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
            grads, picked = jax.grad(loss_of_picked, has_aux=True)(params)
            updates, opt_state = functions.optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, picked

        def look(params: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
            return params, opt_state, loss_of_picked(params)[1]

        learns = state.step % selection.every == 0
        params, opt_state, picked = jax.lax.cond(learns, learn, look, state.params, state.opt_state)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), {"picked": picked}

    return Picker(init, step)
