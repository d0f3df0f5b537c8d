"""`sweep`: trains a recipe with all combinations of some values, and chooses one by validation images."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.runs.axes import Axes, combinations, shown, with_settings
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.display import Display
from cnn_jax.runs.execution import Execution
from cnn_jax.runs.fit import Result, fit
from cnn_jax.runs.folder import RunFolder, read_config, seed_folder
from cnn_jax.runs.programs import Program, plan
from cnn_jax.training.metrics import Metric
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.summary import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The outcome of a sweep.

    Attributes:
        axes: by the names of fields, the values that were tried.
        settings: of each combination, its values by the same names.
        recipes: of each combination, its recipe.
        seeds: the seeds.
        metric: what was measured on the validation images after training, the first of the recipe's metrics.
        values: float64 (combinations, seeds), the metric; NaN where training diverged.
        losses: likewise, the loss.
        chosen: the combination with the best mean over its seeds, of equals the one with the least mean loss.
        programs: what was trained together.
        results: what `fit` returned for each program.
        seconds: time spent, over all starts.
        interrupted: the signal that stopped it early, or None; then there are no figures.
    """

    axes: Axes
    settings: tuple[Mapping[str, Any], ...]
    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    metric: Metric
    values: np.ndarray
    losses: np.ndarray
    chosen: int
    programs: tuple[Program, ...]
    results: tuple[Result, ...]
    seconds: float
    interrupted: signal.Signals | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe chosen."""
        return self.recipes[self.chosen]

    def summary(self, k: int) -> Summary:
        """Mean, standard deviation and interval of a combination, over the seeds."""
        return summarise(self.values[k])

    def text(self, k: int) -> str:
        """The settings of a combination, as "optimizer.learning_rate = 0.003, epochs = 2"."""
        return ", ".join(f"{name} = {shown(value)}" for name, value in self.settings[k].items())

    def place(self, k: int) -> tuple[int, slice]:
        """The program that trained a combination, and which of its replicas are of it."""
        for p, program in enumerate(self.programs):
            if k in program.members:
                first = program.members.index(k) * len(self.seeds)
                return p, slice(first, first + len(self.seeds))
        raise IndexError(k)


def sweep(
    recipe: Recipe,
    axes: Axes,
    train: data.Dataset,
    *,
    seeds: int | Sequence[int] = 0,
    validation: data.Dataset | None = None,
    execution: Execution | None = None,
    open_folder: Callable[[int, Program], RunFolder] | None = None,
    display: Display | None = None,
    **options: Any,
) -> Sweep:
    """Trains all combinations of values with all seeds, and chooses one by validation images.

    Combinations that differ in numbers which can be traced, such as learning rates, are one program; those that differ
    in anything else, such as models or batch sizes, are programs one after the other. Each replica is, to rounding, the
    run that `fit` makes of its recipe and its seed. No test image is looked at.

    Args:
        recipe: what they have in common.
        axes: by dotted name, as "optimizer.learning_rate" or "model", the values to try.
        train: images and labels to learn from.
        seeds: a seed, or several, the same for every combination.
        validation: images to choose by, in place of a share of the training images (`Recipe.validation`).
        execution: how fast and how safely; `Execution()` by default.
        open_folder: makes the folder of a program, given its number and itself; None keeps nothing on disk.
        display: shows progress; None is silent.
        options: others of `fit`.

    Raises:
        InputError: there are no axes, no values or no validation images; a recipe is impossible; every combination
            diverged; or as `fit`.
    """
    began = time.monotonic()
    check_axes(axes, recipe, validation)
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    settings = combinations(axes)
    recipes = [with_settings(recipe, each) for each in settings]
    programs, results = plan(recipe, axes, train), list[Result]()
    interrupted, earlier = None, 0.0
    for p, program in enumerate(programs):
        if display is not None and len(programs) > 1:
            display.line(f"program {p + 1} of {len(programs)}: {len(program.members)} combinations")
        started = time.monotonic()
        folder = open_folder(p, program) if open_folder else None
        with contextlib.ExitStack() as stack:
            if folder is not None:
                stack.callback(folder.close)
            result = fit(
                program.recipe, train, seeds=seeds * len(program.members), validation=validation, execution=execution,
                folder=folder, display=display, **options,
                trials={name: np.repeat(values, len(seeds)).tolist() for name, values in program.numbers.items()},
            )  # fmt: skip
        results.append(result)
        earlier += result.seconds - (time.monotonic() - started)
        interrupted = result.interrupted
        if interrupted is not None:
            break
    metric = recipe.metrics[0] if recipe.metrics else next(iter(results[0].measures.values()))
    values, losses = (np.full((len(settings), len(seeds)), np.nan) for _ in range(2))
    for program, result in zip(programs, results, strict=False):
        if result.interrupted is None:
            loss = result.values("validation", "loss").reshape(-1, len(seeds))
            losses[list(program.members)] = np.where(np.isfinite(loss), loss, np.nan)
            found = result.values("validation", metric.name).reshape(-1, len(seeds))
            values[list(program.members)] = np.where(np.isfinite(loss), found, np.nan)
    return Sweep(
        axes=axes, settings=tuple(settings), recipes=tuple(recipes), seeds=seeds, metric=metric, values=values,
        losses=losses, chosen=0 if interrupted is not None else _choose(metric, values, losses),
        programs=tuple(programs), results=tuple(results), seconds=earlier + time.monotonic() - began,
        interrupted=interrupted,
    )  # fmt: skip


def check_axes(axes: Axes, recipe: Recipe, validation: data.Dataset | None) -> None:
    """Raises InputError where there is nothing to sweep over, or nothing to choose by."""
    if not axes or not all(axes.values()):
        raise InputError(f"sweep: expected fields, each with values, got {', '.join(axes) or 'none'}")
    if not recipe.validation and validation is None:
        raise InputError("sweep: expected images held out to choose by, got none; give --validation, such as 0.1")


def _choose(metric: Metric, values: np.ndarray, losses: np.ndarray) -> int:
    ranks = [
        (float(np.mean([metric.rank(value) for value in row])), -float(np.mean(loss)))
        for row, loss in zip(values, losses, strict=True)
    ]
    good = [k for k, rank in enumerate(ranks) if np.isfinite(rank).all()]
    if not good:
        raise InputError(
            "sweep: expected a combination that trains with every seed, but all diverged; try lower learning rates"
        )
    return max(good, key=ranks.__getitem__)


def hand_over(found: Sweep, program: Path, folder: RunFolder) -> None:
    """Puts what a sweep trained of the combination chosen into the new folder of a run, which then is at its end.

    Args:
        found: the sweep.
        program: the folder of the program that trained the combination.
        folder: of a run with the recipe and the seeds; one that has a checkpoint is left as it is.

    Raises:
        InputError: the checkpoints in either cannot be read, or not be written (StorageError).
    """
    p, replicas = found.place(found.chosen)
    chosen = range(*replicas.indices(len(found.results[p].seeds)))
    with contextlib.ExitStack() as stack:
        new = stack.enter_context(contextlib.closing(Checkpoints(folder.path, folder.run)))
        if new.newest_step() is not None:
            return
        old = Checkpoints(program, read_config(program)["run"], read_only=True)
        stack.callback(old.close)
        for k, seed in zip(chosen, found.seeds, strict=True):
            own = folder.path / seed_folder(seed) if len(found.seeds) > 1 else folder.path
            shutil.copytree(program / f"replica-{k}", own, dirs_exist_ok=True)
        for is_best in (True, False):  # a run has begun once it has a newest one
            restored = old.restore(found.results[p].state, best=is_best)
            if restored is None:
                continue
            state, progress = restored
            if len(found.results[p].seeds) > 1:
                pick = replicas if len(found.seeds) > 1 else replicas.start
                state = jax.tree.map(lambda leaf, pick=pick: leaf[pick], state)
            step = int(np.max(np.asarray(state.step)))
            new.save(step, state, {"seeds": [progress["seeds"][k] for k in chosen]}, best=is_best)


def to_json(found: Sweep) -> dict[str, Any]:
    """A sweep as JSON values: what was tried, with which figures, and what was chosen."""
    rows = [
        {"settings": {name: shown(value) for name, value in settings.items()}, "values": values, "losses": losses}
        for settings, values, losses in zip(found.settings, _plain(found.values), _plain(found.losses), strict=True)
    ]
    return {
        "axes": {name: list(map(shown, values)) for name, values in found.axes.items()},
        "seeds": list(found.seeds),
        "metric": found.metric.name,
        "split": "validation",
        "combinations": rows,
        "chosen": found.chosen,
        "programs": [list(program.members) for program in found.programs],
        "seconds": found.seconds,
    }


def _plain(values: np.ndarray) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]
