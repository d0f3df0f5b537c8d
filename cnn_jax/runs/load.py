"""A finished run read back from its folder: the model, its trained variables, and what its inputs must be."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import data, models, terminal
from cnn_jax.errors import InputError
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.config import LossConfig, OptimizerConfig
from cnn_jax.runs.devices import current_device
from cnn_jax.training.evaluation import EVAL_BATCH, Evaluation, at_input_size, evaluate
from cnn_jax.runs.folder import CONFIG, read_config, seed_folder
from cnn_jax.training.losses import beside_loss, make_loss
from cnn_jax.training.optimizers import make_optimizer
from cnn_jax.runs.records import read_records
from cnn_jax.training.state import TrainState, create_state
from cnn_jax.training.step import make_eval_step


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model and what it was trained on.

    Attributes:
        path: the folder of the run.
        model: the Linen module.
        variables: what `model.apply` takes.
        step: how many steps the variables were trained.
        best: whether they are the best by validation accuracy, rather than the last.
        data_name: the data set, as `data.load` takes it.
        image_shape: (height, width, channels) of the data set's images, before `data.fit_images`.
        class_names: a name for each score.
        statistics: of the training images.
        loss: the loss that was minimised.
    """

    path: Path
    model: nn.Module
    variables: dict[str, Any]
    step: int
    best: bool
    data_name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    statistics: data.Statistics
    loss: LossConfig

    @functools.cached_property
    def _eval_step(self) -> Any:
        preprocess = functools.partial(data.normalise, statistics=self.statistics)
        return jax.jit(make_eval_step(self.model, make_loss(self.loss), preprocess, beside_loss(self.loss)))

    def evaluate(self, dataset: data.Dataset) -> Evaluation:
        """Measures the model on a data set whose images have as many channels as the run's.

        Raises:
            InputError: the images have another number of channels, or the classes are not as many.
        """
        channels, classes = dataset.images.shape[-1], len(dataset.class_names)
        if channels != self.image_shape[-1] or classes != len(self.class_names):
            raise InputError(
                f"{self.path}: expected images of {self.image_shape[-1]} channels in {len(self.class_names)} classes, "
                f"but {dataset.name} has {channels} channels and {classes} classes; choose a data set like "
                f"{self.data_name}"
            )
        return evaluate(self._eval_step, self.variables, at_input_size(dataset, self.model.input_size))

    def load_data(self, split: str, name: str | None = None, data_dir: Path | None = None) -> data.Dataset:
        """Loads a split of the run's data set from where the run had it, or else from where `data.load` looks.

        Args:
            split: as `data.load` takes it.
            name: another data set, by default the run's own.
            data_dir: another folder of prepared data sets.

        Raises:
            InputError: as `data.load`; if the run was given a folder that is not there, the message says so.
        """
        options = read_config(self.path)["config"].get("data")
        own = options.get("dir") if isinstance(options, dict) else None
        own = Path(own) if isinstance(own, str) and data_dir is None else None
        found = own if own is not None and own.is_dir() else None
        try:
            return data.load(
                name or self.data_name, split, data_dir=data_dir or found, image_size=self.model.input_size
            )
        except InputError as error:
            if own == found or name:
                raise
            raise InputError(
                f"{own}: expected the folder of data sets that the run was given, it is not there; name the one it is "
                f"now with --data-dir, or put it back (elsewhere: {error})"
            ) from None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (N, classes), of uint8 images (N, H, W, C)."""
        images = data.fit_images(images, self.model.input_size)
        found = []
        for start in range(0, len(images), EVAL_BATCH):
            # A last batch filled up to the full size needs no second compilation.
            part = images[start : start + EVAL_BATCH]
            size = EVAL_BATCH if len(images) > EVAL_BATCH else len(images)
            image = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.uint8)])
            batch = {"image": image, "label": np.zeros(size, np.int32), "mask": np.ones(size, np.float32)}
            _, scores = self._eval_step(self.variables, batch)
            found.append(np.asarray(jax.nn.softmax(scores))[: len(part)])
        return np.concatenate(found)


def load_run(path: Path) -> Run:
    """Reads a run: the best checkpoint by validation accuracy where one was kept, else the newest.

    What is read is checked against the digests that the run kept (`digests`). A checkpoint that is not whole is named
    on standard error, and an older one stands in, or the newest for the best; so is the best that is missing, and what
    the newest lacks of the run's records.

    Raises:
        InputError: the folder holds no run, its configuration is damaged or was changed, or it has no whole checkpoint.
    """
    contents = read_config(path)
    try:
        first, replicas = int(contents["config"]["seed"]), int(contents["config"].get("replicas", 1))
        fields = dict(contents["model"])
        model = models.build(fields.pop("name"), **fields)
        described = contents["data"]
        mean, std, ink = (described["statistics"][key] for key in ("mean", "std", "ink"))
        statistics = data.Statistics(mean=tuple(map(float, mean)), std=tuple(map(float, std)), ink=ink and float(ink))
        optimizer = make_optimizer(OptimizerConfig(**contents["config"]["optimizer"]), lambda count: 0.0)
        loss = LossConfig(**contents["config"]["loss"])
        height, width, channels = map(int, described["image_shape"])
        class_names = tuple(map(str, described["class_names"]))
        data_name = str(described["name"])
        input_shape = (*model.input_size, channels)
    except InputError as error:
        raise InputError(f"{path / CONFIG}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path / CONFIG}: expected the configuration of a run, it is damaged ({error!r})") from None

    if replicas > 1:
        names = [seed_folder(first), seed_folder(first + replicas - 1)]
        raise InputError(
            f"{path}: expected the run of one seed, but it trained {replicas}; choose one of {path / names[0]} to "
            f"{names[1]}, which are there once training has ended"
        )
    abstract = jax.eval_shape(lambda: create_state(model, optimizer, input_shape, 0))
    sharding = jax.sharding.SingleDeviceSharding(current_device())
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract)
    with contextlib.closing(Checkpoints(path, contents.get("run"), read_only=True)) as checkpoints:
        best, restored = _restore(checkpoints, like)
    if restored is None:
        raise InputError(f"{path}: expected a run with a checkpoint, found none yet; train it first, or resume it")
    state, _ = restored
    if not best:
        _note_later_records(path, int(state.step))
    return Run(
        path=path, model=model, variables=state.variables, step=int(state.step), best=best, data_name=data_name,
        image_shape=(height, width, channels), class_names=class_names, statistics=statistics, loss=loss,
    )  # fmt: skip


def _restore(checkpoints: Checkpoints, like: TrainState) -> tuple[bool, tuple[TrainState, dict[str, Any]] | None]:
    """Whether it is the best that was read, and what was."""
    with contextlib.suppress(InputError):  # of the best; that it is not whole has been said
        if restored := checkpoints.restore(like, best=True):
            return True, restored
    restored = checkpoints.restore(like)
    if restored and restored[1].get("best"):
        terminal.complain("checkpoint of the best epoch: missing or damaged; taking the newest instead")
    return False, restored


def _note_later_records(path: Path, step: int) -> None:
    try:
        last = max((record["step"] for record in read_records(path)), default=step)
    except OSError:  # A model is read without its records, too.
        return
    if last > step:
        terminal.complain(
            terminal.one_line(
                f"checkpoint {step} is the newest of {path}, but its records go on to step {last}: it is still "
                "training, was stopped in between, or a checkpoint is missing"
            )
        )
