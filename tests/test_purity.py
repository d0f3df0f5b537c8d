"""`cnn_jax.training` decides numbers and nothing else: it opens no file, reads no clock, prints nothing."""

from __future__ import annotations

import ast
import builtins
import io
import os
import socket
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import cnn_jax
from cnn_jax import data, models, training
from cnn_jax.augment import Flip, Mixup
from tests import quick

FOLDER = Path(cnn_jax.__file__).parent / "training"
WORLD = {
    "os", "io", "sys", "time", "datetime", "pathlib", "shutil", "tempfile", "signal", "subprocess", "threading",
    "socket", "logging", "warnings", "multiprocessing", "concurrent", "random", "rich", "orbax", "matplotlib", "tyro",
}  # fmt: skip
EDGE = {
    "terminal",
    "files",
    "runs",
    "detection",
    "pictures",
    "report",
    "experiment",
    "published",
    "options",
    "command",
    "cli",
}
CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
ATTRIBUTES = {"devices", "local_devices", "device_put", "config", "load", "save", "savez", "memmap", "read_bytes",
              "read_text", "write_text", "write_bytes"}  # fmt: skip


def impurities(text: str):
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [[*(node.module or "").split("."), alias.name] for alias in node.names]
        for name in names:
            if name[0] in WORLD or (name[0] == "cnn_jax" and name[1] in EDGE):
                yield ".".join(name)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield node.func.id
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            yield node.attr


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_training_reaches_for_nothing_outside(path):
    assert not list(impurities(path.read_text()))


@pytest.mark.parametrize(
    "line",
    ["import time", "from pathlib import Path", "from cnn_jax.runs import fit", "from cnn_jax import terminal",
     "def f(x):\n    print(x)", "x = jax.devices()", "import orbax.checkpoint as ocp"],
)  # fmt: skip
def test_the_rule_sees_what_breaks_it(line):
    assert list(impurities(line))


def test_a_training_touches_nothing(monkeypatch, capfd):
    draw = np.random.default_rng(0)
    pictures, labels = draw.integers(0, 256, (24, 8, 8, 1), np.uint8), np.arange(24) % 2
    train = data.make_datasets("noise", ("a", "b"), {"train": (pictures, labels)})["train"]
    recipe = training.Recipe(
        model=models.MLP(features=(8,)), augment=(Flip(), Mixup()), averaging=(training.EMA(),), epochs=2, batch_size=8
    )
    arrays = training.train_arrays(recipe, train, seeds=0)

    def refuse(*arguments, **options):
        raise AssertionError(f"training reached outside: {arguments} {options}")

    def in_the_dark(key):
        with monkeypatch.context() as patch:  # what JAX does before and after is JAX's own affair
            for module, name in [(builtins, "open"), (builtins, "print"), (io, "open"), (os, "open"), (time, "time"),
                                 (time, "monotonic"), (time, "perf_counter"), (socket, "socket")]:  # fmt: skip
                patch.setattr(module, name, refuse)
            return training.make_train(recipe, train)(key, {"optimizer.learning_rate": 1e-3}, arrays)

    state, metrics = jax.eval_shape(in_the_dark, jax.random.key(0))
    assert metrics["loss"].shape == (6,)
    state, metrics = quick.jit(training.make_train(recipe, train))(jax.random.key(0), {}, arrays)
    assert int(state.step) == 6
    assert np.isfinite(metrics["loss"]).all()
    assert capfd.readouterr() == ("", "")
