"""An experiment from its configuration to its closing table: what the scripts in `experiments/` share."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn_jax import data, models
from cnn_jax.errors import InputError
from cnn_jax.training.compilation import keep_compiled
from cnn_jax.training.config import ExperimentConfig, to_dict
from cnn_jax.training.devices import current_device, select_device, split_cpu
from cnn_jax.training.display import Display, duration
from cnn_jax.training.folder import RunFolder, check_free, environment, seed_folder
from cnn_jax.training.memory import keep_memory
from cnn_jax.training.replicas import ReplicasResult, fit_replicas
from cnn_jax.training.single import FitResult, fit

if TYPE_CHECKING:
    from rich.table import Table


def run_experiment(
    config: ExperimentConfig,
    experiment: str,
    model: str,
    fields: dict[str, Any],
    *,
    prepare: Callable[[data.Dataset], data.Dataset] | None = None,
    finish: Callable[[Path], None] | None = None,
) -> FitResult | ReplicasResult:
    """Loads the data, builds the model, opens the folder of the run, trains, prints how it went, and reports.

    Args:
        config: the options of the run.
        experiment: name of the experiment, for the folder's default name.
        model: name of the model in `models.MODELS`.
        fields: its fields; `num_classes` comes from the data.
        prepare: makes of a split what is to be learned from or tested on; by default that is the split itself.
        finish: does what else is to be done with the folder of the finished run, before the report on it.

    Returns:
        What `fit` returned, or `fit_replicas` where `config.replicas` is more than one.

    Raises:
        InputError: an option, the data or the folder cannot be used. Nothing on disk has been touched then.
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
    path = config.out or Path("runs") / f"{experiment}-{config.data.name.replace('/', '-')}-{moment}"
    check_free(path, config.resume, config.overwrite)

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

    # Folder. By now everything that can be wrong with the options has been looked at.
    contents = {
        "config": to_dict(_with_absolute_data_dir(config)),
        "model": {"name": model, **fields},
        "data": _describe_data(train),
        **environment(),
    }
    folder = RunFolder(path, contents, config.resume, config.overwrite)

    # Training.
    display = Display()
    display.line(
        f"{model} on {train.name} {train.version} ({len(train):,} train, "
        f"{f'{len(validation):,} validation, ' if validation else ''}{len(test):,} test images), "
        f"{config.epochs} epochs{_seeds(config)} on {current_device().platform}, in {path}"
    )
    result: FitResult | ReplicasResult
    try:
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
        _say_how_to_resume(result, path)
        raise SystemExit(128 + result.interrupted)
    _print_results(result, path, time.monotonic() - began)
    if finish is not None:
        finish(path)
    if config.report:
        _report(path)
    return result


def _seeds(config: ExperimentConfig) -> str:
    return f", seeds {config.seed} to {config.seed + config.replicas - 1}," if config.replicas > 1 else ""


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


def _say_how_to_resume(result: FitResult | ReplicasResult, path: Path) -> None:
    given = [argument for argument in sys.argv if argument not in ("--resume", "--overwrite")]
    out = [] if "--out" in given or any(a.startswith("--out=") for a in given) else ["--out", str(path)]
    command = shlex.join([_installed(Path(sys.executable).name), *given, *out, "--resume"])
    name = result.interrupted.name if result.interrupted else ""
    print(f"stopped by {name} after step {_steps(result)}, saved in {path}; go on with:\n  {command}")


def _steps(result: FitResult | ReplicasResult) -> int:
    return int(np.ravel(result.state.step)[0])


def _print_results(result: FitResult | ReplicasResult, path: Path, seconds: float) -> None:
    from rich.console import Console

    console = Console()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    if isinstance(result, FitResult):
        console.print(_table(result))
        each, example = "", path
    else:
        console.print(_table_of_seeds(result))
        found = list(result.summary.values())[-1]["accuracy"]  # the best where there is one, else the last
        console.print(
            f"test accuracy {found.percent()} (mean ± standard deviation over {len(result.seeds)} seeds), "
            f"95 % confidence interval of the mean {100 * found.low:.2f} to {100 * found.high:.2f} %",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        parameters //= len(result.seeds)
        each, example = " each", path / seed_folder(result.seeds[0])
    console.print(
        f"{parameters:,} parameters{each}, {_steps(result):,} steps, {result.images_per_second:,.0f} images/s, "
        f"{duration(seconds)} from the start; run kept in {path}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    command = shlex.join([_installed("cnn-jax"), "evaluate", str(example)])
    console.print(f"next: {command}", highlight=False, soft_wrap=True)


def _report(path: Path) -> None:
    """Writes the report. The run has ended well and is on disk: where there can be no report, that is all there is."""
    from cnn_jax.report import write_report

    try:
        print(f"report: {write_report(path)}")
    except InputError as error:
        print(f"no report: {error}")


def _table(result: FitResult) -> Table:
    """A row a split."""
    from rich.table import Table

    names = {"train": "train (last epoch)", "best": "test (best by validation)"}
    table = Table("", "loss", "accuracy")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row(names["train"], f"{result.train['loss']:.4f}", f"{result.train['accuracy']:.2%}")
    for name, found in result.evaluations.items():
        table.add_row(names.get(name, name), f"{found.loss:.4f}", f"{found.accuracy:.2%} of {found.count:,}")
    return table


def _table_of_seeds(result: ReplicasResult) -> Table:
    """A row a seed, and what they come to."""
    from rich.table import Table

    splits, summary, names = list(result.evaluations), result.summary, {"best": "test\nat best"}
    table = Table("seed")
    for split in splits:
        for figure in ("loss", "accuracy"):
            table.add_column(f"{names.get(split, split)}\n{figure}", justify="right")

    def add_row(name: str, losses: list[float], accuracies: list[float], *, end_section: bool = False) -> None:
        pairs = zip(losses, accuracies, strict=True)
        cells = [cell for loss, accuracy in pairs for cell in (f"{loss:.4f}", f"{accuracy:.2%}")]
        table.add_row(name, *cells, end_section=end_section)

    for k, seed in enumerate(result.seeds):
        evaluations = [result.evaluations[split][k] for split in splits]
        is_last = seed == result.seeds[-1]
        add_row(str(seed), [e.loss for e in evaluations], [e.accuracy for e in evaluations], end_section=is_last)
    for name, field in (("mean", "mean"), ("std", "std"), ("95% ≥", "low"), ("95% ≤", "high")):
        found = [[getattr(summary[split][figure], field) for split in splits] for figure in ("loss", "accuracy")]
        add_row(name, *found)
    return table
