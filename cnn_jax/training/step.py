"""The train step and the evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_jax import augment as distortions
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

        def mean_loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            variables = state.replace(params=params).variables
            scores, updated = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
            return jnp.mean(loss(scores, batch["label"])), (scores, updated.get("batch_stats", {}))

        (value, (scores, batch_stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss": value,
            "accuracy": jnp.mean(correct(scores, batch["label"])),
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


def make_eval_step(
    model: nn.Module, loss: Loss, preprocess: Preprocess
) -> Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]:
    """The measuring of one batch as a pure function, not yet compiled.

    Returns:
        `eval_step(variables, batch) -> (sums, scores)`. The batch holds "image", "label" and "mask", float32 (N,),
        which is 0 for the padding of the last batch. The sums are float32 scalars over the unmasked examples: "loss",
        "correct" and their "count"; scores are float32 (N, classes), padding included.
    """

    def eval_step(variables: dict[str, Any], batch: Batch) -> tuple[Metrics, jax.Array]:
        scores = cast(jax.Array, model.apply(variables, preprocess(batch["image"]), train=False))
        mask = batch["mask"]
        sums = {
            # `where` and not a product: padding may give anything, infinities too.
            "loss": jnp.sum(jnp.where(mask > 0, loss(scores, batch["label"]), 0.0)),
            "correct": jnp.sum(mask * correct(scores, batch["label"])),
            "count": jnp.sum(mask),
        }
        return sums, scores

    return eval_step
