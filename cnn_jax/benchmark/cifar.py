"""The first epochs of a published recipe, ours and PyTorch's: ResNet-20 on CIFAR-10, as in experiments/cifar.py."""

from __future__ import annotations

import functools
import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cnn_jax import terminal
from cnn_jax.benchmark.mnist import export, run_python
from cnn_jax.benchmark.timing import CHANNELS_LAST, OURS, Contender
from cnn_jax.benchmark.yardstick import Field, Yardstick
from cnn_jax.training.summary import summarise

EPOCHS = 3
# The recipe of experiments/cifar.py before its rate first falls, which is after half of 164 epochs.
RECIPE = (
    "--model", "resnet20()", "--optimizer", "sgd(0.1, weight_decay=1e-4, momentum=0.9, decay_all=True)",
    "--schedule", "constant()", "--augment", "crop(4) | flip()", "--batch-size", "128",
)  # fmt: skip


def build_cifar(name: str, yardstick: Yardstick) -> Field:
    """`cnn-jax train` with the recipe, and the same in PyTorch, channels last; every call is another seed.

    Of each the test accuracy after each epoch is said on standard error, with mean and standard deviation over the
    seeds so far.

    Raises:
        InputError: CIFAR-10 is not available.
    """
    folder = tempfile.TemporaryDirectory(prefix="cnn_jax-benchmark-")  # goes with the last reference to it
    export(Path(folder.name), "cifar10")
    contenders = [_contender(name, OURS, functools.partial(_train_ours, folder, yardstick.onednn))]
    if yardstick.torch is None:
        contenders.append(_contender(name, CHANNELS_LAST, functools.partial(_train_torch, folder)))
    return Field(contenders, {})


def _contender(case: str, name: str, train: Callable[[int], Sequence[float]]) -> Contender:
    seeds, found = itertools.count(), list[Sequence[float]]()

    def call() -> Sequence[float]:
        seed = next(seeds)
        found.append(train(seed))
        line = ", ".join(f"{accuracy:.2%}" for accuracy in found[-1])
        if len(found) > 1:
            means = [summarise(np.array(epoch)).percent() for epoch in zip(*found, strict=True)]
            line += f"; over {len(found)} seeds {', '.join(means)}"
        terminal.complain(f"{case}: {name}, seed {seed}, by epoch: {line}")
        return found[-1]

    def numbers() -> dict[str, np.ndarray]:
        return {"accuracy": np.asarray(call())}

    return Contender(name=name, call=call, wait=lambda result: result, numbers=numbers)


def _train_ours(folder: tempfile.TemporaryDirectory[str], onednn: bool, seed: int) -> list[float]:
    out = Path(folder.name) / "run"
    options = ("--data.name", "cifar10", "--epochs", str(EPOCHS), "--seed", str(seed), "--out", str(out))
    flags = ("--no-report", "--overwrite", *["--onednn"] * onednn)
    run_python("-m", "cnn_jax", "train", *RECIPE, *options, *flags)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record["accuracy"] for record in records if record["split"] == "test"]


def _train_torch(folder: tempfile.TemporaryDirectory[str], seed: int) -> list[float]:
    done = run_python("-m", "cnn_jax.benchmark.cifar_torch", folder.name, str(EPOCHS), str(seed))
    return json.loads(done.splitlines()[-1])
