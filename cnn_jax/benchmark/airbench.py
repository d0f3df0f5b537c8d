"""airbench94-muon: its train step beside PyTorch's, and seeds of each from beginning to end.

python -m cnn_jax.benchmark --only airbench                      train steps of both at batch 2,000, in turns
python -m cnn_jax.benchmark.airbench                             one seed of each: half an hour to hours on a CPU
python -m cnn_jax.benchmark.airbench --out runs/race             the same as a run whose report shows both
python -m cnn_jax.benchmark.airbench --precision bfloat16 --seeds 40    on a GPU: seconds a seed, minutes to compile
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import dataclasses
import importlib.util
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from cnn_jax import command, data, terminal, training
from cnn_jax.benchmark import agreement
from cnn_jax.benchmark.mnist import ROOT, export, run_python
from cnn_jax.benchmark.timing import CHANNELS_LAST, COMPILED, CONTIGUOUS, OURS, Contender
from cnn_jax.benchmark.yardstick import Field, Yardstick
from cnn_jax.errors import InputError
from cnn_jax.report import write_report
from cnn_jax.runs.folder import YARDSTICK, write_atomically
from cnn_jax.runs.records import read_records
from cnn_jax.training.recipe import Functions, check, make_functions
from cnn_jax.training.summary import difference, summarise

SCRIPT = ROOT / "experiments" / "airbench.py"
Precision = Literal["float32", "bfloat16"]
STEPS = 200  # of the whole run
# How far losses before the first three steps may be apart, as a share: of the scores' precision, and from the second
# step on of the orthogonalisation's too, which is in bfloat16 on both sides and rounds in different places.
_APART: dict[str, tuple[float, float, float]] = {"float32": (1e-4, 0.02, 0.02), "bfloat16": (0.02, 0.04, 0.04)}


def build_airbench(name: str, precision: Precision, yardstick: Yardstick, batch: int = 2000, **fields: Any) -> Field:
    """Train steps on a batch of images, whole but for the augmentation, which PyTorch's program does by the epoch.

    Args:
        name: of the case.
        precision: what the networks compute in.
        yardstick: what there is to compare with.
        batch: images a step.
        fields: of the network, if others than the recipe's.

    Raises:
        DisagreementError: the losses before the first three steps differ.
        InputError: this is not a checkout.
    """
    images, labels = make_batch(batch)
    functions = make_step(images, precision, **fields)
    state = jax.jit(functions.init)(jax.random.key(0), images)
    contenders = [_ours(functions, state, images, labels, yardstick.jit)]
    skipped: dict[str, str] = {}
    if yardstick.torch is None:
        from cnn_jax.benchmark.torch_layers import why_not

        params = jax.tree.map(np.asarray, state.params)
        pixels = np.asarray(functions.preprocess(jax.numpy.asarray(images)))
        for contender in (CONTIGUOUS, CHANNELS_LAST, COMPILED):
            if contender == COMPILED and yardstick.compile is not None:
                skipped[COMPILED] = yardstick.compile
                continue
            found, loss = _torch(contender, params, pixels, labels, precision, fields)
            # Tried on the loss and its gradient alone: the parameters stay where they begin.
            reason = why_not(loss) if contender == COMPILED else None
            if reason is None:
                contenders.append(found)
            else:
                skipped[COMPILED] = reason
    expected = contenders[0].numbers()
    tolerance = {key: share * expected[key] for key, share in zip(expected, _APART[precision], strict=True)}
    for contender in contenders[1:]:
        agreement.check_norms(name, contender.name, contender.numbers(), expected, tolerance)
    return Field(contenders, skipped)


def make_batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of ten colours under noise, uint8 (N, 32, 32, 3), and int32 labels (N,)."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, batch, dtype=np.int32)
    colours = draw.uniform(60, 190, (10, 1, 1, 3))
    return (colours[labels] + draw.normal(0, 40, (batch, 32, 32, 3))).clip(0, 255).astype(np.uint8), labels


def make_step(images: np.ndarray, precision: Precision, **fields: Any) -> Functions:
    """The functions of the recipe, in a precision and without augmentation."""
    recipe: training.Recipe = load_script().RECIPES["airbench94-muon"]
    model = dataclasses.replace(recipe.model, **fields)
    recipe = dataclasses.replace(recipe, model=model, precision=precision, augment=())
    pixels = images.reshape(-1, 3) / 255
    statistics = data.Statistics(mean=tuple(pixels.mean(0).tolist()), std=tuple(pixels.std(0).tolist()))
    return make_functions(recipe, statistics, images.shape[1:], 10, STEPS)


def load_script() -> Any:
    """The module of `experiments/airbench.py`."""
    if not SCRIPT.is_file():
        raise InputError(f"airbench: expected a checkout of the repository with {SCRIPT.relative_to(ROOT)} in it")
    spec = importlib.util.spec_from_file_location("cnn_jax_airbench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


def _ours(functions: Functions, state: Any, images: np.ndarray, labels: np.ndarray, jit: Callable[..., Any]) -> Any:
    take = jit(functions.train_step, donate_argnums=0)
    batch = jax.tree.map(jax.numpy.asarray, {"image": images, "label": labels})
    held = jax.tree.map(lambda leaf: leaf.copy(), state)

    def step() -> jax.Array:
        nonlocal held
        held, metrics = take(held, batch)
        return metrics["loss"]

    return Contender(name=OURS, call=step, wait=jax.block_until_ready, numbers=lambda: _losses(step))


def _torch(
    name: str, params: Any, pixels: np.ndarray, labels: np.ndarray, precision: Precision, fields: dict[str, Any]
) -> tuple[Contender, Callable[[], Any]]:
    """PyTorch's step, and what takes its loss and the gradient alone."""
    import torch

    from cnn_jax.benchmark.airbench_torch import Form, Racer
    from cnn_jax.benchmark.torch_layers import to_torch
    from cnn_jax.benchmark.torch_networks import CifarNet, load

    form: dict[str, Form] = {CONTIGUOUS: "contiguous", CHANNELS_LAST: "channels-last", COMPILED: "compiled"}
    module = CifarNet(scale=1 / 256, **fields)
    load(module, params)
    racer = Racer(module, STEPS, form[name], precision)
    images, targets = racer.to_device(to_torch(pixels)), torch.tensor(labels, dtype=torch.int64)

    def step() -> Any:
        return racer.step(images, targets)

    contender = Contender(name=name, call=step, wait=lambda result: result, numbers=lambda: _losses(step))
    return contender, lambda: racer.loss(images, targets).backward()


