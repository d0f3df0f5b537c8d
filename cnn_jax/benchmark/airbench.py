"""airbench94-muon: its train step beside PyTorch's, and one seed of each from beginning to end.

python -m cnn_jax.benchmark --only airbench                      train steps of both at batch 2,000, in turns
python -m cnn_jax.benchmark.airbench --precision bfloat16        one seed of each: minutes to half an hour on a CPU
python -m cnn_jax.benchmark.airbench --out runs/race             the same as a run whose report shows both
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
    """One seed of ours and one of PyTorch's, a process each, one after the other."""

    precision: Precision = "float32"
    """What the networks compute in."""
    epochs: int = 8
    """Passes over the training images."""
    contenders: tuple[Literal["ours", "torch"], ...] = ("ours", "torch")
    """Which to train."""
    out: Path | None = None
    """Folder to keep ours in, as a run that measures after each epoch, and PyTorch's course beside it: its report shows
    accuracy over seconds. By default, or with None, nothing is kept."""

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs", "a whole number >= 1", self.epochs)


def race(options: Options) -> None:
    """Trains and prints test accuracies and seconds, those of starting and compiling included.

    Raises:
        InputError: this is not a checkout, or CIFAR-10 is not available.
    """
    load_script()
    rows, kept = [], options.out
    with tempfile.TemporaryDirectory(prefix="cnn_jax-airbench-") as folder:
        export(Path(folder), "cifar10")
        for name in options.contenders:
            began = time.monotonic()
            if name == "ours":
                chosen = ["--precision", options.precision, "--epochs", str(options.epochs)]
                if kept:
                    run_python(str(SCRIPT), *chosen, "--out", str(kept), "--onednn", "--no-report")
                    found = 100 * [r["accuracy"] for r in read_records(kept) if r["split"] == "test"][-1]
                else:
                    said = run_python(str(SCRIPT), *chosen, "--one-program", "True")
                    found = float(re.findall(r"test accuracy ([\d.]+)%", said)[-1])
            else:
                chosen = [folder, "channels-last", options.precision, str(options.epochs), *["course"] * bool(kept)]
                lines = run_python("-m", "cnn_jax.benchmark.airbench_torch", *chosen).splitlines()
                found = 100 * float(lines[0].split()[0])
                if kept:
                    beside = {"name": f"PyTorch {metadata.version('torch')}", "course": json.loads(lines[1])}
                    write_atomically(kept / YARDSTICK, json.dumps(beside) + "\n")
            rows.append((name, f"{found:.2f} %", f"{time.monotonic() - began:,.0f}"))
            terminal.complain(f"{name}: {rows[-1][1]} of the test images in {rows[-1][2]} s")
    if kept:
        terminal.say(f"report: {write_report(kept)}")
    terminal.show_table((f"airbench94-muon, {options.precision}", "test accuracy", "seconds"), rows)


if __name__ == "__main__":
    sys.argv[0] = "python -m cnn_jax.benchmark.airbench"
    command.main(race, Options, description=__doc__)
