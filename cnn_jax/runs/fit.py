"""`fit`: trains a recipe with one seed or several, with or without a folder to keep it in."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, models
from cnn_jax.errors import InputError
from cnn_jax.runs import hosts
from cnn_jax.runs.beginnings import Variables, fitting
from cnn_jax.runs.capacity import check_fits, settle_feed
from cnn_jax.runs.display import Display
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.execution import Execution, check_seeds
from cnn_jax.runs.folder import RunFolder, seed_folder
from cnn_jax.runs.joint_folder import JointFolder
from cnn_jax.runs.loop import Loop
from cnn_jax.runs.seeds import leave_seed_folders
from cnn_jax.runs.signals import Interrupts
from cnn_jax.runs.storage import storing
from cnn_jax.training.evaluation import Evaluation, input_size
from cnn_jax.training.metrics import Metric
from cnn_jax.training.recipe import Recipe, make_functions
from cnn_jax.training.state import TrainState
from cnn_jax.training.summary import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of training; whatever is given per seed is in the order of `seeds`.

    Attributes:
        seeds: the seeds.
        state: the last state; with several seeds every array has a leading axis over them.
        train: mean "loss" and metrics over the batches of the last epoch, each before its step: float64 (seeds,).
        evaluations: for each split, one `Evaluation` per seed: "validation" and "test" at the last state, and "best",
            the test split at the seed's best checkpoint by validation. Empty if the run was interrupted.
        measures: the metrics by name.
        smooths: whether the loss smooths the labels.
        seconds: time spent in `fit`, over all starts of a resumed run.
        images_per_second: speed of the train steps of this start, all seeds together, without compilation and
            evaluation.
        interrupted: the signal that stopped the run early, or None.
    """

    seeds: tuple[int, ...]
    state: TrainState
    train: dict[str, np.ndarray]
    evaluations: dict[str, list[Evaluation]]
    measures: dict[str, Metric]
    smooths: bool
    seconds: float
    images_per_second: float
    interrupted: signal.Signals | None = None

    def values(self, split: str = "test", name: str = "accuracy") -> np.ndarray:
        """The "loss" or a metric of each seed on a split: float64 (seeds,)."""
        return np.array([found.values()[name] for found in self.evaluations[split]])

    def summary(self, split: str = "test", name: str = "accuracy") -> Summary:
        """Mean, standard deviation and 95 % confidence interval of the mean, over the seeds."""
        return summarise(self.values(split, name))

    def variables(self, seed: int | None = None) -> dict[str, Any]:
        """What `model.apply` takes, for one seed, by default the first."""
        chosen = self.state.eval_variables
        if len(self.seeds) == 1:
            return chosen
        k = 0 if seed is None else self.seeds.index(seed)
        return jax.tree.map(lambda leaf: leaf[k], chosen)