def _losses(step: Callable[[], Any]) -> dict[str, np.ndarray]:
    return {f"loss {k}": np.asarray(float(step()), np.float32) for k in (1, 2, 3)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seeds of ours and of PyTorch's, a process each, one after the other."""

    precision: Precision = "float32"
    """What the networks compute in. On a GPU PyTorch's is then, with bfloat16, as its program: autotuned in float16."""
    epochs: int = 8
    """Passes over the training images."""
    seeds: int = 1
    """Number of seeds of each."""
    contenders: tuple[Literal["ours", "torch"], ...] = ("ours", "torch")
    """Which to train."""
    out: Path | None = None
    """Folder to keep ours in, as a run that measures after each epoch, and PyTorch's course beside it: its report shows
    accuracy over seconds. Of one seed. By default, or with None, nothing is kept."""

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds"):
            check(getattr(self, name) >= 1, name, "a whole number >= 1", getattr(self, name))
        check(self.out is None or self.seeds == 1, "seeds", "1 with --out", self.seeds)


def race(options: Options) -> None:
    """Trains and prints test accuracies and seconds: those of the seeds as `airbench.race` counts them, and of all,
    starting and compiling included.

    Raises:
        InputError: this is not a checkout, or CIFAR-10 is not available.
    """
    load_script()
    rows, found = [], {}
    with tempfile.TemporaryDirectory(prefix="cnn_jax-airbench-") as folder:
        export(Path(folder), "cifar10")
        for name in options.contenders:
            began = time.monotonic()
            seeds = _race_ours(options) if name == "ours" else _race_torch(options, Path(folder))
            found[name] = [accuracy for accuracy, _ in seeds]
            summary = summarise(found[name])
            seconds = f"{np.median([seconds for _, seconds in seeds]):,.3f}"
            rows.append((name, summary.percent(), seconds, f"{time.monotonic() - began:,.0f}"))
            terminal.complain(f"{name}: {rows[-1][1]} of the test images, {seconds} s a seed (median)")
    if options.out:
        terminal.say(f"report: {write_report(options.out)}")
    title = f"airbench94-muon, {options.precision}"
    terminal.show_table((title, "test accuracy", "seconds a seed", "seconds in all"), rows)
    if len(found) == 2 and options.seeds > 1:
        apart = difference(found["ours"], found["torch"])
        terminal.say(
            f"ours is {100 * apart.mean:+.2f} points from PyTorch's, 95 % interval {100 * apart.low:+.2f} to "
            f"{100 * apart.high:+.2f}, {options.seeds} seeds of each"
        )


def _race_ours(options: Options) -> list[tuple[float, float]]:
    """Test accuracies and seconds of seeds."""
    chosen = ["--precision", options.precision, "--epochs", str(options.epochs)]
    if options.out is None:
        said = run_python(str(SCRIPT), *chosen, "--replicas", str(options.seeds), "--one-program", "True")
        rows = re.findall(r"(\d+\.\d+)%\W+(\d+\.\d{3})\b", said)
        return [(float(accuracy) / 100, float(seconds)) for accuracy, seconds in rows]
    began = time.monotonic()
    run_python(str(SCRIPT), *chosen, "--out", str(options.out), "--onednn", "--no-report")
    accuracies = [r["accuracy"] for r in read_records(options.out) if r["split"] == "test"]
    return [(accuracies[-1], time.monotonic() - began)]


def _race_torch(options: Options, folder: Path) -> list[tuple[float, float]]:
    import torch

    form, precision = "channels-last", str(options.precision)
    if torch.cuda.is_available():
        form, precision = "autotuned", "float16" if precision == "bfloat16" else precision
    chosen = [str(folder), form, precision, str(options.epochs), str(options.seeds), *["course"] * bool(options.out)]
    lines = run_python("-m", "cnn_jax.benchmark.airbench_torch", *chosen).splitlines()
    if options.out:
        beside = {"name": f"PyTorch {metadata.version('torch')}", "course": json.loads(lines.pop())}
        write_atomically(options.out / YARDSTICK, json.dumps(beside) + "\n")
    return [(float(accuracy), float(seconds)) for accuracy, seconds in map(str.split, lines)]


if __name__ == "__main__":
    sys.argv[0] = "python -m cnn_jax.benchmark.airbench"
    command.main(race, Options, description=__doc__)
