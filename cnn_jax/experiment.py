"""An experiment from its configuration to its closing table, as shared by the scripts in `experiments/`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from tyro.conf import UseAppendAction, arg

from cnn_jax import models, parts, sweeping, terminal
from cnn_jax.data.pictures import shown
from cnn_jax.data.source import TFDS, Source
from cnn_jax.errors import InputError
from cnn_jax.files import new_folder
from cnn_jax.runs import hosts
from cnn_jax.runs.axes import parse_axes
from cnn_jax.runs.capacity import short_of_memory
from cnn_jax.runs.compilation import keep_compiled
from cnn_jax.runs.devices import current_device, select_device, split_cpu
from cnn_jax.runs.display import Display, duration
from cnn_jax.runs.execution import Execution, Place, check_seeds
from cnn_jax.runs.fit import Result, fit, for_data
from cnn_jax.runs.folder import RunFolder, check_free, seed_folder
from cnn_jax.runs.joint_folder import JointFolder, open_together
from cnn_jax.runs.last_word import last_word
from cnn_jax.runs.memory import keep_memory
from cnn_jax.runs.opening import Opened, check_input_sizes, contents_of, open_data
from cnn_jax.runs.programs import plan
from cnn_jax.runs.rehearsal import rehearse
from cnn_jax.runs.sweep import check_axes
from cnn_jax.runs.tables import show_seeds, show_splits
from cnn_jax.runs.texts import parts_of
from cnn_jax.training.recipe import Recipe


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
    sweep: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="'FIELD = VALUE, ...'")] = ()
    """Try several values of a field of the recipe, as in 'optimizer.learning_rate = 1e-3, 3e-3'; given for several
    fields, all combinations. Each is trained with every seed, together as one program where they differ in numbers. The
    best on the validation images is kept as the run `best` in the folder, the only one that is measured on the test
    images."""
    execution: Annotated[Execution, arg(name="")] = Execution()
    place: Annotated[Place, arg(name="")] = Place()

    def __post_init__(self) -> None:
        check_seeds(self.seed, self.replicas)
        if self.sweep and self.execution.mesh:
            raise InputError(
                f"mesh: expected none in a sweep, whose trials are spread over the devices, got {self.execution.mesh!r}"
            )

    @property
    def seeds(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.replicas)


def prepare(config: Experiment) -> None:
    """Sets what has to be set before JAX starts; `run_experiment` does it itself.

    Raises:
        InputError: there is no such device, or the processes that train together do not find each other.
    """
    keep_compiled()
    execution = config.execution
    several = config.replicas > 1 or bool(config.sweep)
    if several:
        split_cpu()
    else:  # several devices of a CPU compute in threads of their own, whose memory cannot be kept
        keep_memory()
    hosts.join(execution.coordinator, execution.processes, execution.process, alone=several)
    if execution.device is not None:
        select_device(execution.device)


def run_experiment(
    config: Experiment,
    experiment: str,
    *,
    finish: Callable[[Path], None] | None = None,
    leaves: Sequence[str] = (),
    whole: Path | None = None,
    begin: Callable[[RunFolder], None] | None = None,
) -> Result:
    """Loads the data, opens the folder of the run, trains, prints the results, and writes the report.

    Args:
        config: the options of the run.
        experiment: name of the experiment, for the folder's default name.
        finish: whatever else is to be done with the folder of the finished run, before the report is written.
        leaves: names of the files that `finish` writes into that folder, or into those of the seeds. They belong to the
            run: no other output takes their place, and they go when the run is replaced.
        whole: the folder that the command line calls --out, if this run is only a part of what goes there.
        begin: whatever is to be done with the folder of the run before it is trained.

    Returns:
        What `fit` returned; of a sweep, for the run of the combination chosen.

    Raises:
        InputError: an option, the data or the folder cannot be used; nothing on disk has been touched. Or, after
            everything else has been done and shown, `finish` or the report failed; the run itself is on disk.
        StorageError: the run cannot write its files; it can be resumed from its last good checkpoint.
        SystemExit: with 128 plus the signal's number if a signal stopped the run, which has been saved.
    """
    began = time.monotonic()
    prepare(config)
    if config.sweep:
        return _run_sweep(config, experiment, finish, leaves)
    execution, place = config.execution, config.place
    moment = time.strftime("%Y%m%d-%H%M%S")
    holds_run = hosts.by_first(lambda: place.out is not None and check_free(place.out, place.resume, place.overwrite))
    with hosts.first_before_others():
        opened = _open(config, holds_run)
    recipe, train, test, held_out = opened.recipe, opened.train, opened.test, opened.held_out
    if place.dry_run:
        rows = rehearse(recipe, train, test, config.seeds, execution)
        if hosts.is_first():
            terminal.show_table(("a run would have", ""), rows, left=(0, 1))
        hosts.leave()
        raise SystemExit(0)

    # Folder. By now everything that can be wrong with the options has been checked.
    contents = contents_of(recipe, train, config.data, config.seeds, execution)
    contents |= {"experiment": experiment, "files": list(leaves)}
    code = parts.files_of(*parts_of(recipe), config.data)
    folder = open_together(
        lambda: place.out or _new_folder(config, experiment, moment), contents, code,
        resume=place.resume, overwrite=place.overwrite,
    )  # fmt: skip
    path = folder.path

    # Training.
    display = Display(silent=not hosts.is_first())
    name = parts.short_text(recipe.model, models.MODELS).partition("(")[0]
    chosen_by = len(opened.validation) if opened.validation else held_out
    display.line(
        f"{terminal.plain(f'{name} on {train.name} {train.version}')} ({len(train) - held_out:,} train, "
        f"{f'{chosen_by:,} validation, ' if chosen_by else ''}{len(test):,} test images), "
        f"{_lengths(config)} on {opened.where}, in {shown(path)}"
    )
    try:
        if begin is not None and isinstance(folder, RunFolder):
            begin(folder)
        with short_of_memory(recipe), _never_silent(path, whole or path):
            result = fit(
                recipe, train, seeds=config.seeds, validation=opened.validation, test=test, execution=execution,
                begin_with=opened.begin_with, folder=folder, display=display,
            )  # fmt: skip
    finally:
        folder.close()
    if isinstance(folder, JointFolder):  # process 0 does the rest
        hosts.leave()
        raise SystemExit(128 + result.interrupted if result.interrupted else 0)
    hosts.leave()
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


def _open(config: Experiment, holds: bool) -> Opened:
    """`open_data`, after the folder has been looked at: a refusal must not wait for a download."""
    return open_data(config.recipe, config.data, config.seeds, config.execution, holds and config.place.resume)


def _new_folder(config: Experiment, experiment: str, moment: str) -> Path:
    return new_folder(Path("runs") / f"{experiment}-{config.data.label()}-{moment}")


def _run_sweep(
    config: Experiment, experiment: str, finish: Callable[[Path], None] | None, leaves: Sequence[str]
) -> Result:
    """`run_experiment` of a sweep: trains all combinations, then finishes the one chosen as a run of its own."""
    place, moment = config.place, time.strftime("%Y%m%d-%H%M%S")
    axes = parse_axes(config.sweep, config.recipe)
    holds_sweep = place.out is not None and sweeping.check_free(place.out, place.resume, place.overwrite)
    opened = _open(config, holds_sweep)
    check_axes(axes, config.recipe, opened.validation)
    check_input_sizes(config.data, opened.train, axes.get("model", ()), config.execution.feed)
    if place.dry_run:
        sweeping.show_plan(plan(config.recipe, axes, opened.train), axes, config.replicas)
        raise SystemExit(0)
    path = place.out or _new_folder(config, f"{experiment}-sweep", moment)

    def open_run(folder: Path, recipe: Recipe, numbers: dict[str, Any]) -> RunFolder:
        recipe = for_data(recipe, opened.train)
        contents = contents_of(recipe, opened.train, config.data, config.seeds, config.execution)
        contents |= {"experiment": experiment, "files": [], "recipe": contents["recipe"] | numbers}
        return RunFolder(folder, contents, place.resume, code=parts.files_of(*parts_of(recipe), config.data))

    display = Display()
    display.line(f"{sweeping.lengths(axes, config.replicas)} on {current_device().platform}, in {shown(path)}")
    with short_of_memory(config.recipe):
        found = sweeping.train(
            path, place.resume, open_run, recipe=config.recipe, axes=axes, train=opened.train, seeds=config.seeds,
            validation=opened.validation, execution=config.execution, begin_with=opened.begin_with, display=display,
        )  # fmt: skip
    if found.interrupted is not None:
        _say_how_to_resume(found.results[-1], path, path)
        raise SystemExit(128 + found.interrupted)
    sweeping.leave(found, path)
    best = dataclasses.replace(place, out=path / sweeping.BEST, resume=True, overwrite=False)
    chosen = dataclasses.replace(config, recipe=found.recipe, sweep=(), place=best)
    result = run_experiment(
        chosen, experiment, finish=finish, leaves=leaves, whole=path,
        begin=lambda folder: sweeping.hand_over(found, path, folder),
    )  # fmt: skip
    if place.report:
        from cnn_jax.report import write_sweep

        terminal.say(f"report on the sweep: {shown(write_sweep(path, found))}")
    return result


def _lengths(config: Experiment) -> str:
    count, what = (config.recipe.epochs, "epoch") if config.recipe.steps is None else (config.recipe.steps, "step")
    length = f"{count:,} {what}{'s' if count > 1 else ''}"
    return f"{length}, seeds {config.seeds[0]} to {config.seeds[-1]}," if config.replicas > 1 else length


def _installed(name: str) -> str:
    """How to call a program of this environment from here: by name alone if the shell finds this very one."""
    own = Path(sys.executable).parent / name
    if shutil.which(name) == str(own):
        return name
    return str(own.relative_to(Path.cwd())) if own.is_relative_to(Path.cwd()) else str(own)


@contextlib.contextmanager
def _never_silent(path: Path, whole: Path) -> Iterator[None]:
    """Where several processes train together, says how to go on should this one end without a word.

    Once one is lost, JAX's runtime ends the others, or what they compute together fails.
    """
    if hosts.count() == 1:
        yield
        return
    word = (
        f"process {hosts.index()} of {hosts.count()} has ended, by itself or as another was lost; what was saved is in "
        f"{shown(path)}; when all have ended, start all again with --resume, as {_resuming(whole)}"
    )
    with last_word(word):
        try:
            yield
        except (InputError, jax.errors.JaxRuntimeError) as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            terminal.complain(f"error: {terminal.one_line(str(error))}")
            terminal.flush()
            if hosts.is_first():
                time.sleep(1)  # others may be about to say the same, and JAX's runtime ends them once this one has
            # What JAX does at an ordinary end would wait for one that is lost, or that waits for this one.
            os._exit(error.exit_code if isinstance(error, InputError) else os.EX_TEMPFAIL)


def _resuming(whole: Path) -> str:
    """The command that goes on with a run."""
    given = [argument for argument in sys.argv if argument not in ("--resume", "--overwrite")]
    main = sys.modules["__main__"].__spec__
    if main is not None and main.name.startswith("cnn_jax"):  # `python -m`, whose argv[0] is what --help shows
        given[:1] = ["-m", main.name.removesuffix(".__main__")]
    out = [] if "--out" in given or any(a.startswith("--out=") for a in given) else ["--out", str(whole)]
    return terminal.shell(_installed(Path(sys.executable).name), *given, *out, "--resume")


def _say_how_to_resume(result: Result, path: Path, whole: Path) -> None:
    command = _resuming(whole)
    name = result.interrupted.name if result.interrupted else ""
    text = f"stopped by {name} after step {_steps(result)}, saved in {shown(path)}; resume with:\n  {command}"
    if not terminal.say(text):  # Ctrl-C has also ended the reader of a pipe
        terminal.complain(text)


def _steps(result: Result) -> int:
    return int(np.ravel(result.state.step)[0])


def _print_results(result: Result, path: Path, seconds: float) -> None:
    parameters, each, example = sum(leaf.size for leaf in jax.tree.leaves(result.state.params)), "", path
    if len(result.seeds) == 1:
        show_splits(result)
    else:
        show_seeds(result)
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
    # A run that was at its end already, as that of a sweep is, has taken no step.
    speed = f"{result.images_per_second:,.0f} images/s, " if result.images_per_second else ""
    terminal.say(
        f"{parameters:,} parameters{each}, {_steps(result):,} steps, {speed}{duration(seconds)} from the start; "
        f"run kept in {shown(path)}\n"
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
