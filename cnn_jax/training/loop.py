"""The training loop: pure steps inside; checkpoints, records, signals and the clock at its edge."""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import time
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.training.checkpoints import Checkpoints
from cnn_jax.training.config import TrainConfig
from cnn_jax.training.display import Display
from cnn_jax.training.evaluation import Evaluation, at_input_size, evaluate
from cnn_jax.training.folder import RunFolder
from cnn_jax.training.interrupts import Interrupts
from cnn_jax.training.losses import make_loss
from cnn_jax.training.optimizers import make_optimizer, make_schedule
from cnn_jax.training.progress import Progress
from cnn_jax.training.records import Records
from cnn_jax.training.state import TrainState, create_state
from cnn_jax.training.step import Metrics, make_augment, make_eval_step, make_train_step

# Fetching metrics waits for the device, so it is done once in so many steps; one batch in as many is recorded.
FETCH_EVERY = 16


class TrainingDivergedError(InputError):
    """The loss, a gradient or a parameter became NaN or infinite: these options cannot be trained with."""


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


@jax.jit
def _all_finite(state: TrainState) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


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
        InputError: there are checkpoints in `folder`, but none can be read.
    """
    with Interrupts() as interrupts:
        loop = _Loop(model, train, config, test, validation, folder, display or Display(silent=True))
        try:
            loop.restore()
            loop.train_until_done(interrupts)
            finished = loop.step == loop.total
            if finished:
                loop.final_evaluations()
            return loop.result(None if finished else interrupts.received)
        finally:
            loop.close()


class _Loop:
    """The phases of one call of `fit`, and what they share."""

    def __init__(
        self,
        model: nn.Module,
        train: data.Dataset,
        config: TrainConfig,
        test: data.Dataset | None,
        validation: data.Dataset | None,
        folder: RunFolder | None,
        display: Display,
    ):
        self.began = time.monotonic()
        self.config, self.display, self.folder = config, display, folder
        splits = {"validation": validation, "test": test}
        self.train = at_input_size(train, model.input_size)
        self.held_out = {name: at_input_size(split, model.input_size) for name, split in splits.items() if split}
        # The fewest batches that hold that many passes. Batch k is the k-th stretch of one endless stream of
        # permutations, so no image is dropped and an epoch may end inside a batch.
        self.total = math.ceil(config.epochs * len(train) / config.batch_size)

        preprocess = functools.partial(data.normalise, statistics=train.statistics)
        loss = make_loss(config.loss)
        self.schedule = make_schedule(config.schedule, config.optimizer.learning_rate, self.total)
        optimizer = make_optimizer(config.optimizer, self.schedule)
        step = make_train_step(model, optimizer, loss, preprocess, make_augment(config.augment))
        self.train_step = jax.jit(step, donate_argnums=0)
        self.eval_step = jax.jit(make_eval_step(model, loss, preprocess))

        self.state = create_state(model, optimizer, self.train.images.shape[1:], config.seed)
        self.step = 0
        self.progress = Progress()
        self.evaluations: dict[str, Evaluation] = {}
        self.pending: list[Metrics] = []
        self.timed_steps, self.timed_seconds = 0, 0.0
        self.checkpoints: Checkpoints | None = None
        self.records: Records | None = None

    def restore(self) -> None:
        """Opens the folder's checkpoints and records, and goes back to the newest checkpoint if there is one."""
        if self.folder is None:
            return
        self.checkpoints = Checkpoints(self.folder.path, self.config.checkpoint.keep)
        restored = self.checkpoints.restore(self.state)
        if restored is not None:
            self.state, progress = restored
            self.progress = Progress(**progress)
            self.step = int(self.state.step)
            self.checkpoints.discard_after(self.step)
        self.records = Records(self.folder.path, self.step)

    def train_until_done(self, interrupts: Interrupts) -> None:
        """Takes the steps that are left, or those until a signal comes; at the end the state is saved."""
        self.seconds_before = self.progress.seconds
        self.display.start(self.step, self.total, self.config.epochs)
        batches = data.train_batches(self.train, self.config.batch_size, self.config.seed, self.step)
        saved = lap = time.monotonic()
        compiled = False
        stop = False
        while self.step < self.total and not stop:
            if self._epochs(self.step) > self._epochs(self.step - 1):
                self.progress.new_epoch()
            self.state, metrics = self.train_step(self.state, next(batches))
            self.step += 1
            self.pending.append(metrics)
            if not compiled:  # The clock measures steps, so it starts when the first, with its compilation, is over.
                jax.block_until_ready(metrics)
                compiled, lap = True, time.monotonic()
                self.timed_steps -= 1

            stop = interrupts.received is not None
            epoch_ends = self._epochs(self.step) > self._epochs(self.step - 1)
            save = stop or self.step == self.total or self._save_is_due(time.monotonic() - saved)
            if not (epoch_ends or save or len(self.pending) == FETCH_EVERY):
                continue
            self.timed_steps += len(self.pending)
            self._fetch()
            self.timed_seconds += time.monotonic() - lap
            rate = self._steps_per_second()
            self.display.update(self.step, self.progress.means(), rate * self.config.batch_size, rate)
            if epoch_ends:
                self._end_epoch()
            if save:
                self._save()
                saved = time.monotonic()
            lap = time.monotonic()
        if self.checkpoints:
            self.checkpoints.wait()

    def final_evaluations(self) -> None:
        """Measures the splits at the last state where that has not been done, and the test split at the best."""
        for name in self.held_out.keys() - self.evaluations.keys():
            self._evaluate(name)
        if self.checkpoints and {"validation", "test"} <= self.held_out.keys():
            best = self.checkpoints.restore(self.state, best=True)
            if best is not None:
                self.evaluations["best"] = evaluate(self.eval_step, best[0].variables, self.held_out["test"])

    def result(self, interrupted: signal.Signals | None) -> FitResult:
        """The figures so far."""
        return FitResult(
            state=self.state,
            train=self.progress.means(),
            evaluations=self.evaluations if interrupted is None else {},
            seconds=self._seconds(),
            images_per_second=self._steps_per_second() * self.config.batch_size,
            interrupted=interrupted,
        )

    def close(self) -> None:
        """Ends what `restore` and `train_until_done` opened."""
        self.display.close()
        if self.records:
            self.records.close()
        if self.checkpoints:
            self.checkpoints.close()

    def _epochs(self, step: int) -> int:
        """Whole epochs in so many steps. The last step may reach into one epoch more, which is not begun."""
        return min(step * self.config.batch_size // len(self.train), self.config.epochs) if step > 0 else 0

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _steps_per_second(self) -> float:
        return self.timed_steps / self.timed_seconds if self.timed_seconds else 0.0

    def _save_is_due(self, elapsed: float) -> bool:
        every_steps, every_seconds = self.config.checkpoint.every_steps, self.config.checkpoint.every_seconds
        return (every_steps is not None and self.step % every_steps == 0) or (
            every_seconds is not None and elapsed >= every_seconds
        )

    def _fetch(self) -> None:
        """Brings the metrics of the last steps from the device, counts them, and stops if they are not finite."""
        first = self.step - len(self.pending) + 1
        for step, metrics in enumerate(jax.device_get(self.pending), start=first):
            values = {name: float(value) for name, value in metrics.items()}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values[name]):
                    self._diverged(f"{name} is {values[name]}", step)
            self.progress.add(values)
            if self.records and step % FETCH_EVERY == 0:
                rate = float(self.schedule(step - 1))
                self.records.write("batch", step, values | {"learning_rate": rate})
        self.pending = []

    def _end_epoch(self) -> None:
        if self.records:
            values = self.progress.means() | {"images_per_second": self._steps_per_second() * self.config.batch_size}
            self.records.write("train", self.step, values | {"seconds": self._seconds()})
        self.evaluations = {}
        name = next(iter(self.held_out), None)  # validation where it is held out, else test
        if name is not None:
            found = self._evaluate(name)
            if name == "validation" and [found.accuracy, -found.loss] > self.progress.best:
                self.progress.best = [found.accuracy, -found.loss]
                self._save(best=True)
        self.display.epoch(self._epochs(self.step), self.evaluations)

    def _evaluate(self, name: str) -> Evaluation:
        found = evaluate(self.eval_step, self.state.variables, self.held_out[name])
        self.evaluations[name] = found
        if self.records:
            self.records.write(name, self.step, {"loss": found.loss, "accuracy": found.accuracy})
        return found

    def _save(self, best: bool = False) -> None:
        # The last step can leave finite metrics behind it and parameters that are not.
        if not _all_finite(self.state):
            self._diverged("a parameter or a moment of the optimiser is not finite", self.step)
        if self.checkpoints and self.records:
            self.progress.seconds = self._seconds()
            self.records.flush()
            self.checkpoints.save(self.step, self.state, dataclasses.asdict(self.progress), best)

    def _diverged(self, what: str, step: int) -> None:
        good = self.checkpoints.newest_step() if self.checkpoints else None
        raise TrainingDivergedError(
            f"training diverged: {what} at step {step} of {self.total}; last good checkpoint: "
            f"{'none' if good is None else f'step {good}'}; likely causes: the learning rate "
            f"({self.config.optimizer.learning_rate:g}) is too high, no --optimizer.clip-norm, or inputs that are not "
            "finite; start a new run with a lower one"
        )
