"""An experiment from its configuration to its closing table, as shared by the scripts in `experiments/`."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import arg

from cnn_jax import data, models, parts, terminal
from cnn_jax.data.pictures import shown
from cnn_jax.data.source import TFDS, Source
from cnn_jax.errors import InputError
from cnn_jax.files import new_folder
from cnn_jax.runs.capacity import check_fits, short_of_memory
from cnn_jax.runs.compilation import keep_compiled
from cnn_jax.runs.devices import current_device, select_device, split_cpu
from cnn_jax.runs.display import Display, duration
from cnn_jax.runs.execution import Execution, Place, check_seeds
from cnn_jax.runs.fit import Result, check_parameters, check_validation, fit, for_data
from cnn_jax.runs.folder import RunFolder, check_free, environment, seed_folder
from cnn_jax.runs.load import load_run
from cnn_jax.runs.memory import keep_memory
from cnn_jax.runs.rehearsal import rehearse
from cnn_jax.runs.texts import parts_of, to_json
from cnn_jax.training.evaluation import input_size
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.summary import summarise

_ANY = (224, 224)  # height and width of images that differ, for a model that takes any size


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A run from its recipe to its report: what experiments take as options."""

    recipe: Annotated[Recipe, arg(name="")] = Recipe()
    data: Source = TFDS()
    """The images to learn from."""
    seed: int = 0
    """Seed of the parameters, the order of the images and anything else random."""
    replicas: int = 1
    """How many seeds to train, from `seed` on, together as one program; the table then shows mean, standard deviation
    and confidence interval."""
    execution: Annotated[Execution, arg(name="")] = Execution()
    place: Annotated[Place, arg(name="")] = Place()

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.replicas)

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.replicas)


def prepare(config: Experiment) -> None:
    """Sets what has to be set before JAX starts; `run_experiment` does it itself.

    Raises:
        InputError: there is no such device.
    """
    keep_compiled()
    if config.replicas > 1:
        split_cpu()
    else:  # several devices of a CPU compute in threads of their own, whose memory cannot be kept
        keep_memory()
    if config.execution.device is not None:
        select_device(config.execution.device)


