"""Sizes are judged before they are taken: what cannot fit is refused in one line, with what would."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import command, models
from cnn_jax.augment import Affine
from cnn_jax.detection import Windows
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.runs import Execution, Place, capacity, fit
from cnn_jax.training import MAP, AdamW, Recipe
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


def check_fits(name, images=1437, shape=SHAPE, replicas=1, **options):
    capacity.check_fits(Recipe(model=models.build(name), **options), Execution(), images, shape, replicas)


def refused(name="mlp", shape=SHAPE, replicas=1, **options) -> str:
    with pytest.raises(InputError) as caught:
        check_fits(name, shape=shape, replicas=replicas, **options)
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
    check_fits("mlp", batch_size=fits)
    assert most(refused(batch_size=fits + 10**5)) == fits


def test_more_seeds_than_memory(memory):
    message = refused("lenet5", (32, 32, 1), replicas=2 * 10**9, batch_size=64)
    assert message.startswith("replicas: 2,000,000,000 seeds need at least ")
    assert most(message) == pytest.approx(8 * GIB / (2 * 4 * 51_902), rel=0.1)  # parameters and their gradients
    assert refused(replicas=10, batch_size=10**8).startswith("batch_size: ")


def test_what_layers_give_counts(memory):
    """A third of what ResNet-18 keeps of a batch of 3,000 for backpropagation is more than its images and 8 GiB."""
    with pytest.raises(InputError, match="batch_size: 30,000 images a step need at least"):
        check_fits("resnet18", 50_000, (32, 32, 3), batch_size=30_000)
    check_fits("resnet18", 50_000, (32, 32, 3), batch_size=300)


def test_ordinary_runs_are_not_even_traced(memory, monkeypatch):
    monkeypatch.setattr(capacity, "_sizes", None)
    check_fits("resnet18", 50_000, (32, 32, 3), batch_size=128)
    check_fits("lenet5", 60_000, SHAPE, 4, batch_size=128)


def test_without_anybody_who_says_nothing_is_refused(memory):
    memory(None)
    check_fits("mlp", batch_size=10**12)


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
    recipe = Recipe(epochs=epochs, batch_size=64)
    with pytest.raises(
        InputError, match="epochs: expected at most 95,642,973 of 1,437 images in batches of 64"
    ) as caught:
        recipe.count_steps(1437)
    assert "\n" not in str(caught.value)
    assert dataclasses.replace(recipe, epochs=95_642_973).count_steps(1437) <= 2**31 - 1
    assert Recipe(epochs=3, batch_size=10).count_steps(7) == 3
    assert Recipe(epochs=3, batch_size=100).count_steps(7) == 1


def test_a_refusal_leaves_the_old_run(memory, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text('{"format": 2, "recipe": {}, "data": {}}')
    (out / "report.html").write_text("old")
    before = tree_hash(out)
    for recipe, replicas, option in (
        ({"epochs": 10**9}, 1, "epochs"),
        ({"batch_size": 10**12}, 1, "batch_size"),
        ({}, 2 * 10**9, "replicas"),
    ):
        recipe = Recipe(model=models.MLP(features=(4,)), **recipe)
        config = Experiment(recipe=recipe, replicas=replicas, place=Place(out=out, overwrite=True))
        with pytest.raises(InputError, match=f"^{option}: "):
            run_experiment(config, "mlp")
        assert tree_hash(out) == before


def test_fit_refuses_too(memory):
    train = make_dataset()
    with pytest.raises(InputError, match=r"^batch_size: "):
        fit(Recipe(model=TinyNet(), batch_size=10**12), train)
    memory(100_000)
    with pytest.raises(InputError, match=r"^replicas: 100 seeds need"):
        fit(Recipe(model=TinyNet()), train, seeds=range(100))


def test_a_lack_of_memory_that_shows_later_is_one_line():
    recipe = Recipe(batch_size=99)
    for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 1")):
        with pytest.raises(InputError, match="not enough memory") as caught, capacity.short_of_memory(recipe):
            raise error
        assert "\n" not in str(caught.value)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), capacity.short_of_memory(recipe):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


def test_more_scenes_than_memory(memory):
    with pytest.raises(InputError, match=r"scenes: 1,000,000,000 scenes need at least .* expected at most "):
        Windows(scenes=10**9)("train", (32, 32))


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
        command.parse(Experiment)
    assert command.parse(Experiment, ["--out", "a="]).place.out == Path("a=")


@pytest.mark.parametrize(
    "make",
    [
        lambda value: AdamW(learning_rate=value),
        lambda value: AdamW(weight_decay=value),
        lambda value: AdamW(clip_norm=value),
        lambda value: MAP(rubbish_penalty=value),
        lambda value: Affine(translation=value),
        lambda value: Recipe(pixel_range=(-value, value)),
    ],
)
def test_numbers_that_float32_does_not_hold(make):
    for value in (1e39, 1e300, 1e-39, 1e-300):
        with pytest.raises(InputError, match="expected"):
            make(value)
    make(1e-15)
    make(1e15)


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0, 0.0])
def test_learning_rates_that_are_none(value):
    with pytest.raises(InputError, match=r"^adamw: expected learning_rate to be a positive number"):
        AdamW(learning_rate=value)
