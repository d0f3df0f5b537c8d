"""What `--only cifar` compares: the recipe of experiments/cifar.py, and the same in PyTorch."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cnn_jax import command, models
from cnn_jax.benchmark import cifar
from cnn_jax.benchmark.timing import CHANNELS_LAST, OURS
from cnn_jax.benchmark.yardstick import Yardstick
from cnn_jax.experiment import Experiment
from cnn_jax.training import Constant
from tests import quick
from tests.drawn import draw_variables
from tests.geometries import normal
from tests.test_command import script


def test_the_recipe_is_that_of_the_table_before_its_rate_falls():
    found = command.parse(Experiment, cifar.RECIPE).recipe
    recipe = script("cifar").ROWS["resnet20"].recipe
    steps = recipe.count_steps(50_000)
    rate = recipe.schedule(recipe.optimizer.learning_rate, steps)
    assert float(rate(cifar.EPOCHS * 50_000 // 128)) == pytest.approx(recipe.optimizer.learning_rate)
    alike = {"schedule": Constant(), "epochs": recipe.epochs, "steps": recipe.steps}
    assert dataclasses.replace(found, **alike) == dataclasses.replace(recipe, **alike)


def test_each_call_is_another_seed_and_says_what_came(monkeypatch, capsys, tmp_path):
    calls = []

    def run(*arguments):
        calls.append(arguments)
        return f"some line\n[0.25, {0.5 + int(arguments[-1]) / 10}]\n"

    monkeypatch.setattr(cifar, "export", lambda folder, name: None)
    monkeypatch.setattr(cifar, "run_python", run)
    monkeypatch.setattr(cifar.tempfile, "TemporaryDirectory", lambda prefix: SimpleNamespace(name=str(tmp_path)))
    [ours, theirs] = cifar.build_cifar("cifar", Yardstick(torch=None, compile=None)).contenders
    assert (ours.name, theirs.name) == (OURS, CHANNELS_LAST)
    assert [theirs.call(), theirs.call()] == [[0.25, 0.5], [0.25, 0.6]]
    assert [arguments[-2:] for arguments in calls] == [("3", "0"), ("3", "1")]
    assert capsys.readouterr().err.splitlines() == [
        "cifar: torch channels-last, seed 0, by epoch: 25.00%, 50.00%",
        "cifar: torch channels-last, seed 1, by epoch: 25.00%, 60.00%; over 2 seeds 25.00 ± 0.00 %, 55.00 ± 7.07 %",
    ]


@pytest.mark.torch
def test_the_torch_network_is_ours():
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark.torch_networks import ResNet20, load

    fields = {"stage_sizes": (1, 2), "features": 4, "num_classes": 5}
    model, (images,) = models.ResNet20(**fields), normal(0, (3, 7, 6, 2))
    variables = draw_variables(model, images.shape, dtype=np.float64)
    module = ResNet20(channels=2, **fields).double()
    load(module, variables["params"])
    with jax.enable_x64(True):
        expected, _ = quick.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    found = module(torch.tensor(images).permute(0, 3, 1, 2))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.torch
def test_torch_crops_and_mirrors_as_ours():
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark.cifar_torch import augmented

    torch.manual_seed(0)
    image = np.random.default_rng(0).standard_normal((6, 5, 2)).astype(np.float32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {
        (row, column, mirrored): padded[row : row + 6, column : column + 5][:, :: -1 if mirrored else 1].tobytes()
        for row, column, mirrored in np.ndindex(9, 9, 2)
    }
    names = {window: name for name, window in windows.items()}
    drawn = [names[each.numpy().tobytes()] for each in augmented(torch.tensor(image).expand(4000, -1, -1, -1))]
    counts = np.zeros((9, 9, 2))
    np.add.at(counts, tuple(np.transpose(drawn)), 1)
    assert (counts.max(), counts.min()) < (60, 0)  # 25 expected, with a deviation of 5
    assert counts.min() > 3


@pytest.mark.torch
def test_the_torch_script_learns(tmp_path):
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark import cifar_torch
    from cnn_jax.benchmark.torch_networks import ResNet20

    draw = np.random.default_rng(0)
    for split, count in (("train", 500), ("test", 100)):
        labels = draw.integers(0, 4, count)
        colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [130, 130, 130]])[labels]
        images = colours[:, None, None] + draw.integers(-50, 50, (count, 8, 8, 3))
        np.save(tmp_path / f"{split}-images.npy", images.astype(np.uint8))
        np.save(tmp_path / f"{split}-labels.npy", labels.astype(np.int32))
    (tmp_path / "statistics.json").write_text(json.dumps({"mean": [0.45] * 3, "std": [0.3] * 3}))
    module = ResNet20(num_classes=4, stage_sizes=(1, 1), features=4)
    accuracies = cifar_torch.train(tmp_path, 6, 0, module)
    assert len(accuracies) == 6
    assert accuracies[-1] > 0.8
    assert module.output.bias.abs().max() > 0
    weights = torch.cat([p.flatten() for p in module.parameters()])
    assert weights.isfinite().all()