def run_experiment(
    config: Experiment,
    experiment: str,
    *,
    finish: Callable[[Path], None] | None = None,
    leaves: Sequence[str] = (),
    whole: Path | None = None,
) -> Result:
    """Loads the data, opens the folder of the run, trains, prints the results, and writes the report.

    Args:
        config: the options of the run.
        experiment: name of the experiment, for the folder's default name.
        finish: whatever else is to be done with the folder of the finished run, before the report is written.
        leaves: names of the files that `finish` writes into that folder, or into those of the seeds. They belong to the
            run: no other output takes their place, and they go when the run is replaced.
        whole: the folder that the command line calls --out, if this run is only a part of what goes there.

    Returns:
        What `fit` returned.

    Raises:
        InputError: an option, the data or the folder cannot be used; nothing on disk has been touched. Or, after
            everything else has been done and shown, `finish` or the report failed; the run itself is on disk.
        StorageError: the run cannot write its files; it can be resumed from its last good checkpoint.
        SystemExit: with 128 plus the signal's number if a signal stopped the run, which has been saved.
    """
    began = time.monotonic()
    recipe, execution, place = config.recipe, config.execution, config.place
    prepare(config)

    # Folder, first look: a refusal must not wait for a download.
    moment = time.strftime("%Y%m%d-%H%M%S")
    holds_run = place.out is not None and check_free(place.out, place.resume, place.overwrite)
    begin_with, weights = None, None
    if recipe.init is not None:
        begin_with = functools.cache(functools.partial(_weights, Path(recipe.init)))
        if not (holds_run and place.resume):  # the run may be all that is left of it
            weights = begin_with()

    # Data.
    size = models.input_size(recipe.model) or _ANY
    train, test = config.data("train", size), config.data("test", size)
    if recipe.pixel_range is not None:
        train = data.rescale(train, *recipe.pixel_range)
    validation = None if recipe.validation else config.data.validation(size)
    check_validation(recipe, validation)
    held_out = 0
    if recipe.validation:
        held_out = len(data.holdout_indices(train, recipe.validation, config.seed)[1])

    # Model.
    recipe = for_data(recipe, train)
    shape = (*input_size(recipe.model, train.images), train.images.shape[-1])
    check_fits(recipe, execution, len(train) - held_out, shape, config.replicas)
    if type(recipe.model) not in models.MODELS.values():  # ours are known to be sound, and the check takes a trace
        models.check_scores(recipe.model, shape, len(train.class_names))
    # The check takes a trace of the model.
    if recipe.groups or recipe.data_init or recipe.optimizer.kernels_only or weights is not None:
        check_parameters(recipe, train, weights)

    if place.dry_run:
        rows = rehearse(recipe, train, test, config.seeds, execution)
        terminal.show_table(("a run would have", ""), rows, left=(0, 1))
        raise SystemExit(0)

    # Folder. By now everything that can be wrong with the options has been checked.
    contents = {
        "experiment": experiment,
        "recipe": to_json(recipe),
        "data": _describe_data(train),
        "seeds": list(config.seeds),
        "source": parts.text(config.data.here()),
        "files": list(leaves),
        "execution": dataclasses.asdict(execution),
        **environment(),
    }
    path = place.out or new_folder(Path("runs") / f"{experiment}-{config.data.label()}-{moment}")
    code = parts.files_of(*parts_of(recipe), config.data)
    folder = RunFolder(path, contents, place.resume, place.overwrite, code)

    # Training.
    display = Display()
    name = parts.short_text(recipe.model, models.MODELS).partition("(")[0]
    chosen_by = len(validation) if validation else held_out
    display.line(
        f"{terminal.plain(f'{name} on {train.name} {train.version}')} ({len(train) - held_out:,} train, "
        f"{f'{chosen_by:,} validation, ' if chosen_by else ''}{len(test):,} test images), "
        f"{_lengths(config)} on {current_device().platform}, in {shown(path)}"
    )
    try:
        with short_of_memory(recipe):
            result = fit(
                recipe, train, seeds=config.seeds, validation=validation, test=test, execution=execution,
                begin_with=begin_with, folder=folder, display=display,
            )  # fmt: skip
    finally:
        folder.close()
    if result.interrupted is not None:
        _say_how_to_resume(result, path, whole or path)
        raise SystemExit(128 + result.interrupted)
    _print_results(result, path, time.monotonic() - began)
    faults = []
    for show in (finish, _report if place.report else None):
        try:
            if show is not None:
                show(path)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError(f"{'; '.join(faults)} (the run itself is complete, in {path})")
    return result


def _weights(path: Path) -> dict[str, Any]:
    try:
        return load_run(path).variables
    except InputError as error:
        raise InputError(f"init: {error}") from None


def _lengths(config: Experiment) -> str:
    count, what = (config.recipe.epochs, "epoch") if config.recipe.steps is None else (config.recipe.steps, "step")
    length = f"{count:,} {what}{'s' if count > 1 else ''}"
    return f"{length}, seeds {config.seeds[0]} to {config.seeds[-1]}," if config.replicas > 1 else length


def _describe_data(train: data.Dataset) -> dict[str, Any]:
    """What is needed of the data to use the model later, and to tell whether a run resumes on the same data."""
    return {
        "name": train.name,
        "version": train.version,
        "fingerprint": train.fingerprint,
        "images": len(train),
        "image_shape": list(train.images.shape[1:]),
        "class_names": list(train.class_names),
        "statistics": dataclasses.asdict(train.statistics) | {"ink": train.ink.extent if train.ink else None},
    }


def _installed(name: str) -> str:
    """How to call a program of this environment from here: by name alone if the shell finds this very one."""
    own = Path(sys.executable).parent / name
    if shutil.which(name) == str(own):
        return name
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)


def _say_how_to_resume(result: Result, path: Path, whole: Path) -> None:
    given = [argument for argument in sys.argv if argument not in ("--resume", "--overwrite")]
    out = [] if "--out" in given or any(a.startswith("--out=") for a in given) else ["--out", str(whole)]
    command = terminal.shell(_installed(Path(sys.executable).name), *given, *out, "--resume")
    name = result.interrupted.name if result.interrupted else ""
    text = f"stopped by {name} after step {_steps(result)}, saved in {shown(path)}; resume with:\n  {command}"
    if not terminal.say(text):  # Ctrl-C has also ended the reader of a pipe
        terminal.complain(text)


