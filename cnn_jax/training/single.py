"""Training a model once."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import data
from cnn_jax.training.capacity import check_fits
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.devices import current_device
from cnn_jax.training.display import Display
from cnn_jax.training.evaluation import Evaluation, at_input_size, evaluate
from cnn_jax.training.folder import RunFolder
from cnn_jax.training.interrupts import Interrupts
from cnn_jax.training.loop import Loop
from cnn_jax.training.program import all_finite, compiler, pad_steps, settle_per_call
from cnn_jax.training.recipe import count_per_call, count_steps, make_recipe
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Metrics, make_train_steps


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training ended with.

    Attributes:
        state: the last state.
        train: mean "loss" and "accuracy" over the batches of the last epoch, each before its step.
        evaluations: by split: "validation" and "test" at the last state, and "best", the test split at the best
            checkpoint by validation accuracy. Empty where the run was interrupted.
        seconds: time spent in `fit`, over all starts of a resumed run.
        images_per_second: speed of the train steps of this start, without compilation and evaluation.
        interrupted: the signal that stopped the run early, or None.
    """

    state: TrainState
    train: dict[str, float]
    evaluations: dict[str, Evaluation]
    seconds: float
    images_per_second: float
    interrupted: signal.Signals | None = None


def fit(
    model: nn.Module,
    train: data.Dataset,
    config: TrainConfig,
    *,
    test: data.Dataset | None = None,
    validation: data.Dataset | None = None,
    folder: RunFolder | None = None,
    display: Display | None = None,
) -> FitResult:
    """Trains a model.

    Args:
        model: a Linen module with an `input_size`, called as `model.apply(variables, images, train=...)`.
        train: images and labels to learn from; all images are brought to the model's input size.
        config: seed, length, optimiser, schedule, loss and checkpoints.
        test: measured at the end, and after each epoch where there is no validation split.
        validation: measured after each epoch, to keep the best checkpoint.
        folder: where to keep checkpoints and records, and what to resume; None keeps nothing on disk.
        display: shows how it goes; None is silent.

    Returns:
        The last state and the figures. On one machine equal arguments give equal bits, however often the run was
        killed and resumed in between.

    Raises:
        TrainingDivergedError: something became NaN or infinite; no checkpoint holds it.
        InputError: there are checkpoints in `folder`, but none is whole; or the run cannot fit, see `check_fits`.
        StorageError: a checkpoint or a record cannot be written.
    """
    clock = time.monotonic()
    # What is sent to the devices and back here is meant to be, whatever guard the code around has set.
    with Interrupts() as interrupts, jax.transfer_guard("allow"):
        check_fits(model, config, len(train), (*model.input_size, train.images.shape[-1]))
        program = Single(model, train, config, test, validation)
        paths = [folder.path] if folder else []
        with contextlib.closing(Loop(program, config, folder, paths, display, clock)) as loop:
            interrupted = loop.run(interrupts)
            return FitResult(
                state=loop.state,
                train=loop.progress[0].means(),
                evaluations={name: found[0] for name, found in loop.evaluations.items()},
                seconds=loop.seconds(),
                images_per_second=loop.images_per_second(),
                interrupted=interrupted,
            )


class Single:
    """The `Program` of one seed. The training images stay on the device; the host sends which of them make a batch."""

    def __init__(
        self,
        model: nn.Module,
        train: data.Dataset,
        config: TrainConfig,
        test: data.Dataset | None,
        validation: data.Dataset | None,
    ):
        splits = {"validation": validation, "test": test}
        images = at_input_size(train, model.input_size).images
        self._train = jax.device_put({"image": images, "label": train.labels})
        self._splits = {name: at_input_size(split, model.input_size) for name, split in splits.items() if split}
        self._seed = config.seed
        self.seeds: tuple[int, ...] = (config.seed,)
        self.images, self.held_out = len(train), tuple(self._splits)
        self.total = count_steps(config, self.images)
        self.per_call = count_per_call(config, self.images)
        self._settled = config.steps_per_call is not None or current_device().platform != "cpu"
        self._order = data.train_order(self.images, config.batch_size, config.seed)
        recipe = make_recipe(model, config, train.statistics, images.shape[1:], self.total)
        self.schedule = jax.jit(recipe.schedule)
        self._init = jax.jit(recipe.init)
        self._train_steps = compiler(config)(make_train_steps(recipe.train_step), donate_argnums=0)
        self._eval_step = jax.jit(recipe.eval_step)
        self._all_finite = jax.jit(all_finite)

    def init(self) -> TrainState:
        return self._init(jax.random.key(self._seed))

    def train_steps(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        def arguments(most: int) -> tuple[Any, ...]:
            return state, self._train, pad_steps(self._order(step, count), most), np.int32(count)

        if not self._settled:
            self.per_call, self._settled = settle_per_call(self._train_steps, arguments, self.per_call), True
        return self._train_steps(*arguments(self.per_call))

    def evaluate(self, state: TrainState, split: str) -> list[Evaluation]:
        return [evaluate(self._eval_step, state.variables, self._splits[split])]

    def finite(self, state: TrainState) -> np.ndarray:
        return np.atleast_1d(self._all_finite(state))

    def choose(self, chosen: Sequence[bool], state: TrainState, other: TrainState) -> TrainState:
        return state
