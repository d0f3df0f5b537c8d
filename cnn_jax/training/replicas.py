"""Several seeds trained together, as one program."""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax import data
from cnn_jax.training.capacity import check_fits
from cnn_jax.training.config import TrainConfig, check_replicas
from cnn_jax.training.display import Display
from cnn_jax.training.evaluation import EVAL_BATCH, Evaluation, at_input_size, collect
from cnn_jax.training.folder import RunFolder, seed_folder
from cnn_jax.training.interrupts import Interrupts
from cnn_jax.training.loop import Loop
from cnn_jax.training.mapping import AXIS, map_replicas, replica_mesh, step_replicas
from cnn_jax.training.program import all_finite, compiler, pad_steps, settle_per_call
from cnn_jax.training.recipe import count_per_call, count_steps, make_recipe
from cnn_jax.training.seeds import leave_seed_folders
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Batch, Metrics, make_train_steps
from cnn_jax.training.storage import storing
from cnn_jax.training.summary import Summary, summarise


@dataclass(frozen=True, kw_only=True)
class ReplicasResult:
    """What the training of several seeds ended with; everything of each seed is in the order of `seeds`.

    Attributes:
        seeds: the seeds.
        state: the last states, stacked: `jax.tree.map(lambda leaf: leaf[k], state)` is that of `seeds[k]`.
        train: mean "loss" and "accuracy" over the batches of the last epoch, float64 (seeds,).
        evaluations: by split, an `Evaluation` of each seed: "validation" and "test" at the last state, and "best", the
            test split at the seed's best checkpoint by validation accuracy. Empty where the run was interrupted.
        seconds: time spent in `fit_replicas`, over all starts of a resumed run.
        images_per_second: speed of the train steps of this start, all seeds together, without compilation and
            evaluation.
        interrupted: the signal that stopped the run early, or None.
    """

    seeds: tuple[int, ...]
    state: TrainState
    train: dict[str, np.ndarray]
    evaluations: dict[str, list[Evaluation]]
    seconds: float
    images_per_second: float
    interrupted: signal.Signals | None = None

    def accuracies(self, split: str = "test") -> np.ndarray:
        """The accuracy of each seed on a split, from 0 to 1: float64 (seeds,)."""
        return np.array([found.accuracy for found in self.evaluations[split]])

    def losses(self, split: str = "test") -> np.ndarray:
        """The mean loss of each seed on a split: float64 (seeds,)."""
        return np.array([found.loss for found in self.evaluations[split]])

    @property
    def summary(self) -> dict[str, dict[str, Summary]]:
        """Mean, standard deviation and 95 % confidence interval of "accuracy" and "loss", by split."""
        return {
            split: {"accuracy": summarise(self.accuracies(split)), "loss": summarise(self.losses(split))}
            for split in self.evaluations
        }


def fit_replicas(
    model: nn.Module,
    train: data.Dataset,
    config: TrainConfig,
    *,
    replicas: int,
    test: data.Dataset | None = None,
    validation: float = 0.0,
    folder: RunFolder | None = None,
    display: Display | None = None,
) -> ReplicasResult:
    """Trains a model with the seeds `config.seed`, `config.seed + 1`, ... together, as one program.

    Each seed has the initial parameters, the batches, the random numbers and the steps that `fit` gives it, and ends
    as it does there but for the rounding of sums that are taken in another order. The seeds are spread over the devices
    (`replica_mesh`; on CPU over the cores, where `split_cpu` came first); the images stay on them.

    Args:
        model: a Linen module with an `input_size`, called as `model.apply(variables, images, train=...)`.
        train: images and labels to learn from; all images are brought to the model's input size.
        config: first seed, length, optimiser, schedule, loss and checkpoints.
        replicas: how many seeds.
        test: measured at the end, and after each epoch where there is no validation split.
        validation: a fraction below 1, or a count, of the training images that each seed holds out, by `data.holdout`,
            and measures after each epoch to keep its best checkpoint.
        folder: where to keep checkpoints and what to resume; None keeps nothing on disk. The checkpoints hold all
            seeds; the records of each go to its own folder, `seed-K`, which at the end becomes that of an ordinary run.
        display: shows how it goes; None is silent.

    Returns:
        The last states and the figures. On the same devices equal arguments give equal bits, however often the run was
        killed and resumed in between.

    Raises:
        TrainingDivergedError: something of one seed became NaN or infinite, which stops all; no checkpoint holds it.
        InputError: `replicas` or `validation` is no such number; or there are checkpoints in `folder`, but none is
            whole; or the run cannot fit, see `check_fits`.
        StorageError: a checkpoint, a record or a seed's folder cannot be written.
    """
    clock = time.monotonic()
    check_replicas(config.seed, replicas)
    # What is sent to the devices and back here is meant to be, whatever guard the code around has set.
    with Interrupts() as interrupts, jax.transfer_guard("allow"):
        check_fits(model, config, len(train), (*model.input_size, train.images.shape[-1]), replicas)
        program = Replicas(model, train, config, replicas, test, validation)
        paths = [folder.path / seed_folder(seed) for seed in program.seeds] if folder else []
        for path in paths:
            with storing(path):
                path.mkdir(exist_ok=True)
        with contextlib.closing(Loop(program, config, folder, paths, display, clock)) as loop:
            interrupted = loop.run(interrupts)
            if folder and interrupted is None:
                leave_seed_folders(folder.path, program.seeds, loop.progress, loop.state, loop.best)
            means = [progress.means() for progress in loop.progress]
            return ReplicasResult(
                seeds=program.seeds,
                state=loop.state,
                train={name: np.array([one[name] for one in means]) for name in means[0]},
                evaluations=loop.evaluations,
                seconds=loop.seconds(),
                images_per_second=loop.images_per_second(),
                interrupted=interrupted,
            )


