"""The train step and the evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_jax import augment as distortions
from cnn_jax.training import gradients
from cnn_jax.training.config import AugmentConfig
from cnn_jax.training.losses import Loss, correct
from cnn_jax.training.state import TrainState

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Preprocess = Callable[[jax.Array], jax.Array]
"""uint8 images (N, H, W, C) -> float32 images of the same shape, as the model takes them."""
Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""(random key, preprocessed images (N, H, W, C)) -> distorted images of the same shape."""


def make_augment(config: AugmentConfig) -> Augment | None:
    """The distortion of a configuration, each image in its own way; None where nothing is to be distorted."""
    if config.name == "none":
        return None

    def affine(key: jax.Array, image: jax.Array) -> jax.Array:
        return distortions.affine(
            key,
            image,
            translation=config.translation,
            scale=config.scale,
            squeeze=config.squeeze,
            shear=config.shear,
        )

    return lambda key, images: jax.vmap(affine)(jax.random.split(key, len(images)), images)


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    preprocess: Preprocess,
    augment: Augment | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One step of gradient descent as a pure function, not yet compiled.

    A model may say `separate = True`: that the scores of an image come from that image alone, without dropout, batch
    statistics or anything else that joins or draws. Large batches are then taken in tiles on CPU, see `gradients`.

    Returns:
        `train_step(state, batch) -> (state, metrics)`. The batch holds "image", uint8 (N, H, W, C), and "label",
        int32 (N,). The metrics are float32 scalars: the mean "loss" and the "accuracy" of the batch before the step,
        and "grad_norm", the global norm of the gradient before clipping.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        images = preprocess(batch["image"])
        key = jax.random.fold_in(state.rng, state.step)
        rngs = {"dropout": key}
        if augment is not None:
            # Without the barrier XLA distorts the images anew for every place of the first layer's window.
            images = jax.lax.optimization_barrier(augment(jax.random.fold_in(key, 1), images))

        def mean_loss(params: Any, batch: Batch) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            variables = state.replace(params=params).variables
            scores, updated = model.apply(variables, batch["image"], train=True, mutable=["batch_stats"], rngs=rngs)
            right = jnp.mean(correct(scores, batch["label"]))
            return jnp.mean(loss(scores, batch["label"])), (right, updated.get("batch_stats", {}))

        separate = getattr(model, "separate", False)
        batch = {"image": images, "label": batch["label"]}
        (value, (accuracy, batch_stats)), grads = gradients.of_batch(mean_loss, state.params, batch, separate)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": value,
            "accuracy": accuracy,
            "grad_norm": optax.global_norm(grads),
        }
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, metrics

    return train_step


def make_train_steps(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
) -> Callable[[TrainState, Batch, jax.Array, jax.Array], tuple[TrainState, Metrics]]:
    """Several train steps as one pure function, not yet compiled, of images that are on the device.

    Returns:
        `train_steps(state, images, order, count) -> (state, metrics)`. The images are all there are, as a batch; row k
        of the order, int32 (n, N), says which of them are batch k. The first `count` steps are taken, int32 scalar up
        to n, and the metrics are those of `train_step`, (n,), 0 for the steps that are not taken.
    """

    step = jax.jit(train_step)  # so that it is traced once, though it is called twice below

    def train_steps(state: TrainState, images: Batch, order: jax.Array, count: jax.Array) -> tuple[TrainState, Metrics]:
        def take(k: jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
            rows = jax.lax.dynamic_index_in_dim(order, k, keepdims=False)
            return step(state, jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), images))

        def body(carry: tuple[jax.Array, TrainState, Metrics]) -> tuple[jax.Array, TrainState, Metrics]:
            k, state, metrics = carry
            state, new = take(k, state)
            put = jax.lax.dynamic_update_index_in_dim
            return k + 1, state, jax.tree.map(lambda values, value: put(values, value, k, 0), metrics, new)

        first = jnp.zeros((), jnp.int32)
        if len(order) == 1:  # It is always taken, and in a loop some of XLA's operations are slower.
            state, metrics = take(first, state)
            return state, jax.tree.map(lambda value: value[None], metrics)
        # Not a scan: that has one length, and any other would be another program, perhaps with other roundings.
        shapes = jax.eval_shape(take, first, state)[1]
        metrics = jax.tree.map(lambda value: jnp.zeros(len(order), value.dtype), shapes)
        _, state, metrics = jax.lax.while_loop(lambda carry: carry[0] < count, body, (first, state, metrics))
        return state, metrics

    return train_steps


def make_eval_step(
    model: nn.Module, loss: Loss, preprocess: Preprocess, beside: Mapping[str, Loss] | None = None
) -> Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]:
    """The measuring of one batch as a pure function, not yet compiled.

    Returns:
        `eval_step(variables, batch) -> (sums, scores)`. The batch holds "image", "label" and "mask", float32 (N,),
        which is 0 for the padding of the last batch. The sums are float32 scalars over the unmasked examples: "loss",
        what else is given in `beside` by its name, "correct" and their "count"; scores are float32 (N, classes),
        padding included.
    """

    measures = {"loss": loss, **(beside or {})}

    def eval_step(variables: dict[str, Any], batch: Batch) -> tuple[Metrics, jax.Array]:
        scores = cast(jax.Array, model.apply(variables, preprocess(batch["image"]), train=False))
        mask = batch["mask"]
        # `where` and not a product: padding may give anything, infinities too.
        sums = {
            name: jnp.sum(jnp.where(mask > 0, measure(scores, batch["label"]), 0.0))
            for name, measure in measures.items()
        }
        sums |= {"correct": jnp.sum(mask * correct(scores, batch["label"])), "count": jnp.sum(mask)}
        return sums, scores

    return eval_step