def fit(
    recipe: Recipe,
    train: data.Dataset,
    *,
    seeds: int | Sequence[int] = 0,
    validation: data.Dataset | None = None,
    test: data.Dataset | None = None,
    execution: Execution | None = None,
    begin_with: Callable[[], Variables] | None = None,
    folder: RunFolder | JointFolder | None = None,
    display: Display | None = None,
    trials: Mapping[str, Sequence[float]] | None = None,
) -> Result:
    """Trains a recipe with one seed, or with several together.

    Each of several seeds has the initial parameters, the batches, the random numbers and the steps that it has alone,
    and ends the same, apart from the rounding of sums taken in another order. They are spread over the
    devices (`replica_mesh`; on a CPU over its cores, if `split_cpu` was called first); the images stay on them.

    Where `jax.distributed` has been initialised, all processes call this with the same arguments and train one seed
    together; each has a folder opened by `open_together`.

    Args:
        recipe: everything that decides the numbers, besides data and seeds. Its model's `num_classes` is set to that of
            the data, and all images are brought to its `input_size`.
        train: images and labels to learn from.
        seeds: a seed, or several, each from 0 to 2**31 - 1.
        validation: images to choose the best checkpoint by, measured after each epoch, in place of a share of the
            training images (`Recipe.validation`).
        test: measured at the end, and after each epoch where there are no validation images.
        execution: how fast and how safely; `Execution()` by default.
        begin_with: returns the variables to start from where nothing is resumed, as `model.apply` takes them; arrays
            that the model has in other shapes, such as a head for other classes, are left out and named on standard
            error.
        folder: where to keep checkpoints and records, and what to resume; None keeps nothing on disk. With several
            seeds the checkpoints hold all of them; the records of each go to its own folder, `seed-K`, which at the end
            becomes that of an ordinary run.
        display: shows progress; None is silent.
        trials: makes the seeds trials of a sweep, see `sweep`: by dotted name, as "optimizer.learning_rate", the number
            that each has in place of the recipe's; there may be none. A seed may then occur several times, one that
            diverges stops nothing, and the records of each go to `replica-K`, which is not made a run.

    Returns:
        The last state and the figures. On the same machine, equal arguments give equal bits, however often the run was
        killed and resumed in between.

    Raises:
        TrainingDivergedError: a value of some seed became NaN or infinite, which stops all; no checkpoint has it.
        InputError: a seed is invalid; there are two kinds of validation images, or none for `patience` to go by;
            there are checkpoints in `folder`, but all are damaged; nothing of what to start from fits the model; or the
            run does not fit into memory, see `check_fits`.
        StorageError: a checkpoint, a record or a seed's folder cannot be written.
    """
    clock = time.monotonic()
    execution = execution or Execution()
    seeds = (seeds,) if isinstance(seeds, int) else seeds
    check_validation(recipe, validation)
    recipe = for_data(recipe, train)
    if recipe.pixel_range is not None:
        train = data.rescale(train, *recipe.pixel_range)
    # Transfers to and from the devices are intended here, whatever guard the surrounding code has set.
    with Interrupts() as interrupts, jax.transfer_guard("allow"):
        shape = (*input_size(recipe.model, train.images), train.images.shape[-1])
        check_fits(recipe, execution, len(train), shape, len(seeds))  # before iterating over billions of them
        seeds = tuple(seeds)
        check_all_seeds(seeds if trials is None else tuple(dict.fromkeys(seeds)))
        settled = settle_feed(execution, recipe, (train, validation, test))
        execution = dataclasses.replace(execution, feed=hosts.agree(lambda: settled.feed))
        engine = Engine(recipe, train, seeds, execution, validation, test, trials)
        several, is_trial = len(seeds) > 1, trials is not None
        names = [f"replica-{k}" if is_trial else seed_folder(seed) if several else "" for k, seed in enumerate(seeds)]
        paths = [folder.path / name for name in names] if folder and hosts.is_first() else []
        for path in paths:
            with storing(path):
                path.mkdir(exist_ok=True)
        if not hosts.is_first():
            display = None
        loop = Loop(engine, recipe, execution, folder, paths, display, clock, begin_with, go_on=is_trial)
        with contextlib.closing(engine), contextlib.closing(loop):
            interrupted = loop.run(interrupts)
            if folder and several and interrupted is None and not is_trial:
                leave_seed_folders(folder.path, seeds, loop.progress, loop.state, loop.best)
            means = [progress.means() for progress in loop.progress]
            return Result(
                seeds=seeds,
                state=loop.state,
                train={name: np.array([one[name] for one in means]) for name in means[0]},
                evaluations=loop.evaluations,
                measures=engine.measures,
                smooths=engine.smooths,
                seconds=loop.seconds(),
                images_per_second=loop.images_per_second(),
                interrupted=interrupted,
            )


def for_data(recipe: Recipe, train: data.Dataset) -> Recipe:
    """The recipe with a model that has as many classes as the data.

    Raises:
        InputError: the model or the loss cannot have that many, or the model cannot be called as models are.
    """
    classes = len(train.class_names)
    scores = jax.ShapeDtypeStruct((1, classes), jnp.float32)
    jax.eval_shape(recipe.loss, scores, scores)
    return dataclasses.replace(recipe, model=models.with_classes(recipe.model, classes))


def check_parameters(recipe: Recipe, train: data.Dataset, begin_with: Variables | None) -> None:
    """Refuses, before anything is compiled or written, whatever does not match the parameters of the model.

    Args:
        recipe: with the model `for_data`.
        train: the training images.
        begin_with: the variables to start from, if any.

    Raises:
        InputError: a group has no parameters, or an impossible optimiser; the images can set none of the parameters
            that they are to; or nothing of `begin_with` fits.
    """
    shape = (*input_size(recipe.model, train.images), train.images.shape[-1])
    functions = make_functions(recipe, train.statistics, shape, len(train.class_names), steps=1)
    first = jax.ShapeDtypeStruct((min(recipe.first_images, len(train)), *shape), np.uint8)
    state = jax.eval_shape(functions.init, jax.random.key(0), first)
    if begin_with is not None:
        fitting({"params": state.params, "batch_stats": state.batch_stats}, begin_with)


def check_all_seeds(seeds: Sequence[int]) -> None:
    """Raises InputError for seeds that `fit` cannot take."""
    for seed in seeds:
        check_seeds(seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds: expected one or more, each once, got {', '.join(map(str, seeds)) or 'none'}")


def check_validation(recipe: Recipe, validation: data.Dataset | None) -> None:
    """Raises InputError for kinds of validation images that cannot be combined."""
    if validation is not None and recipe.validation:
        raise InputError(
            f"validation: expected 0 as the data have validation images of their own, got {recipe.validation:g}"
        )
    if recipe.patience is not None and validation is None and not recipe.validation:
        raise InputError("patience: expected images held out to judge by, got none; give --validation, such as 0.1")
