"""`Recipe`: what decides the numbers of a run, beside its data and seeds, and the pure functions made from it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import data, models
from cnn_jax.augment import Augmentation, count_on_pixels
from cnn_jax.errors import InputError
from cnn_jax.parts import is_concrete, is_held
from cnn_jax.training.averaging import Averaging
from cnn_jax.training.data_init import DataInit
from cnn_jax.training.gradients import TakeGradient, of_batch
from cnn_jax.training.groups import Grouping, make_optimizer
from cnn_jax.training.losses import Loss, SoftmaxCrossEntropy
from cnn_jax.training.metrics import Accuracy, CrossEntropy, Metric
from cnn_jax.training.optimizers import AdamW, Optimizer
from cnn_jax.training.precision import Precision
from cnn_jax.training.schedules import OneCycle, Schedule
from cnn_jax.training.selection import Selection
from cnn_jax.training.state import TrainState, init_state
from cnn_jax.training.step import (
    NORMS,
    Batch,
    Metrics,
    Preprocess,
    check_size,
    make_eval_step,
    make_inputs,
    make_train_step,
)
from cnn_jax.training.views import View, averaged

_MOST_STEPS = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the numbers of a run, with its data and its seeds. A new part needs no change here."""

    model: nn.Module = models.LeNet5()
    """The network, a Linen module called as `model(images, train=...)`; its `num_classes` comes from the data."""
    loss: Loss = SoftmaxCrossEntropy()
    """What is minimised."""
    metrics: tuple[Metric, ...] = (Accuracy(),)
    """What is measured beside the loss. Where images are held out, the first chooses the best checkpoint."""
    optimizer: Optimizer = AdamW(learning_rate=3e-3)
    """What turns gradients into updates."""
    schedule: Schedule = OneCycle()
    """How the learning rate changes over the run."""
    data_init: tuple[DataInit, ...] = ()
    """Parameters that are made of the training images before the first step, one part after the other."""
    groups: tuple[Grouping, ...] = ()
    """Parameters that are trained differently from the rest, or not at all."""
    augment: tuple[Augmentation, ...] = ()
    """How training images are changed, one after the other, afresh in every step and on the device."""
    selection: tuple[Selection, ...] = ()
    """Which images of each batch are learned from, picked by a network that is trained before; one way, or none."""
    averaging: tuple[Averaging, ...] = ()
    """How the weights are averaged for measuring and using the model; one way, or none."""
    test_time: tuple[View, ...] = ()
    """What else of an image the model is shown when it is measured and used, the scores being averaged. Of several
    kinds each sees what the one before it gives: shift() | mirror() has six views."""
    precision: Precision = "float32"
    """What the model computes in. Parameters, optimiser, statistics of norms, scores and loss are float32 in any case.
    On a CPU with instructions for bfloat16 such a run uses oneDNN's convolutions, as with --onednn."""
    epochs: int = 10
    """Passes over the training images."""
    steps: int | None = None
    """Stop after this many steps, if that is before the last epoch ends, and stretch the schedule over these; by
    default, or with None, train all epochs."""
    batch_size: int = 128
    """Images per step."""
    accumulate: int = 1
    """Split each batch into this many equal parts, whose gradients are taken one after the other to save memory."""
    norm_batch: int | None = None
    """Images over which batch norms take their statistics in training; by default, or with None, all of a part."""
    validation: float = 0.0
    """Part of the training images held out to choose the best checkpoint: a fraction below 1, or a count of images.
    With 0, the validation images of a folder or file of arrays are used, if it has any beside its test images."""
    patience: int | None = None
    """Stop when the first metric has not improved on the validation images for this many epochs; by default, or with
    None, train all epochs."""
    init: str | None = None
    """Start from the weights of the run in this folder; any that do not fit, such as a head for other classes, start
    as usual."""
    pixel_range: tuple[float, float] | None = None
    """Values for black and white pixels, e.g. -0.1 1.175 as in LeCun et al. 1998; by default the training images
    get mean 0 and variance 1 in each channel."""

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs", "a whole number >= 1", self.epochs)
        check(self.steps is None or self.steps >= 1, "steps", "a whole number >= 1 or None", self.steps)
        check(self.batch_size >= 1, "batch_size", "a whole number >= 1", self.batch_size)
        check(len(self.selection) <= 1, "selection", "one way or none", " | ".join(map(repr, self.selection)))
        learned = self.batch_size
        for selection in self.selection:
            fits = selection.keep <= self.batch_size
            check(fits, "selection.keep", f"at most batch_size, {self.batch_size}", selection.keep)
            learned = selection.keep
        whole = self.accumulate >= 1 and learned % self.accumulate == 0
        which = "selection.keep" if self.selection else "batch_size"
        check(whole, "accumulate", f"a whole number that divides {which}, {learned}", self.accumulate)
        if self.norm_batch is not None:
            part = learned // self.accumulate
            whole = self.norm_batch >= 1 and part % self.norm_batch == 0
            check(whole, "norm_batch", f"a whole number that divides the images of a part, {part}", self.norm_batch)
        count_on_pixels(self.augment)
        grows = [part for part in self.augment if part.changes]
        check(
            not (grows and self.selection),
            "augment",
            "images of one size with a selection",
            " | ".join(map(repr, grows)),
        )
        check(len(self.averaging) <= 1, "averaging", "one way or none", " | ".join(map(repr, self.averaging)))
        check(self.precision in get_args(Precision), "precision", " or ".join(get_args(Precision)), self.precision)
        share = self.validation
        valid = math.isfinite(share) and share >= 0 and (share < 1 or float(share).is_integer())
        check(valid, "validation", "a fraction from 0 to 1 or a whole number of images", share)
        names = [metric.name for metric in self.metrics]
        once = len(set(names)) == len(names) and not {"loss", "count", *NORMS}.intersection(names)
        check(once, "metrics", f"names that differ, and none of loss, count, {', '.join(NORMS)}", " | ".join(names))
        if self.patience is not None:
            check(self.patience >= 1, "patience", "a whole number >= 1 or None", self.patience)
        if self.pixel_range is not None:
            black, white = self.pixel_range
            valid = math.isfinite(black) and math.isfinite(white) and black < white
            check(valid, "pixel_range", "two finite numbers, black below white", self.pixel_range)
            held = all(map(is_held, (black, white, (white - black) * (white - black))))
            check(held, "pixel_range", "numbers that float32 holds, with their difference's square", self.pixel_range)

    @property
    def first_images(self) -> int:
        """How many of the training images parameters are made of, see `data_init`."""
        return max((part.images for part in self.data_init), default=0)

    def count_steps(self, images: int) -> int:
        """How many steps a run takes: the fewest batches that hold `epochs` passes over that many images, or `steps`.

        Batch k is the k-th stretch of one endless stream of permutations, so no image is dropped and an epoch may end
        inside a batch.

        Raises:
            InputError: there would be more steps than 32 bits count, as optimisers and states do.
        """
        steps = -(-self.epochs * images // self.batch_size)
        if self.steps is not None:
            steps = min(self.steps, steps)
        if steps > _MOST_STEPS:
            raise InputError(
                f"epochs: expected at most {_MOST_STEPS * self.batch_size // images:,} of {images:,} images in batches "
                f"of {self.batch_size:,}, as steps are counted in 32 bits; got {self.epochs:,}"
            )
        return steps

    def epoch_ends(self, images: int) -> np.ndarray:
        """The number of steps after which each epoch over that many images has ended or is cut off: int64 (epochs,)."""
        return np.minimum(-(-np.arange(1, self.epochs + 1) * images // self.batch_size), self.count_steps(images))

    def stages(self, images: int) -> dict[int, float]:
        """From which steps on augmentations give another size: by the first step, the share of the epochs then over.

        The first is step 0, the others are ends of epochs over that many images. Each stage, `after` its share, is
        compiled for itself.
        """
        shares = sorted({0.0, *(share for part in self.augment for share in part.changes)})
        starts = {-(-round(share * self.epochs) * images // self.batch_size): share for share in shares}
        total = self.count_steps(images)
        return {start: share for start, share in starts.items() if not start or start < total}

    def after(self, share: float) -> Recipe:
        """The recipe as it is once that share of the epochs is over, whose augmentations give one size."""
        if not any(part.changes for part in self.augment):
            return self
        return dataclasses.replace(self, augment=tuple(part.after(share) for part in self.augment))

    def at_step(self, step: int, images: int) -> Recipe:
        """The recipe as it is in a step of a run over that many images."""
        stages = self.stages(images)
        return self.after(stages[max(start for start in stages if start <= step)])

    def trained_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(height, width, channels) of images (height, width, channels) when the model learns from them, at the end."""
        if not self.augment:
            return image_shape
        inputs = make_inputs(lambda images: images.astype(jnp.float32), self.after(1.0).augment, 2, 1)
        row = jax.ShapeDtypeStruct((1,), jnp.int32)
        batch = {"image": jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8), "label": row, "index": row, "epoch": row}
        return jax.eval_shape(inputs, jax.eval_shape(jax.random.key, 0), 0, batch)[0].shape[1:]

    def check_sizes(self, image_shape: tuple[int, ...], images: int) -> None:
        """Traces augmentations and views alone, for that many images (height, width, channels).

        Raises:
            InputError: what one of them gives is of a size that the next or the model cannot take.
        """

        def score(seen: jax.Array) -> jax.Array:
            check_size(self.model, "test_time", seen.shape[1:], image_shape)
            return jnp.zeros((len(seen), 1))

        for share in self.stages(images).values():
            check_size(self.model, "augment", self.after(share).trained_shape(image_shape), image_shape)
        jax.eval_shape(
            lambda given: averaged(score, self.test_time, given), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        )

    def measures(self, classes: int) -> dict[str, Metric]:
        """The metrics by name: those asked for, accuracy, and the cross-entropy where the loss smooths the labels.

        A loss with smoothing cannot fall to 0 however confident and right the scores are, so on its own it says little.
        """
        always: list[Metric] = [Accuracy()]
        if self.loss.floor(classes):
            always.append(CrossEntropy())
        chosen = {metric.name: metric for metric in self.metrics}
        return {**chosen, **{metric.name: metric for metric in always if metric.name not in chosen}}


def check(condition: bool, option: str, expected: str, value: object) -> None:
    """Raises `InputError` naming the option, what was expected and what arrived, unless `condition` holds."""
    if not condition:
        raise InputError(f"{option}: expected {expected}, got {value!r}")


class Functions(NamedTuple):
    """A recipe together with its data, as pure functions, none of them compiled.

    Attributes:
        init: (random key, images) -> `TrainState` before the first step. The images are the `Recipe.first_images`
            first that the run learns from, uint8, or all where there are fewer; needed only if there is `data_init`.
            With a `selection` the state's `picks` are zeros: those of `proxy.make_picker` have to be put in.
        train_step: (state, batch) -> (state, metrics), see `make_train_step`.
        eval_step: (variables, batch) -> (sums, scores), see `make_eval_step`.
        preprocess: uint8 images -> float32 images as the model takes them.
        schedule: step -> learning rate.
        optimizer: what turns gradients into updates.
    """

    init: Callable[..., TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    eval_step: Callable[[dict[str, Any], Batch], tuple[Metrics, jax.Array]]
    preprocess: Preprocess
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


def make_functions(
    recipe: Recipe,
    statistics: data.Statistics,
    image_shape: tuple[int, ...],
    classes: int,
    steps: int,
    epoch_ends: Sequence[int] | np.ndarray = (),
    measures: Mapping[str, Metric] | None = None,
    take_gradient: TakeGradient = of_batch,
) -> Functions:
    """The functions of a recipe, whose numbers may be traced.

    Args:
        recipe: epochs and batch size are not used.
        statistics: of the training images, to normalise all images by.
        image_shape: (height, width, channels) of one image as the model takes it.
        classes: number of classes.
        steps: length of the run, to which the schedule is stretched.
        epoch_ends: the numbers of steps after which an epoch has ended, see `Recipe.epoch_ends`.
        measures: what is measured beside the loss, by default `Recipe.measures`, which cannot tell of a traced number
            whether it smooths labels.
        take_gradient: takes the gradient of a batch, see `make_train_step`.
    """
    preprocess = functools.partial(data.normalise, statistics=statistics)
    rate = functools.partial(_rate, steps)
    schedule = rate(recipe.schedule, recipe.optimizer.learning_rate)
    optimizer = make_optimizer(recipe.optimizer, recipe.schedule, recipe.groups, rate)
    measures = recipe.measures(classes) if measures is None else measures
    in_training = {metric.name: metric for metric in (*recipe.metrics, Accuracy())}
    averaging = recipe.averaging[0] if recipe.averaging else None

    def init(key: jax.Array, images: jax.Array | None = None) -> TrainState:
        def set_by_data(params: Any) -> Any:
            assert images is not None
            seen = preprocess(images)
            return functools.reduce(lambda params, part: part(params, seen[: part.images]), recipe.data_init, params)

        state = init_state(
            recipe.model, optimizer, image_shape, key, averaging, set_by_data if recipe.data_init else None
        )
        for selection in recipe.selection:
            state = state.replace(picks=jnp.zeros((steps, selection.keep), jnp.int32))
        return state

    return Functions(
        init=init,
        train_step=make_train_step(
            recipe.model, optimizer, recipe.loss, preprocess, recipe.augment, in_training, classes=classes,
            steps=steps, epoch_ends=epoch_ends, precision=recipe.precision, averaging=averaging,
            accumulate=recipe.accumulate, norm_batch=recipe.norm_batch, take_gradient=take_gradient,
        ),
        eval_step=make_eval_step(
            recipe.model, recipe.loss, preprocess, measures, recipe.precision, recipe.test_time
        ),
        preprocess=preprocess,
        schedule=schedule,
        optimizer=optimizer,
    )  # fmt: skip


def _rate(steps: int, schedule: Schedule, peak: Any) -> optax.Schedule:
    if is_concrete(peak):
        return schedule(peak, steps)
    shape = schedule(1.0, steps)  # Optax's schedules inspect their peak
    return lambda count: peak * shape(count)
