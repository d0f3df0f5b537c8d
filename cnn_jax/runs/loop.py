"""The training loop: pure steps inside; checkpoints, records, signals and the clock at its edge."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from cnn_jax import terminal
from cnn_jax.errors import InputError, StorageError
from cnn_jax.runs import hosts
from cnn_jax.runs.beginnings import Variables
from cnn_jax.runs.calendar import FETCH_EVERY, Calendar
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.display import Display
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.execution import Execution
from cnn_jax.runs.folder import PROFILE, RunFolder
from cnn_jax.runs.joint_folder import JointFolder
from cnn_jax.runs.peak import Peak
from cnn_jax.runs.progress import Progress, from_json, to_json
from cnn_jax.runs.records import Records
from cnn_jax.runs.signals import Interrupts
from cnn_jax.runs.spending import Spending, Trace, shares
from cnn_jax.training.evaluation import Evaluation
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Metrics


class TrainingDivergedError(InputError):
    """The loss, a gradient or a parameter became NaN or infinite: these options do not train."""


class Loop:
    """The phases of one start of a run, and what they share. Whatever is given per seed is in the order of seeds.

    Args:
        engine: what is trained.
        recipe: what it was made of.
        execution: when the state is saved.
        folder: where the checkpoints are, or None.
        record_paths: where each seed's records go; empty without a folder.
        display: shows how it goes; None is silent.
        began: `time.monotonic()` when the call began.
        begin_with: gives the variables to begin with where nothing is resumed.
        go_on: whether a seed that diverges stops nothing; its figures then are not finite.
    """

    def __init__(
        self,
        engine: Engine,
        recipe: Recipe,
        execution: Execution,
        folder: RunFolder | JointFolder | None,
        record_paths: Sequence[Path],
        display: Display | None,
        began: float,
        begin_with: Callable[[], Variables] | None = None,
        go_on: bool = False,
    ):
        self.engine, self.recipe, self.execution, self.began = engine, recipe, execution, began
        self.display = display or Display(silent=True)
        self.state = engine.init()
        self.best: TrainState | None = None
        self.step = 0
        self.progress = [Progress() for _ in engine.seeds]
        self.evaluations: dict[str, list[Evaluation]] = {}
        self.pending: list[tuple[int, Metrics]] = []  # of each call since the last fetch: its steps, and theirs
        self.timed_steps, self.timed_seconds = 0, 0.0
        self.folder, self.record_paths, self.begin_with = folder, record_paths, begin_with
        self.go_on = go_on
        self.spending, self.peak = Spending(), Peak(recipe, engine.image_shape)
        traces = folder is not None and execution.profile and hosts.is_first()
        self.trace = Trace(folder.path / PROFILE if folder and traces else None)
        self.checkpoints: Checkpoints | None = None
        self.records: list[Records] = []
        self.calendar = Calendar(
            images=engine.images, batch_size=recipe.batch_size, epochs=recipe.epochs, total=engine.total,
            checkpoint=execution.checkpoint,
        )  # fmt: skip
        # The first metric chooses the best checkpoint and is shown beside the loss.
        self.chief = next(iter(engine.measures.values()))

    def run(self, interrupts: Interrupts) -> signal.Signals | None:
        """Continues from the newest checkpoint to the end and measures; or stops at a signal, which it returns.

        Raises:
            StorageError: a checkpoint or a record cannot be written.
        """
        try:
            self._restore()
            if self.step == 0:
                self._select(interrupts)
            self._train_until_done(interrupts)
            if not interrupts.stops():
                self._final_evaluations(interrupts)
            received = interrupts.heed()
            if received is None:
                for records in self.records:
                    records.flush()
            else:
                self.evaluations = {}
        except StorageError as error:
            good = self._last_good()
            raise StorageError(
                f"{error}; last good checkpoint: {good}; fix that, then continue with --resume"
            ) from None
        return received

    def seconds(self) -> float:
        """Time spent so far, over all starts."""
        return self.seconds_before + time.monotonic() - self.began

    def images_per_second(self) -> float:
        """Speed of the train steps of this start, all seeds together."""
        return self._steps_per_second() * self.recipe.batch_size * len(self.engine.seeds)

    def close(self) -> None:
        """Ends what `run` opened."""
        with contextlib.ExitStack() as stack:  # whatever one of them raises, the others are closed
            if self.checkpoints:
                stack.callback(self.checkpoints.close)
            for records in self.records:
                stack.callback(records.close)
            stack.callback(self.display.close)
            stack.callback(self.trace.close)

    def _restore(self) -> None:
        """Opens the folder's checkpoints and records, and goes back to the newest checkpoint if there is one."""
        if self.folder is not None:
            self.checkpoints = Checkpoints(self.folder.path, self.folder.run, self.execution.checkpoint.keep)
            restored = self.checkpoints.restore(self.state)
            self.checkpoints.discard_unfinished()
            if restored is not None:
                self.state, progress = restored
                self.progress = from_json(progress)
                self.step = int(np.ravel(self.state.step)[0])
                self.checkpoints.discard_after(self.step)
                self._restore_best()
            self.records = [Records(path, self.step) for path in self.record_paths]
        if self.step == 0 and self.begin_with is not None:
            self.state, left_out = self.engine.begin_with(self.state, self.begin_with())
            for name in left_out:
                terminal.complain(f"init: {name} does not fit this model, which starts with its own")
        self.seconds_before = self.progress[0].seconds

    def _restore_best(self) -> None:
        """Reads the best, if the progress says that there is one and there is more to train."""
        assert self.checkpoints is not None
        has_best = "validation" in self.engine.held_out and any(progress.best for progress in self.progress)
        if not has_best or self.step == self.engine.total:
            return
        best = self._read_best("the best from here on is kept")
        if best is None:
            self.checkpoints.discard_after(-1, best=True)
            for progress in self.progress:
                progress.best, progress.stale = [], 0
        elif len(self.engine.seeds) > 1:  # some of them may still improve, and others not
            self.best = best

    def _read_best(self, otherwise: str) -> TrainState | None:
        """The best checkpoint; None if it is missing or damaged, after a line that says so and what happens instead."""
        assert self.checkpoints is not None
        with contextlib.suppress(InputError):  # each damaged one has been named
            if restored := self.checkpoints.restore(self.state, best=True):
                return restored[0]
        terminal.complain(f"checkpoint of the best epoch: missing or damaged; {otherwise}")
        return None

    def _select(self, interrupts: Interrupts) -> None:
        """Has a proxy pick what each step learns from, if the recipe says so. Its picks are saved with the state."""
        for selection in self.recipe.selection:
            self.display.line(
                f"selection: a proxy picks {selection.keep:,} of {self.recipe.batch_size:,} images for each of "
                f"{self.engine.total:,} steps"
            )
        with self.spending.on("selection"):
            self.state = self.engine.select(self.state, interrupts.stops)

    def _train_until_done(self, interrupts: Interrupts) -> None:
        """Takes the remaining steps, or those until a signal comes; at the end the state is saved."""
        total = self.engine.total
        self.display.start(self.step, total, self.recipe.epochs, self.chief, smoothed=self.engine.smooths)
        saved = lap = time.monotonic()
        compiled = False
        stop = interrupts.stops()
        while self.step < total and not stop and not self._out_of_patience():
            if self.calendar.ends_epoch(self.step):
                for progress in self.progress:
                    progress.new_epoch()
            compiled = compiled and self.step not in self.engine.starts
            count = 1
            if compiled:
                count = hosts.agree(self._next_call)
            metrics = self._take_steps(count, compiled)
            self.step += count
            self.pending.append((count, metrics))
            if not compiled:  # The clock measures steps, so it starts when the first, with its compilation, is over.
                compiled, lap = True, time.monotonic()
                self.timed_steps -= 1

            stop = interrupts.stops()
            epoch_ends = self.calendar.ends_epoch(self.step)
            elapsed = time.monotonic() - saved
            is_due = hosts.agree(functools.partial(self.calendar.save_is_due, self.step, elapsed))
            save = stop or self.step == total or is_due
            pending = sum(count for count, _ in self.pending)
            if not (epoch_ends or save or pending >= FETCH_EVERY):
                continue
            self.timed_steps += pending
            self._fetch()
            self.timed_seconds += time.monotonic() - lap
            self.display.update(self.step, self._means(), self.images_per_second(), self._steps_per_second())
            if epoch_ends:
                self._end_epoch()
            if self._out_of_patience():
                self.display.line(f"stopped: no better for {self.recipe.patience} epochs")
                save = True
            if save:
                self._save()
                saved = time.monotonic()
            lap = time.monotonic()
        if self.checkpoints:
            self.checkpoints.wait()

    def _next_call(self) -> int:
        """How many steps to take in the next call."""
        count = self.calendar.next_call(self.step, self.engine.per_call, self._steps_per_second())
        return self.trace.limit(count)

    def _take_steps(self, count: int, compiled: bool) -> Metrics:
        """The next steps; the first are over, with their compilation, when this returns."""
        with self.spending.on("steps" if compiled else "compiling"):
            if compiled:
                self.trace.begin()
            self.state, metrics = self.engine.train_steps(self.state, self.step, count, self.spending.on("data"))
            if not compiled:
                jax.block_until_ready(metrics)
            if traced := self.trace.end(count, metrics):
                self.display.line(f"trace of steps up to {self.step + count:,} in {traced}")
        return metrics

    def _out_of_patience(self) -> bool:
        """Whether no seed has improved for as long as the recipe allows."""
        patience = self.recipe.patience
        return patience is not None and all(progress.stale >= patience for progress in self.progress)

    def _final_evaluations(self, interrupts: Interrupts) -> None:
        """Measures the splits at the last state where that has not been done; goes back to the best for the test."""
        for name in self.engine.held_out:
            if interrupts.stops():
                return
            if name not in self.evaluations:
                self._evaluate(name)
                self._record(name)
        if self.checkpoints and "validation" in self.engine.held_out:
            self.best = self._read_best("there are no figures of it")
            if self.best is not None and "test" in self.engine.held_out:
                self.evaluations["best"] = self.engine.evaluate(self.best, "test")

    def _means(self) -> dict[str, float]:
        """Means over the epoch so far and all seeds, without those that have diverged."""
        means = [progress.means() for progress in self.progress]
        means = [one for one in means if all(map(math.isfinite, one.values()))] or means
        return {name: sum(one[name] for one in means) / len(means) for name in means[0]}

    def _steps_per_second(self) -> float:
        return self.timed_steps / self.timed_seconds if self.timed_seconds else 0.0

    def _fetch(self) -> None:
        """Fetches the metrics of the last steps from the device, counts them, and stops if they are not finite."""
        step = self.step - sum(count for count, _ in self.pending)
        with self.spending.on("steps"):
            fetched = self.engine.fetch([metrics for _, metrics in self.pending])
        for (count, _), metrics in zip(self.pending, fetched, strict=True):
            of_seeds = {name: np.reshape(values, (len(self.progress), -1)) for name, values in metrics.items()}
            for i in range(count):
                step += 1
                for k, progress in enumerate(self.progress):
                    self._count(step, k, progress, {name: float(values[k, i]) for name, values in of_seeds.items()})
        self.pending = []

    def _count(self, step: int, k: int, progress: Progress, values: dict[str, float]) -> None:
        """Counts a step of a seed."""
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]) and not self.go_on:
                self._diverged(f"{name} is {values[name]}", k, step)
        progress.add(values)
        if self.records and step % FETCH_EVERY == 0:
            self.records[k].write("batch", step, values | self._pace(step, k))

    def _pace(self, step: int, k: int) -> dict[str, float]:
        """The learning rate of a seed in a step, and the speed of one seed so far."""
        rate = float(self.engine.learning_rates(step - 1)[k])
        return {"learning_rate": rate, "images_per_second": self._steps_per_second() * self.recipe.batch_size}

    def _end_epoch(self) -> None:
        seconds, used = self.seconds(), self.peak.share(self.state, self.images_per_second())
        with self.spending.on("evaluation"):
            self.state = self.engine.settle(self.state)
        self.evaluations = {}
        name = next(iter(self.engine.held_out), None)  # validation where it is held out, else test
        if name is not None:
            self._evaluate(name)
        spent = self.spending.take()
        for k, records in enumerate(self.records):
            values = self.progress[k].means() | self._pace(self.step, k) | {"seconds": seconds}
            values |= {f"seconds_{purpose}": on_it for purpose, on_it in spent.items()}
            records.write("train", self.step, values | ({} if used is None else {"share_of_peak": used}))
        if name is not None:
            self._record(name)
        if name == "validation":
            self._keep_best(self.evaluations[name])
        remark = shares(spent) + ("" if used is None else f"; {used:.0%} of the chip's peak")
        self.display.epoch(self.calendar.epochs_after(self.step), self.evaluations, remark)

    def _evaluate(self, name: str) -> None:
        with self.spending.on("evaluation"):
            self.evaluations[name] = self.engine.evaluate(self.state, name)

    def _record(self, name: str) -> None:
        for found, records in zip(self.evaluations[name], self.records, strict=False):
            records.write(name, self.step, found.values())

    def _keep_best(self, found: Sequence[Evaluation]) -> None:
        ranks = [[self.chief.rank(one.metrics[self.chief.name]), -one.loss] for one in found]
        better = [rank > progress.best for rank, progress in zip(ranks, self.progress, strict=True)]
        for progress, is_better in zip(self.progress, better, strict=True):
            progress.stale = 0 if is_better else progress.stale + 1
        if not any(better):
            return
        for rank, progress, is_better in zip(ranks, self.progress, better, strict=True):
            if is_better:
                progress.best = rank
        self._check_finite()
        if self.checkpoints is None:
            return
        self.best = self.engine.choose(better, self.state, self.best or self.state)
        self._write(self.best, best=True)

    def _save(self) -> None:
        self._check_finite()
        self._write(self.state)

    def _write(self, state: TrainState, best: bool = False) -> None:
        if self.checkpoints is None:
            return
        for progress in self.progress:
            progress.seconds = self.seconds()
        with self.spending.on("saving"):
            for records in self.records:
                records.flush()
            self.checkpoints.save(self.step, state, to_json(self.progress), best)

    def _check_finite(self) -> None:
        # The last step can leave finite metrics behind it and parameters that are not.
        for k, finite in enumerate([] if self.go_on else self.engine.finite(self.state)):
            if not finite:
                self._diverged("a parameter or a moment of the optimiser is not finite", k, self.step)

    def _diverged(self, what: str, k: int, step: int) -> None:
        seed = f"of seed {self.engine.seeds[k]} " if len(self.engine.seeds) > 1 else ""
        clip = " no --optimizer.clip-norm," if getattr(self.recipe.optimizer, "clip_norm", 0.0) is None else ""
        raise TrainingDivergedError(
            f"training {seed}diverged: {what} at step {step} of {self.engine.total}; last good checkpoint: "
            f"{self._last_good()}; likely causes: the learning rate "
            f"({self.recipe.optimizer.learning_rate:g}) is too high,{clip} or inputs that are "
            "not finite; start a new run with a lower one"
        )

    def _last_good(self) -> str:
        step = self.checkpoints.newest_step() if self.checkpoints else None
        return "none" if step is None else f"step {step}"