def _steps(result: Result) -> int:
    return int(np.ravel(result.state.step)[0])


def _print_results(result: Result, path: Path, seconds: float) -> None:
    parameters, each, example = sum(leaf.size for leaf in jax.tree.leaves(result.state.params)), "", path
    if len(result.seeds) == 1:
        _show_splits(result)
    else:
        _show_seeds(result)
        split = list(result.evaluations)[-1]  # the best where there is one, else the last
        name, metric = next(iter(result.measures.items()))
        found = result.summary(split, name)
        low, high = (metric.shown(end) for end in (found.low, found.high))
        terminal.say(
            f"test {name} {found.text(metric.is_share)} (mean ± standard deviation over {len(result.seeds)} seeds), "
            f"95 % confidence interval of the mean {low} to {high}"
        )
        parameters //= len(result.seeds)
        each, example = " each", path / seed_folder(result.seeds[0])
    terminal.say(
        f"{parameters:,} parameters{each}, {_steps(result):,} steps, {result.images_per_second:,.0f} images/s, "
        f"{duration(seconds)} from the start; run kept in {shown(path)}\n"
        f"next: {terminal.shell(_installed('cnn-jax'), 'evaluate', str(example))}"
    )


def _report(path: Path) -> None:
    from cnn_jax.report import write_report

    try:
        terminal.say(f"report: {shown(write_report(path))}")
    except InputError as error:
        raise InputError(f"no report: {error}") from None
    except KeyboardInterrupt:
        command = terminal.shell(_installed("cnn-jax"), "report", str(path))
        terminal.say(f"no report, but the run itself is complete; write one with:\n  {command}")
        raise


def _columns(result: Result, names: Iterable[str]) -> dict[str, Callable[[float], str]]:
    """By name, how to show the loss and each metric."""
    shown = {name: metric.shown for name, metric in result.measures.items()}
    return {name: shown.get(name, "{:.4f}".format) for name in names}


def _heading(result: Result, name: str) -> str:
    """What a table calls the loss or a metric."""
    if name == "loss":
        return "smoothed loss" if result.smooths else "loss"
    return name.replace("cross_entropy", "cross-entropy").replace("_", " ")


def _show_splits(result: Result) -> None:
    """One row per split."""
    titles = {"train": "train (last epoch)", "best": "test (best by validation)"}
    found = {name: of_seeds[0] for name, of_seeds in result.evaluations.items()}
    columns = _columns(result, next(iter(found.values())).values() if found else result.train)
    train = {name: float(values[0]) for name, values in result.train.items()}
    rows = [(titles["train"], *(show(train[name]) if name in train else "" for name, show in columns.items()))]
    for name, evaluation in found.items():
        values = evaluation.values()
        *cells, last = [show(values[column]) for column, show in columns.items()]
        rows.append((titles.get(name, name), *cells, f"{last} of {evaluation.count:,}"))
    terminal.show_table(("", *(_heading(result, name) for name in columns)), rows)


def _show_seeds(result: Result) -> None:
    """One row per seed, then the summary."""
    names = {"best": "test at best"}
    header, shows, columns = ["seed"], [], []
    for split, found in result.evaluations.items():
        for name, show in _columns(result, found[0].values()).items():
            header.append(f"{names.get(split, split)} {_heading(result, name)}")
            shows.append(show)
            columns.append(result.values(split, name))

    def row(name: str, values: Iterable[float]) -> list[str]:
        return [name, *(show(value) for show, value in zip(shows, values, strict=True))]

    rows = [row(str(seed), values) for seed, *values in zip(result.seeds, *columns, strict=True)]
    summaries = [summarise(column) for column in columns]
    footer = [
        row(name, [getattr(summary, field) for summary in summaries])
        for name, field in (("mean", "mean"), ("std", "std"), ("95% ≥", "low"), ("95% ≤", "high"))
    ]
    terminal.show_table(header, rows, footer=footer)
