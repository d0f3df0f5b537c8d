"""The train step and the evaluation step, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import augment as augmenting
from cnn_jax import models
from cnn_jax.augment import Augmentation, Context
from cnn_jax.errors import InputError
from cnn_jax.training import gradients
from cnn_jax.training.averaging import Average, Averaging, Moment
from cnn_jax.training.gradients import TakeGradient
from cnn_jax.training.losses import Loss
from cnn_jax.training.metrics import Metric
from cnn_jax.training.precision import Precision, apply
from cnn_jax.training.state import TrainState
from cnn_jax.training.views import View, averaged

_NO_STEP = 2**32 - 1  # steps are counted up to 2^31 - 1
NORMS = "grad_norm", "param_norm", "update_norm"
Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Preprocess = Callable[[jax.Array], jax.Array]
"""uint8 images (N, H, W, C) -> float32 images of the same shape, as the model takes them."""


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    preprocess: Preprocess,
    augment: Sequence[Augmentation] = (),
    metrics: Mapping[str, Metric] | None = None,
    *,
    classes: int | None = None,
    steps: int = 1,
    epoch_ends: Sequence[int] | np.ndarray = (),
    precision: Precision = "float32",
    averaging: Averaging | None = None,
    accumulate: int = 1,
    norm_batch: int | None = None,
    take_gradient: TakeGradient = gradients.of_batch,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One step of gradient descent as a pure function, not yet compiled.

    A model may declare `per_example = True`: the scores of an image then depend on that image alone, with no dropout,
    batch statistics or anything else that joins or draws. On a CPU a large batch is then split, see `gradients`.

    Args:
        model: a Linen module called as `model.apply(variables, images, train=...)`.
        optimizer: turns gradients into updates.
        loss: what is minimised, its mean over the batch.
        preprocess: turns images into what the model takes.
        augment: changes images and targets, one after the other.
        metrics: what is measured besides, by name.
        classes: number of classes; only batch transforms need to know.
        steps: length of the run, from which contexts get the share that is done.
        epoch_ends: the numbers of steps after which an epoch has ended; only averaging uses them.
        precision: what the model computes in.
        averaging: averages the variables after each step.
        accumulate: number of equal parts of a batch whose gradients are taken one after the other. Without batch
            statistics and dropout the result is the gradient of the whole batch, to rounding. With them, each part has
            its own statistics and draws; the running statistics become the mean of those that the parts give.
        norm_batch: number of images over which batch statistics are taken (Goyal et al. 2017, section 2.3), by default
            all of a part; it must divide that.
        take_gradient: takes the gradient of a batch. It may give the function some rows of the batch at a time, as
            long as rows that share batch statistics stay together.

    Returns:
        `train_step(state, batch) -> (state, metrics)`. The batch holds "image", uint8 (N, H, W, C), and "label",
        int32 (N,); if there is anything in `augment` also "index" and "epoch", int32 (N,), the image's number in
        its set and the pass over it. Where the state has `picks`, these rows of it are learned from. The metrics are
        float32 scalars: the mean "loss" and the metrics of the batch before the step, "grad_norm", the global norm of
        the gradient before clipping, "param_norm", that of the parameters before the step, and "update_norm", that of
        what was added to them.
    """
    metrics = metrics or {}
    ends = np.asarray(epoch_ends, np.int32)
    inputs = make_inputs(preprocess, augment, classes, steps)

    def forward(params: Any, batch_stats: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
        options: dict[str, Any] = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": key}}
        scores, updated = apply(model, variables, images, precision, **options)
        return scores, updated.get("batch_stats", {})

    def forward_in_groups(params: Any, batch_stats: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        if norm_batch is None or norm_batch >= len(images):
            return forward(params, batch_stats, images, key)
        grouped = images.reshape(-1, norm_batch, *images.shape[1:])
        keys = jax.random.split(key, len(grouped))
        scores, updated = jax.vmap(forward, (None, None, 0, 0))(params, batch_stats, grouped, keys)
        return jax.lax.collapse(scores, 0, 2), jax.tree.map(lambda stats: jnp.mean(stats, axis=0), updated)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.named_scope("augment"):
            images, targets = inputs(state.rng, state.step, batch)
        check_size(model, "augment", images.shape[1:], batch["image"].shape[1:])
        target = {"label": batch["label"]} if targets is None else {"target": targets}
        if len(state.picks):
            images, target = jax.tree.map(lambda rows: rows[state.picks[state.step]], (images, target))
        key = jax.random.fold_in(state.rng, state.step)

        def mean_loss(params: Any, batch: Batch) -> tuple[jax.Array, tuple[Metrics, Any]]:
            own = jax.random.fold_in(key, batch["part"][0]) if "part" in batch else key
            scores, updated = forward_in_groups(params, state.batch_stats, batch["image"], own)
            if classes is not None:
                models.check_shape(model, scores, len(batch["image"]), classes)
            targets = distributions(batch, scores.shape[-1])
            measured = {name: jnp.mean(metric(scores, targets), axis=0) for name, metric in metrics.items()}
            return jnp.mean(loss(scores, targets)), (measured, updated)

        per_example = getattr(model, "per_example", False)
        batch = {"image": images, **target}
        if accumulate > 1:  # Streams from 2 on: augmentations draw from the first.
            batch["part"] = jnp.repeat(jnp.arange(2, 2 + accumulate), len(images) // accumulate)
        with jax.named_scope("model"):
            found = take_gradient(mean_loss, state.params, batch, per_example, accumulate)
        (value, (means, batch_stats)), grads = found
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params, average = optax.apply_updates(state.params, updates), state.average
        if averaging is not None:
            moment = Moment(step=state.step + 1, steps=steps, ends_epoch=jnp.any(ends == state.step + 1))
            average, params, batch_stats = averaging(cast(Average, average), params, batch_stats, moment)
        measured = {name: metrics[name].finish(mean) for name, mean in means.items()}
        before = state.params
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            average=average,
        )
        norms = dict(zip(NORMS, map(optax.tree.norm, (grads, before, updates)), strict=True))
        return state, {"loss": value, **measured, **norms}

    return train_step


def check_size(model: nn.Module, option: str, shape: Sequence[int], given: Sequence[int]) -> None:
    """InputError where augmentations or views make of images of a shape given others that a model does not take.

    Shapes begin with (height, width).
    """
    size = models.input_size(model)
    if size is not None and tuple(shape[:2]) not in (size, tuple(given[:2])):
        (height, width), (own_height, own_width) = shape[:2], size
        raise InputError(
            f"{option}: expected images that stay {own_height}x{own_width} for {type(model).__name__}, got "
            f"{height}x{width}; take a model for images of any size, such as resnet50"
        )


def make_inputs(
    preprocess: Preprocess, augment: Sequence[Augmentation], classes: int | None, steps: int
) -> Callable[[jax.Array, jax.Array | int, Batch], tuple[jax.Array, jax.Array | None]]:
    """What a train step gives to the model, as a pure function; the arguments are those of `make_train_step`.

    Returns:
        `inputs(rng, step, batch) -> (images, targets)`, `rng` being that of the state, the same in all steps of a run.
        The images are float32 (N, H, W, C), of the size that `augment` gives. The targets are float32 (N, classes)
        where anything in `augment` changes them, else None: they are then what `distributions` makes of the labels.
    """

    def inputs(rng: jax.Array, step: jax.Array | int, batch: Batch) -> tuple[jax.Array, jax.Array | None]:
        images = batch["image"]
        if not augment:
            return preprocess(images), None
        step, own = jnp.asarray(step), jax.random.fold_in(jax.random.fold_in(rng, step), 1)
        context = Context(
            key=jax.random.split(own, len(images)),
            run=jnp.broadcast_to(jax.random.fold_in(rng, _NO_STEP), len(images)),
            index=batch["index"],
            epoch=batch["epoch"],
            progress=jnp.broadcast_to(step.astype(jnp.float32) / steps, len(images)),
        )
        mixes = augmenting.needs_targets(augment)
        targets = jax.nn.one_hot(batch["label"], classes) if mixes and classes else None
        images, targets = augmenting.apply(augment, context, images, targets, preprocess)
        # Without the barrier XLA distorts the images again for every place of the first layer's window.
        return jax.lax.optimization_barrier(images), targets if mixes else None

    return inputs


def distributions(batch: Batch, classes: int) -> jax.Array:
    """The targets of a batch, float32 (N, classes): its "target", or the certain ones that its "label" gives."""
    return batch["target"] if "target" in batch else jax.nn.one_hot(batch["label"], classes)


def make_train_steps(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    take: Callable[[Any, jax.Array], Batch],
    length: Callable[[Any], int],
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]:
    """Several train steps as one pure function, not yet compiled.

    Args:
        train_step: one step.
        take: (chunk, k) -> batch k of a chunk, as its feed gives it.
        length: chunk -> number of batches in it.

    Returns:
        `train_steps(state, chunk, count) -> (state, metrics)`. The first `count` steps are taken, int32 scalar up to
        the length n, and the metrics are those of `train_step`, (n, ...), with 0 for the steps that are not taken.
    """

    step = jax.jit(train_step)  # so that it is traced once, though it is called twice below

    def train_steps(state: TrainState, chunk: Any, count: jax.Array) -> tuple[TrainState, Metrics]:
        steps = length(chunk)

        def advance(k: jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
            return step(state, take(chunk, k))

        def body(carry: tuple[jax.Array, TrainState, Metrics]) -> tuple[jax.Array, TrainState, Metrics]:
            k, state, metrics = carry
            state, new = advance(k, state)
            put = jax.lax.dynamic_update_index_in_dim
            return k + 1, state, jax.tree.map(lambda values, value: put(values, value, k, 0), metrics, new)

        first = jnp.zeros((), jnp.int32)
        if steps == 1:  # It is always taken, and in a loop some of XLA's operations are slower.
            state, metrics = advance(first, state)
            return state, jax.tree.map(lambda value: value[None], metrics)
        # Not a scan: that has one length, and any other would be another program, perhaps with other roundings.
        shapes = jax.eval_shape(advance, first, state)[1]
        metrics = jax.tree.map(lambda value: jnp.zeros((steps, *value.shape), value.dtype), shapes)
        _, state, metrics = jax.lax.while_loop(lambda carry: carry[0] < count, body, (first, state, metrics))
        return state, metrics

    return train_steps


def make_eval_step(
    model: nn.Module,
    loss: Loss,
    preprocess: Preprocess,
    metrics: Mapping[str, Metric] | None = None,
    precision: Precision = "float32",
    views: Sequence[View] = (),
) -> Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]:
    """The evaluation of one batch as a pure function, not yet compiled. Scores are those of all `views`, averaged.

    Returns:
        `eval_step(variables, batch) -> (sums, scores)`. The batch holds "image", "label" and "mask", float32 (N,),
        which is 0 for the padding of the last batch. The sums are float32 over the unmasked examples: "loss", what
        each of the metrics gives, by its name, and their "count"; scores are float32 (N, classes), padding included.
    """

    measures: dict[str, Loss | Metric] = {"loss": loss, **(metrics or {})}

    def eval_step(variables: dict[str, Any], batch: Batch) -> tuple[Metrics, jax.Array]:
        def score(images: jax.Array) -> jax.Array:
            check_size(model, "test_time", images.shape[1:], batch["image"].shape[1:])
            return cast(jax.Array, apply(model, variables, images, precision, train=False))

        scores = averaged(score, views, preprocess(batch["image"]))
        mask, targets = batch["mask"], distributions(batch, scores.shape[-1])

        def total(values: jax.Array) -> jax.Array:
            # `where` and not a product: padding may give anything, infinities too.
            counted = jnp.expand_dims(mask > 0, tuple(range(1, values.ndim)))
            return jnp.sum(jnp.where(counted, values, 0.0), axis=0)

        sums = {name: total(measure(scores, targets)) for name, measure in measures.items()}
        return sums | {"count": jnp.sum(mask)}, scores

    return eval_step
