"""The main job as whole processes: ten epochs of MNIST, ours and PyTorch's, from process start to end."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn_jax import data, terminal
from cnn_jax.benchmark.agreement import DisagreementError
from cnn_jax.benchmark.timing import CHANNELS_LAST, CONTIGUOUS, OURS, Contender
from cnn_jax.benchmark.yardstick import Field, Yardstick
from cnn_jax.errors import InputError

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "experiments" / "lenet5.py"
LEAST = 0.985  # test accuracy of a run that has learned what the recipe teaches, 99.3 % with little spread


def build_mnist(name: str, yardstick: Yardstick) -> Field:
    """`experiments/lenet5.py --data.name mnist --no-report`, and the same recipe in PyTorch in both memory formats.

    The cache of decoded images is warm, and both read the same one. Ours also keeps checkpoints and records; the report
    is left out, as the other side has none.

    Raises:
        InputError: this is not a checkout, or MNIST is not available.
    """
    if not SCRIPT.is_file():
        raise InputError(f"{name}: expected a checkout of the repository with {SCRIPT.relative_to(ROOT)} in it")
    folder = tempfile.TemporaryDirectory(prefix="cnn_jax-benchmark-")  # goes with the last reference to it
    export(Path(folder.name), "mnist")
    contenders = [_contender(name, OURS, functools.partial(_train_ours, folder, yardstick.onednn))]
    if yardstick.torch is None:
        for contender in (CONTIGUOUS, CHANNELS_LAST):
            train = functools.partial(_train_torch, folder, contender == CHANNELS_LAST)
            contenders.append(_contender(name, contender, train))
    return Field(contenders, {})


def export(folder: Path, name: str) -> None:
    """Writes a data set as it is in the cache, and its statistics, where a process without JAX can read it."""
    for split in ("train", "test"):
        dataset = data.load(name, split)
        np.save(folder / f"{split}-images.npy", dataset.images)
        np.save(folder / f"{split}-labels.npy", dataset.labels)
    statistics = {"mean": dataset.statistics.mean, "std": dataset.statistics.std}
    (folder / "statistics.json").write_text(json.dumps(statistics))


def _contender(case: str, name: str, train: Callable[[], float]) -> Contender:
    def call() -> float:
        accuracy = train()
        terminal.complain(f"{case}: {name} reads {accuracy:.2%} of the test images")
        if accuracy < LEAST:
            raise DisagreementError(f"{case}: {name} reads {accuracy:.2%}, expected at least {LEAST:.2%}")
        return accuracy

    return Contender(name=name, call=call, wait=lambda result: result, numbers=lambda: {"accuracy": np.asarray(call())})


def _train_ours(folder: tempfile.TemporaryDirectory[str], onednn: bool) -> float:
    out = Path(folder.name) / "run"
    run_python(
        str(SCRIPT), "--data.name", "mnist", "--no-report", "--overwrite", "--out", str(out), *["--onednn"] * onednn
    )
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record["accuracy"] for record in records if record["split"] == "test"][-1]


def _train_torch(folder: tempfile.TemporaryDirectory[str], channels_last: bool) -> float:
    memory_format = "channels-last" if channels_last else "contiguous"
    return float(run_python("-m", "cnn_jax.benchmark.mnist_torch", folder.name, memory_format).split()[-1])


def run_python(*arguments: str) -> str:
    """Runs Python to its end and returns what it printed; whatever goes wrong has been said on standard error."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return done.stdout
