"""The recipes of `experiments/airbench.py`: the programs' constants, and short runs of narrow networks."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import command, data
from cnn_jax.errors import InputError
from cnn_jax.models import CifarNet
from cnn_jax.runs import fit, load_run
from cnn_jax.training import SGD
from tests.test_training_loop import SignalAt
from tests.tiny import assert_same_bits, make_execution, make_folder

pytestmark = pytest.mark.usefixtures("shared_engines")
SCRIPT = Path(__file__).parent.parent / "experiments" / "airbench.py"
NAMES = ["airbench94-muon", "airbench94", "airbench96"]


@pytest.fixture(scope="module")
def airbench():
    spec = importlib.util.spec_from_file_location("airbench_tested", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """256 images of four colours under noise, and 40 to test on."""
    draw, found = np.random.default_rng(0), {}
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])
    for split, count in (("train", 256), ("test", 40)):
        labels = np.arange(count) % 4
        images = colours[labels][:, None, None] + draw.normal(0, 40, (count, 32, 32, 3))
        found |= {f"{split}_images": np.uint8(images.clip(0, 255)), f"{split}_labels": labels}
    path = tmp_path_factory.mktemp("colours") / "set.npz"
    np.savez(path, **found)
    return path


def short(recipe):
    """20 steps of a narrow network on small batches, whose losses add up to less: SGD at the full rates would break it.

    The programs' rates are those of sums over a batch, ours of means, and so as many times larger as it has images.
    """
    batch, optimizer, groups = 64, recipe.optimizer, recipe.groups
    share = batch / recipe.batch_size
    if isinstance(optimizer, SGD):
        optimizer = dataclasses.replace(optimizer, learning_rate=optimizer.learning_rate * share)
    else:
        groups = [dataclasses.replace(g, rate=g.rate * share) if g.optimizer else g for g in groups]
    model = dataclasses.replace(recipe.model, features=(8, 8, 8), num_classes=4)
    changes = {"epochs": 5, "batch_size": batch, "precision": "float32", "groups": tuple(groups)}
    if recipe.selection:
        proxy = "cifarnet(features=(4, 4, 4))"
        changes["selection"] = (dataclasses.replace(recipe.selection[0], proxy=proxy, keep=32),)
    return dataclasses.replace(recipe, model=model, optimizer=optimizer, **changes)


@pytest.mark.parametrize("name", NAMES)
def test_twenty_steps_learn_and_killed_they_end_in_the_same_bits(airbench, arrays, name, tmp_path):
    train = data.Arrays(str(arrays))("train", (32, 32))
    recipe = short(airbench.RECIPES[name])

    def train_in(path, resume=False, display=None):
        folder = make_folder(path, resume=resume)
        try:
            return fit(recipe, train, execution=make_execution(), folder=folder, display=display)
        finally:
            folder.close()

    whole = train_in(tmp_path / "whole")
    assert int(whole.state.step) == 20
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["split"] == "train"]
    assert losses == sorted(losses, reverse=True)  # it falls with every epoch
    assert losses[-1] < 0.95 * losses[0]
    assert train_in(tmp_path / "parts", display=SignalAt(9, signal.SIGTERM)).interrupted == signal.SIGTERM
    assert_same_bits(train_in(tmp_path / "parts", resume=True).state, whole.state)


def test_the_command_runs_a_recipe_in_a_folder_and_as_one_program(airbench, arrays, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["airbench"])
    options = [
        "--recipe", "airbench94", "--model.features", "8", "8", "8", "--epochs", "1", "--batch-size", "64", "--data",
        f'arrays("{arrays}")', "--precision", "float32", "--seed", "3",
    ]  # fmt: skip

    def call(*more):
        airbench.main(command.parse(airbench.Config, [*options, *more], "", airbench.defaults(options)))
        return capsys.readouterr().out

    call("--out", str(tmp_path / "run"), "--no-report")
    run = load_run(tmp_path / "run")
    assert isinstance(run.model, CifarNet)
    expected = run.evaluate(run.load_data("test"))
    out = call("--one-program", "True", "--replicas", "2")
    assert "from whitening to the last of 40 test images" in out
    [accuracy] = re.findall(r"\b3\b\D+([\d.]+)%", out)
    assert float(accuracy) == pytest.approx(100 * expected.accuracy, abs=2.6)  # one image, by rounding
    with pytest.raises(InputError, match=r"^one_program: expected no validation, patience, init, sweep or out with it"):
        call("--one-program", "True", "--validation", "0.1")


def test_lengths_are_the_programs(airbench):
    muon, plain, long = (airbench.RECIPES[name] for name in NAMES)
    assert muon.count_steps(50_000) == 200
    assert long.count_steps(50_000) == 45 * 48
    assert plain.count_steps(50_000) == 476  # ceil(48 * 9.9)
    k = 1024 * (1 + 1 / (1 - 0.85))
    # At the peak: the rate of summed losses times the batch; and the decay of a step, of biases too.
    assert plain.optimizer.learning_rate == pytest.approx(1024 * 11.5 / k)
    assert plain.optimizer.learning_rate * plain.optimizer.weight_decay == pytest.approx(0.0153 * 1024 / k)
    [norms] = [group for group in plain.groups if group.pattern == "norm"]
    assert norms.rate * plain.optimizer.learning_rate * norms.weight_decay == pytest.approx(0.0153 * 1024 / k)
    # The sum over the images picked, and the decay of a step.
    assert long.optimizer.learning_rate == pytest.approx(512 * 9 / k)
    assert long.optimizer.learning_rate * long.optimizer.weight_decay == pytest.approx(0.012 * 1024 / k)
    for group, rate in zip(muon.groups[1:], (0.053, 0.053, 0.67), strict=True):
        [sgd] = [part for part in group.inner() if hasattr(part, "nesterov")]
        assert sgd.learning_rate == pytest.approx(2000 * rate)
        assert sgd.learning_rate * sgd.weight_decay == pytest.approx(2e-6 * 2000)
    assert sum(leaf.size for leaf in jax.tree.leaves(plain_params(plain))) == 1_971_640


def plain_params(recipe):
    return jax.eval_shape(recipe.model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))["params"]