def _choose(chosen: jax.Array, state: TrainState, other: TrainState) -> TrainState:
    return jax.tree.map(functools.partial(jnp.where, chosen), state, other)


class Replicas:
    """The `Program` of several seeds. States are stacked: every array has a leading replica axis, spread over devices.

    The images stay on the devices, each once, and the host sends only the indices of the batches. Each seed holds out
    its own validation images, as `data.holdout` does.
    """

    def __init__(
        self,
        model: nn.Module,
        train: data.Dataset,
        config: TrainConfig,
        replicas: int,
        test: data.Dataset | None,
        validation: float,
    ):
        self.seeds = tuple(range(config.seed, config.seed + replicas))
        # Of each split, where its images are and which rows of them each seed takes.
        if validation:
            parts = zip(*(data.holdout_indices(train, validation, seed) for seed in self.seeds), strict=True)
            self._rows = dict(zip(("train", "validation"), map(np.stack, parts), strict=True))
        else:
            self._rows = {"train": np.tile(np.arange(len(train)), (replicas, 1))}
        if test:
            self._rows["test"] = np.tile(np.arange(len(test)), (replicas, 1))
        self.images: int = self._rows["train"].shape[1]
        self.held_out = tuple(self._rows)[1:]
        self.total = count_steps(config, self.images)
        self._orders = [data.train_order(self.images, config.batch_size, seed) for seed in self.seeds]

        mesh = replica_mesh(replicas)
        self.per_call = count_per_call(config, self.images)
        self._settled = config.steps_per_call is not None or mesh.devices.flat[0].platform != "cpu"
        self._own, everywhere = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

        def place(dataset: data.Dataset) -> dict[str, jax.Array]:
            dataset = at_input_size(dataset, model.input_size)
            return jax.device_put({"image": dataset.images, "label": dataset.labels}, everywhere)

        self._images = {"train": place(train)}
        self._images["validation"] = self._images["train"]
        if test:
            self._images["test"] = place(test)

        image_shape = self._images["train"]["image"].shape[1:]
        recipe = make_recipe(model, config, train.statistics, image_shape, self.total)
        self.schedule = jax.jit(recipe.schedule)
        self._init = jax.jit(map_replicas(lambda seed: recipe.init(jax.random.key(seed)), (0,)))
        self._gather = jax.jit(lambda images, rows: jax.tree.map(lambda values: values[rows], images))
        self._train_steps = step_replicas(make_train_steps(recipe.train_step), replicas, compiler(config))
        self._eval_step = jax.jit(map_replicas(recipe.eval_step, (0, 0)))
        self._all_finite = jax.jit(jax.vmap(all_finite))
        self._choose = jax.jit(jax.vmap(_choose), out_shardings=self._own)

    def init(self) -> TrainState:
        return self._init(np.array(self.seeds))

    def train_steps(self, state: TrainState, step: int, count: int) -> tuple[TrainState, Metrics]:
        orders = [rows[order(step, count)] for rows, order in zip(self._rows["train"], self._orders, strict=True)]

        def arguments(most: int) -> tuple[Any, ...]:
            padded = jax.device_put(np.stack([pad_steps(order, most) for order in orders]), self._own)
            return state, self._images["train"], padded, np.int32(count)

        if not self._settled:
            self.per_call, self._settled = settle_per_call(self._train_steps, arguments, self.per_call), True
        return self._train_steps(*arguments(self.per_call))

    def evaluate(self, state: TrainState, split: str) -> list[Evaluation]:
        seeds, count = self._rows[split].shape
        results = []
        for start in range(0, count, EVAL_BATCH):
            positions = np.arange(start, start + EVAL_BATCH)
            batch = self._batch(split, np.tile(np.minimum(positions, count - 1), (seeds, 1)))
            mask = np.tile((positions < count).astype(np.float32), (seeds, 1))
            results.append(self._eval_step(state.variables, batch | {"mask": jax.device_put(mask, self._own)}))
        results = jax.device_get(results)
        return [collect(jax.tree.map(lambda part, k=k: part[k], results), count) for k in range(seeds)]

    def finite(self, state: TrainState) -> np.ndarray:
        return np.asarray(self._all_finite(state))

    def choose(self, chosen: Sequence[bool], state: TrainState, other: TrainState) -> TrainState:
        return self._choose(np.array(chosen), state, other)

    def _batch(self, split: str, positions: np.ndarray) -> Batch:
        """Images and labels at positions (seeds, batch) of each seed's share of a split, gathered on the devices."""
        rows = np.take_along_axis(self._rows[split], positions, axis=1).astype(np.int32)
        return self._gather(self._images[split], jax.device_put(rows, self._own))
