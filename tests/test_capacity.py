"""Sizes are judged before they are taken: what cannot fit is refused in one line, with what would."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import command, models, training
from cnn_jax.errors import InputError
from cnn_jax.experiment import run_experiment
from cnn_jax.training import DataConfig, ExperimentConfig, TrainConfig, capacity
from cnn_jax.training.recipe import count_steps
from tests.tiny import TinyNet, make_dataset
from tests.trained import tree_hash

GIB = 2**30
SHAPE = (28, 28, 1)


@pytest.fixture
def memory(monkeypatch):
    """Sets how much memory is free."""

    def free(size: float | None):
        monkeypatch.setattr(capacity, "host_memory", lambda: None if size is None else int(size))

    free(8 * GIB)
    return free


def refused(name="mlp", shape=SHAPE, replicas=1, **options) -> str:
    model, config = models.build(name), TrainConfig(**options)
    with pytest.raises(InputError) as caught:
        capacity.check_fits(model, config, 1437, shape, replicas)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def most(message: str) -> int:
    return int(re.search(r"expected at most ([\d,]+)", message)[1].replace(",", ""))


@pytest.mark.parametrize("size", [10**8, 10**12, 10**30])
def test_a_batch_larger_than_memory(memory, size):
    message = refused(batch_size=size)
    assert message.startswith(f"batch_size: {size:,} images a step need at least ")
    assert "of which 8.0 are free" in message
    fits = most(message)
    assert 5 * 28 * 28 * fits < 8 * GIB < 6 * 28 * 28 * fits  # as bytes and as float32, and little more
    capacity.check_fits(models.build("mlp"), TrainConfig(batch_size=fits), 1437, SHAPE)
    assert most(refused(batch_size=fits + 10**5)) == fits


def test_more_seeds_than_memory(memory):
    message = refused("lenet5", (32, 32, 1), replicas=2 * 10**9, batch_size=64)
    assert message.startswith("replicas: 2,000,000,000 seeds need at least ")
    assert most(message) == pytest.approx(8 * GIB / (2 * 4 * 51_902), rel=0.1)  # parameters and their gradients
    assert refused(replicas=10, batch_size=10**8).startswith("batch_size: ")


def test_what_layers_give_counts(memory):
    """A third of what ResNet-18 keeps of a batch of 3,000 for backpropagation is more than its images and 8 GiB."""
    with pytest.raises(InputError, match="batch_size: 30,000 images a step need at least"):
        capacity.check_fits(models.build("resnet18"), TrainConfig(batch_size=30_000), 50_000, (32, 32, 3))
    capacity.check_fits(models.build("resnet18"), TrainConfig(batch_size=300), 50_000, (32, 32, 3))


def test_ordinary_runs_are_not_even_traced(memory, monkeypatch):
    monkeypatch.setattr(capacity, "_sizes", None)
    capacity.check_fits(models.build("resnet18"), TrainConfig(batch_size=128), 50_000, (32, 32, 3))
    capacity.check_fits(models.build("lenet5"), TrainConfig(batch_size=128), 60_000, SHAPE, 4)


def test_without_anybody_who_says_nothing_is_refused(memory):
    memory(None)
    capacity.check_fits(models.build("mlp"), TrainConfig(batch_size=10**12), 1437, SHAPE)


def test_the_memory_of_this_machine():
    free = capacity.host_memory()
    assert free is None or 2**24 < free < 2**50


def test_what_limits_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(capacity, "_available", lambda: 9 * GIB)
    (tmp_path / "two").write_text(f"{2 * GIB}\n")
    (tmp_path / "max").write_text("max\n")
    monkeypatch.setattr(capacity.resource, "getrlimit", lambda _: (capacity.resource.RLIM_INFINITY,) * 2)
    monkeypatch.setattr(capacity, "_LIMITS", (str(tmp_path / "none"), str(tmp_path / "max")))
    assert capacity.host_memory() == 9 * GIB
    monkeypatch.setattr(capacity, "_LIMITS", (str(tmp_path / "two"),))
    assert capacity.host_memory() == 2 * GIB
    monkeypatch.setattr(capacity.resource, "getrlimit", lambda _: (GIB, GIB))
    assert capacity.host_memory() == GIB
    device = dataclasses.make_dataclass("Device", ["platform"])("gpu")
    device.memory_stats = lambda: {"bytes_limit": 80 * GIB, "bytes_in_use": GIB}
    monkeypatch.setattr(capacity, "current_device", lambda: device)
    monkeypatch.setattr(capacity, "usable_devices", lambda: [device, device])
    assert capacity.free_memory() == 159 * GIB
    device.memory_stats = lambda: None
    assert capacity.free_memory() is None


@pytest.mark.parametrize("epochs", [10**8, 10**9, 10**30])
def test_more_steps_than_are_counted(epochs):
    config = TrainConfig(epochs=epochs, batch_size=64)
    with pytest.raises(
        InputError, match="epochs: expected at most 95,642,973 of 1,437 images in batches of 64"
    ) as caught:
        count_steps(config, 1437)
    assert "\n" not in str(caught.value)
    assert count_steps(dataclasses.replace(config, epochs=95_642_973), 1437) <= 2**31 - 1
    assert count_steps(TrainConfig(epochs=3, batch_size=10), 7) == 3
    assert count_steps(TrainConfig(epochs=3, batch_size=100), 7) == 1


def test_a_refusal_leaves_the_old_run(memory, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text('{"config": {}, "model": {}, "data": {}}')
    (out / "report.html").write_text("old")
    before = tree_hash(out)
    for options in ({"epochs": 10**9}, {"batch_size": 10**12}, {"replicas": 2 * 10**9}):
        config = ExperimentConfig(data=DataConfig(name="digits"), out=out, overwrite=True, **options)
        with pytest.raises(InputError, match=f"^{next(iter(options))}: "):
            run_experiment(config, "mlp", "mlp", {"features": (4,)})
        assert tree_hash(out) == before


def test_fit_refuses_too(memory):
    train, model = make_dataset(), TinyNet()
    with pytest.raises(InputError, match=r"^batch_size: "):
        training.fit(model, train, TrainConfig(batch_size=10**12))
    with pytest.raises(InputError, match=r"^replicas: "):
        training.fit_replicas(model, train, TrainConfig(), replicas=2 * 10**9)


def test_a_lack_of_memory_that_shows_later_is_one_line():
    config = TrainConfig(batch_size=99)
    for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 1")):
        with pytest.raises(InputError, match="not enough memory") as caught, capacity.short_of_memory(config):
            raise error
        assert "\n" not in str(caught.value)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), capacity.short_of_memory(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


def test_more_scenes_than_memory(memory, monkeypatch):
    path = Path(__file__).parent.parent / "experiments" / "detect_digits.py"
    spec = importlib.util.spec_from_file_location("detect_digits", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "detect_digits", module)  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    with pytest.raises(InputError, match=r"scenes: 1,000,000,000 scenes need at least .* expected at most "):
        module.windows(module.Config(scenes=10**9), make_dataset())


@pytest.mark.parametrize(
    "args",
    [
        ["predict", "run", ""], ["evaluate", ""], ["report", "run", "--out", ""], ["report", "run", "--out="],
        ["detect", "run", "a.png", "--draw", ""], ["evaluate", "run", "--data-dir="], ["describe", ""],
    ],
)  # fmt: skip
def test_empty_arguments_are_refused(args):
    from cnn_jax.cli import COMMANDS

    with pytest.raises(InputError, match="expected a value, got an empty argument"):
        command.parse(COMMANDS, args)


@pytest.mark.parametrize("args", [["--out", ""], ["--data.dir", ""], ["--data.dir="], [""]])
def test_empty_options_of_an_experiment_are_refused(args, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lenet5.py", *args])
    with pytest.raises(InputError, match="expected a value, got an empty argument"):
        command.parse(ExperimentConfig)
    assert command.parse(ExperimentConfig, ["--out", "a="]).out == Path("a=")


@pytest.mark.parametrize(
    "make",
    [
        lambda value: training.OptimizerConfig(learning_rate=value),
        lambda value: training.OptimizerConfig(weight_decay=value),
        lambda value: training.OptimizerConfig(clip_norm=value),
        lambda value: training.LossConfig(name="map", rubbish_penalty=value),
        lambda value: training.AugmentConfig(translation=value),
        lambda value: DataConfig(pixel_range=(-value, value)),
    ],
)
def test_numbers_that_float32_does_not_hold(make):
    for value in (1e39, 1e300, 1e-39, 1e-300):
        with pytest.raises(InputError, match=r"expected 0 or a number from 1\.2e-38 to 3\.4e\+38 in size"):
            make(value)
    make(1e-15)
    make(1e15)


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0, 0.0])
def test_learning_rates_that_are_none(value):
    with pytest.raises(InputError, match=r"optimizer\.learning_rate: expected a positive number"):
        training.OptimizerConfig(learning_rate=value)
