"""An experiment from its configuration to its closing table: what the scripts in `experiments/` share."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_jax import data, models, terminal
from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.files import new_folder
from cnn_jax.runs.capacity import check_fits, short_of_memory
from cnn_jax.runs.compilation import keep_compiled
from cnn_jax.runs.config import ExperimentConfig, to_dict
from cnn_jax.runs.devices import current_device, select_device, split_cpu
from cnn_jax.runs.display import Display, duration
from cnn_jax.training.evaluation import Evaluation
from cnn_jax.runs.folder import RunFolder, check_free, environment, seed_folder
from cnn_jax.runs.memory import keep_memory
from cnn_jax.runs.replicas import ReplicasResult, fit_replicas
from cnn_jax.runs.single import FitResult, fit
from cnn_jax.training.summary import summarise


def run_experiment(
    config: ExperimentConfig,
    experiment: str,
    model: str,
    fields: dict[str, Any],
    *,
    prepare: Callable[[data.Dataset], data.Dataset] | None = None,
    finish: Callable[[Path], None] | None = None,
    whole: Path | None = None,
) -> FitResult | ReplicasResult:
    """Loads the data, builds the model, opens the folder of the run, trains, prints how it went, and reports.

    Args:
        config: the options of the run.
        experiment: name of the experiment, for the folder's default name.
        model: name of the model in `models.MODELS`.
        fields: its fields; `num_classes` comes from the data.
        prepare: makes of a split what is to be learned from or tested on; by default that is the split itself.
        finish: does what else is to be done with the folder of the finished run, before the report on it.
        whole: the folder that the command line calls --out, where the run is only a part of what that is for.

    Returns:
        What `fit` returned, or `fit_replicas` where `config.replicas` is more than one.

    Raises:
        InputError: an option, the data or the folder cannot be used; nothing on disk has been touched then. Or, after
            everything else has been done and shown, `finish` or the report failed; the run is on disk then.
        StorageError: what the run writes cannot be written; it can be resumed from its last good checkpoint.
        SystemExit: with 128 plus the signal's number where a signal stopped the run after it was saved.
    """
    began = time.monotonic()
    keep_compiled()
    if config.replicas > 1:
        split_cpu()
    else:  # Several devices of a CPU compute in threads of their own, whose memory cannot be kept.
        keep_memory()
    if config.device is not None:
        select_device(config.device)

    # Folder, first look: a refusal must not wait for a download.
    moment = time.strftime("%Y%m%d-%H%M%S")
    if config.out is not None:
        check_free(config.out, config.resume, config.overwrite)

    # Data.
    image_size = models.build(model, **fields).input_size
    train = data.load(config.data.name, "train", data_dir=config.data.dir, image_size=image_size)
    test = data.load(config.data.name, "test", data_dir=config.data.dir, image_size=image_size)
    if prepare is not None:
        train, test = prepare(train), prepare(test)
    if config.data.pixel_range is not None:
        train = data.rescale(train, *config.data.pixel_range)
    everything, validation = train, None
    if config.data.validation:
        train, validation = data.holdout(everything, config.data.validation, config.seed)

    # Model.
    fields = {**fields, "num_classes": len(train.class_names)}
    module = models.build(model, **fields)
    shape = (*image_size, train.images.shape[-1])
    check_fits(module, config, len(train), shape, config.replicas)

    # Folder. By now everything that can be wrong with the options has been looked at.
    contents = {
        "config": to_dict(_with_absolute_data_dir(config)),
        "model": {"name": model, **fields},
        "data": _describe_data(train),
        **environment(),
    }
    name = f"{experiment}-{config.data.name.replace('/', '-')}-{moment}"
    path = config.out or new_folder(Path("runs") / name)
    folder = RunFolder(path, contents, config.resume, config.overwrite)

    # Training.
    display = Display()
    display.line(
        f"{model} on {terminal.plain(f'{train.name} {train.version}')} ({len(train):,} train, "
        f"{f'{len(validation):,} validation, ' if validation else ''}{len(test):,} test images), "
        f"{_lengths(config)} on {current_device().platform}, in {shown(path)}"
    )
    result: FitResult | ReplicasResult
    try:
        with short_of_memory(config):
            if config.replicas == 1:
                result = fit(module, train, config, test=test, validation=validation, folder=folder, display=display)
            else:  # Each seed holds out its own images.
                result = fit_replicas(
                    module, everything, config, replicas=config.replicas, test=test, validation=config.data.validation,
                    folder=folder, display=display,
                )  # fmt: skip
    finally:
        folder.close()
    if result.interrupted is not None:
        _say_how_to_resume(result, path, whole or path)
        raise SystemExit(128 + result.interrupted)
    _print_results(result, path, time.monotonic() - began)
    faults = []
    for show in (finish, _report if config.report else None):
        try:
            if show is not None:
                show(path)
        except InputError as error:
            faults.append(str(error))
    if faults:
        raise InputError(f"{'; '.join(faults)} (the run itself is whole, in {path})")
    return result


def _lengths(config: ExperimentConfig) -> str:
    epochs = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"
    return f"{epochs}, seeds {config.seed} to {config.seed + config.replicas - 1}," if config.replicas > 1 else epochs


def _with_absolute_data_dir(config: ExperimentConfig) -> ExperimentConfig:
    """The same, to be kept: the run may be evaluated from another folder."""
    if config.data.dir is None:
        return config
    folder = config.data.dir.expanduser().absolute()
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir=folder))


def _describe_data(train: data.Dataset) -> dict[str, Any]:
    """What is needed of the training data to use the model later, and to tell whether a run resumes on the same."""
    return {
        "name": train.name,
        "version": train.version,
        "images": len(train),
        "image_shape": list(train.images.shape[1:]),
        "class_names": list(train.class_names),
        "statistics": dataclasses.asdict(train.statistics),
    }


def _installed(name: str) -> str:
    """How to call a program of this environment from here: by its name alone if the shell finds this one by it."""
    own = Path(sys.executable).parent / name
    if shutil.which(name) == str(own):
        return name
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)


def _say_how_to_resume(result: FitResult | ReplicasResult, path: Path, whole: Path) -> None:
    given = [argument for argument in sys.argv if argument not in ("--resume", "--overwrite")]
    out = [] if "--out" in given or any(a.startswith("--out=") for a in given) else ["--out", str(whole)]
    command = terminal.shell(_installed(Path(sys.executable).name), *given, *out, "--resume")
    name = result.interrupted.name if result.interrupted else ""
    text = f"stopped by {name} after step {_steps(result)}, saved in {shown(path)}; go on with:\n  {command}"
    if not terminal.say(text):  # Ctrl-C has ended the reader of a pipe too.
        terminal.complain(text)


def _steps(result: FitResult | ReplicasResult) -> int:
    return int(np.ravel(result.state.step)[0])


def _print_results(result: FitResult | ReplicasResult, path: Path, seconds: float) -> None:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    if isinstance(result, FitResult):
        _show_splits(result)
        each, example = "", path
    else:
        _show_seeds(result)
        found = list(result.summary.values())[-1]["accuracy"]  # the best where there is one, else the last
        terminal.say(
            f"test accuracy {found.percent()} (mean ± standard deviation over {len(result.seeds)} seeds), "
            f"95 % confidence interval of the mean {100 * found.low:.2f} to {100 * found.high:.2f} %"
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
        terminal.say(f"no report, but the run itself is whole; write one with:\n  {command}")
        raise


def _figures(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """What there is to show of a split: the loss, with and without smoothed labels where they were, and accuracy."""
    smoothed = any(found.cross_entropy is not None for found in evaluations)
    return ("smoothed loss", "cross-entropy", "accuracy") if smoothed else ("loss", "accuracy")


def _show_splits(result: FitResult) -> None:
    """A row a split."""
    names = {"train": "train (last epoch)", "best": "test (best by validation)"}
    figures = _figures(list(result.evaluations.values()))
    between = [""] * (len(figures) - 2)
    rows = [(names["train"], f"{result.train['loss']:.4f}", *between, f"{result.train['accuracy']:.2%}")]
    for name, found in result.evaluations.items():
        unsmoothed = [f"{value:.4f}" for value in found.unsmoothed().values()]
        accuracy = f"{found.accuracy:.2%} of {found.count:,}"
        rows.append((names.get(name, name), f"{found.loss:.4f}", *unsmoothed, accuracy))
    terminal.show_table(("", *figures), rows)


def _show_seeds(result: ReplicasResult) -> None:
    """A row a seed, and what they come to."""
    names = {"best": "test at best"}
    header, columns, kinds = ["seed"], [], []
    for split, found in result.evaluations.items():
        for figure in _figures(found):
            header.append(f"{names.get(split, split)} {figure}")
            kinds.append("{:.2%}" if figure == "accuracy" else "{:.4f}")
        columns.append([e.loss for e in found])
        if found[0].cross_entropy is not None:
            columns.append([e.unsmoothed()["cross_entropy"] for e in found])
        columns.append([e.accuracy for e in found])

    def row(name: str, values: Iterable[float]) -> list[str]:
        return [name, *(kind.format(value) for kind, value in zip(kinds, values, strict=True))]

    rows = [row(str(seed), values) for seed, *values in zip(result.seeds, *columns, strict=True)]
    summaries = [summarise(column) for column in columns]
    footer = [
        row(name, [getattr(summary, field) for summary in summaries])
        for name, field in (("mean", "mean"), ("std", "std"), ("95% ≥", "low"), ("95% ≤", "high"))
    ]
    terminal.show_table(header, rows, footer=footer)
