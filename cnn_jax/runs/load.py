"""A finished run read back from its folder: the model, its trained variables, and what its inputs must be."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import data, models, parts, terminal
from cnn_jax.data.source import TFDS, Source
from cnn_jax.errors import InputError
from cnn_jax.runs.capacity import reading
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.code import code_of
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.folder import CONFIG, read_config, seed_folder
from cnn_jax.runs.records import read_records
from cnn_jax.runs.texts import completed, from_json
from cnn_jax.training.data_init import DataInit
from cnn_jax.training.evaluation import EVAL_BATCH, Evaluation, at_input_size, evaluate
from cnn_jax.training.losses import Loss
from cnn_jax.training.metrics import Metric
from cnn_jax.training.precision import Precision
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.state import init_variables
from cnn_jax.training.step import make_eval_step
from cnn_jax.training.views import View

_READ = "model", "loss", "metrics", "test_time", "data_init"  # of a recipe, the parts that a run is used with


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model and what it was trained on.

    Attributes:
        path: the folder of the run.
        model: the Linen module.
        variables: what `model.apply` takes.
        step: how many steps the variables were trained.
        best: whether they are the best by validation rather than the last.
        data_name: the name of the data.
        image_shape: (height, width, channels) of the data set's images, before `data.fit_images`.
        class_names: a name for each score.
        statistics: of the training images.
        loss: the loss that was minimised.
        metrics: what was measured beside it.
        precision: what the model computed in, and does when it is measured.
        test_time: what else of an image the model is shown when it is measured and used.
        data_init: what made parameters of the training images.
        ink: how the training images are drawn; None where they are not drawings.
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
    loss: Loss
    metrics: tuple[Metric, ...]
    precision: Precision = "float32"
    test_time: tuple[View, ...] = ()
    data_init: tuple[DataInit, ...] = ()
    ink: data.Ink | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of images as the model takes them."""
        return models.input_size(self.model) or self.image_shape[:2]

    @functools.cached_property
    def measures(self) -> dict[str, Metric]:
        """What is measured, by name."""
        return Recipe(model=self.model, loss=self.loss, metrics=self.metrics).measures(len(self.class_names))

    @functools.cached_property
    def _eval_step(self) -> Any:
        preprocess = functools.partial(data.normalise, statistics=self.statistics)
        eval_step = make_eval_step(self.model, self.loss, preprocess, self.measures, self.precision, self.test_time)
        return jax.jit(eval_step)

    def evaluate(self, dataset: data.Dataset) -> Evaluation:
        """Measures the model on a data set whose images have as many channels as the run's.

        Raises:
            InputError: the images have another number of channels, or the classes are not as many.
        """
        counts = {
            "channels": (self.image_shape[-1], dataset.images.shape[-1]),
            "classes": (len(self.class_names), len(dataset.class_names)),
        }
        for what, (own, other) in counts.items():
            if own != other:
                raise InputError(
                    f"{self.path}: expected data with as many {what} as {self.data_name} has, {own}, but "
                    f"{dataset.name} has {other}; choose other data"
                )
        return evaluate(self._eval_step, self.variables, at_input_size(dataset, self.input_size), self.measures)

    def source(self) -> Source:
        """Where the run's data come from.

        Raises:
            InputError: that cannot be read.
        """
        contents = read_config(self.path)
        return parts.parse(str(contents["source"]), Source, files=code_of(self.path, contents))

    def load_data(
        self, split: str, source: Source | None = None, data_dir: str | os.PathLike[str] | None = None
    ) -> data.Dataset:
        """Loads a split of the run's data, or of another source.

        Data sets of TFDS are looked for in `data_dir`, else where their source says, else where the run had its own, if
        that folder is still there, else where `data.load` looks.

        Args:
            split: "train", "test" or another split that the source has.
            source: where to load from, by default where the run's data come from.
            data_dir: folder of prepared data sets, of a source that is `TFDS`.

        Raises:
            InputError: as the source; if the run was given a folder that is not there, the message says so.
        """
        own = self.source()
        chosen = own if source is None else source
        if not isinstance(chosen, TFDS):
            if data_dir is not None:
                name = parts.short_text(chosen)
                raise InputError(f"--data-dir: expected none with {name}, which is no data set of TFDS, got {data_dir}")
            return reading(chosen, self.input_size, "auto")(split, self.input_size)
        given = own.dir if isinstance(own, TFDS) else None
        is_there = given is not None and Path(given).is_dir()
        if data_dir is not None:
            chosen = dataclasses.replace(chosen, dir=os.fspath(data_dir))
        elif source is None or chosen.dir is None:
            chosen = dataclasses.replace(chosen, dir=given if is_there else None)
        try:
            return reading(chosen, self.input_size, "auto")(split, self.input_size)
        except InputError as error:
            if given is None or is_there or source is not None or data_dir is not None:
                raise
            raise InputError(
                f"{given}: expected the folder of data sets that the run was given, it is not there; name the one it "
                f"is now with --data-dir, or put it back (elsewhere: {error})"
            ) from None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (N, classes), of uint8 images (N, H, W, C)."""
        images = data.fit_images(images, self.input_size)
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


def load_run(path: Path | str) -> Run:
    """Reads a run: the best checkpoint by validation where one was kept, else the newest.

    Only what the model needs is read from a checkpoint, and no optimiser is built. It is checked against the digests
    that the run kept (`digests`). A damaged checkpoint is named on standard error, and an older one is used instead, or
    the newest instead of the best; a missing best one is named too, and records that go on past the newest.

    Raises:
        InputError: the folder holds no run, its configuration was damaged or changed, or it has no intact checkpoint.
    """
    path = Path(path)
    contents = read_config(path)
    try:
        seeds = list(contents["seeds"])
        files = code_of(path, contents)
        recipe = completed(contents["recipe"])
        model, loss, metrics, test_time, data_init = (from_json(name, recipe[name], files) for name in _READ)
        averages, precision = recipe["averaging"] != "none", recipe["precision"]
        described = contents["data"]
        mean, std = (tuple(map(float, described["statistics"][key])) for key in ("mean", "std"))
        extent = described["statistics"]["ink"]
        ink = None if extent is None else data.Ink(extent=float(extent), mean=mean[0])
        height, width, channels = map(int, described["image_shape"])
        class_names = tuple(map(str, described["class_names"]))
        data_name, identity = str(described["name"]), str(contents["run"])
    except InputError as error:
        raise InputError(f"{path / CONFIG}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path / CONFIG}: expected the configuration of a run, it is damaged ({error!r})") from None

    if any(name.startswith("sweep.") for name in recipe):
        raise InputError(f"{path}: expected a run, these are trials of a sweep; choose {path.parents[1] / 'best'}")
    if len(seeds) > 1:
        names = [seed_folder(seeds[0]), seed_folder(seeds[-1])]
        raise InputError(
            f"{path}: expected the run of one seed, but it trained {len(seeds)}; choose one of {path / names[0]} to "
            f"{names[1]}, which are there once training has ended"
        )
    input_shape = (*(models.input_size(model) or (height, width)), channels)
    sharding = jax.sharding.SingleDeviceSharding(current_device())

    def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    variables = jax.eval_shape(lambda: init_variables(model, input_shape, jax.random.key(0)))
    wanted = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    wanted = jax.tree.map(lambda leaf: abstract(leaf.shape, leaf.dtype), wanted)
    like = {"step": abstract((), np.int32)}
    like |= {"average": wanted | {"count": abstract((), np.int32)}} if averages else wanted
    with contextlib.closing(Checkpoints(path, identity, read_only=True)) as checkpoints:
        best, restored = _restore(checkpoints, like)
    if restored is None:
        raise InputError(f"{path}: expected a run with a checkpoint, found none yet; train it first or resume it")
    state = restored[0]
    step = int(state["step"])
    held = state["average"] if averages else state
    if not best:
        _note_later_records(path, step)
    return Run(
        path=path, model=model, variables={name: held[name] for name in wanted}, step=step, best=best,
        data_name=data_name, image_shape=(height, width, channels), class_names=class_names,
        statistics=data.Statistics(mean=mean, std=std), ink=ink, loss=loss, metrics=metrics, precision=precision,
        test_time=test_time, data_init=data_init,
    )  # fmt: skip


def _restore(
    checkpoints: Checkpoints, like: dict[str, Any]
) -> tuple[bool, tuple[dict[str, Any], dict[str, Any]] | None]:
    """Whether it is the best that was read, and what was."""
    with contextlib.suppress(InputError):  # the best is damaged, which has been said
        if restored := checkpoints.restore_parts(like, best=True):
            return True, restored
    restored = checkpoints.restore_parts(like)
    if restored and any(one["best"] for one in restored[1]["seeds"]):
        terminal.complain("checkpoint of the best epoch: missing or damaged; taking the newest instead")
    return False, restored


def _note_later_records(path: Path, step: int) -> None:
    try:
        last = max((record["step"] for record in read_records(path)), default=step)
    except OSError:  # a model can be read without its records
        return
    if last > step:
        terminal.complain(
            terminal.one_line(
                f"checkpoint {step} is the newest of {path}, but its records go on to step {last}: it is still "
                "training, was stopped in between, or a checkpoint is missing"
            )
        )
