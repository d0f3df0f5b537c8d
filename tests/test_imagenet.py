"""The recipes of `experiments/imagenet.py`: the published constants, and a run of it on a folder of pictures."""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import command
from cnn_jax.augment import Flip, GrowingCrop, Lighting, MixupOrCutmix, RandAugment, RandomResizedCrop, ScaleCrop
from cnn_jax.data import Folder
from cnn_jax.runs import load_run
from cnn_jax.training import LAMB, SGD, BinaryCrossEntropy, Centre, Mirror, SoftmaxCrossEntropy
from cnn_jax.training.groups import make_optimizer
from tests.drawn import count
from tests.small_sets import encoded
from tests.test_command import script

IMAGENET = script("imagenet")
IMAGES = 1_281_167  # of ILSVRC 2012, to train on

# He et al. 2016, section 3.4; Goyal et al. 2017, sections 2.2 and 5.1; Wightman et al. 2021, Tables 1 and 2; the
# configurations of libffcv/ffcv-imagenet. Rates by epoch, sides of images in training and in the test.
CROP = RandomResizedCrop(0.08, 1.0, 4 / 3, 224)
PAPERS = {
    "resnet50": {
        "sgd": (0.1, 1e-4, False), "undecayed": (), "loss": SoftmaxCrossEntropy(), "batch": 256, "norms": 32,
        "steps": 600_000, "rates": {0: 0.1, 29: 0.1, 31: 0.01, 59: 0.01, 61: 1e-3, 89: 1e-3, 91: 1e-4},
        "augment": (ScaleCrop(224, 256, 480), Lighting(0.1), Flip()), "sides": (224, 224, 224), "accuracy": 75.3,
    },
    "resnet50-large-batch": {
        "sgd": (3.2, 1e-4, True), "undecayed": ("norm",), "loss": SoftmaxCrossEntropy(), "batch": 8192, "norms": 32,
        "steps": 90 * IMAGES / 8192,
        "rates": {0: 0.1, 2.5: 1.65, 5.1: 3.2, 29.9: 3.2, 30.1: 0.32, 60.1: 0.032, 79.9: 0.032, 80.1: 0.0032},
        "augment": (CROP, Flip()), "sides": (224, 224, 224), "accuracy": 100 - 23.74,
    },
    "resnet50-a3": {
        "loss": BinaryCrossEntropy(threshold=0.2), "batch": 2048, "norms": None, "steps": 100 * IMAGES / 2048,
        "rates": {0: 0.0, 2.5: 4e-3, 5: 8e-3, 52.5: 4e-3, 99.99: 0.0},
        "augment": (
            dataclasses.replace(CROP, size=160), Flip(), RandAugment(2, 18.0, 1.5, 0.5), MixupOrCutmix(0.1, 1.0, 0.5)
        ),
        "sides": (160, 160, 224), "accuracy": 78.1,
    },
    "resnet50-ffcv": {
        "sgd": (1.7, 1e-4, False), "undecayed": ("norm",), "loss": SoftmaxCrossEntropy(0.1), "batch": 4096,
        "norms": 512, "steps": 16 * IMAGES / 4096, "rates": {0: 1.7e-4, 1: 0.85, 2: 1.7, 9: 0.85, 15.99: 0.0},
        "augment": (GrowingCrop((160, 192), (0.75,)), Flip()), "sides": (160, 192, 256), "accuracy": 73.8,
    },
    "resnet18-ffcv": {
        "sgd": (0.5, 5e-5, False), "undecayed": ("norm",), "loss": SoftmaxCrossEntropy(0.1), "batch": 1024,
        "norms": None, "steps": 16 * IMAGES / 1024, "rates": {0: 5e-5, 1: 0.25, 2: 0.5, 9: 0.25, 15.99: 0.0},
        "augment": (GrowingCrop((160, 192), (0.75,)), Flip()), "sides": (160, 192, 256), "accuracy": 66.9,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_is_the_published_one(name):
    known, paper = IMAGENET.RECIPES[name], PAPERS[name]
    recipe = known.recipe
    assert known.published == pytest.approx(paper["accuracy"])
    assert (recipe.loss, recipe.batch_size, recipe.norm_batch) == (paper["loss"], paper["batch"], paper["norms"])
    assert (recipe.augment, recipe.averaging, recipe.validation) == (paper["augment"], (), 0)
    if "sgd" in paper:
        rate, decay, nesterov = paper["sgd"]
        assert recipe.optimizer == SGD(rate, decay, momentum=0.9, nesterov=nesterov, decay_all=True)
        assert [(group.pattern, group.weight_decay) for group in recipe.groups] == [(p, 0) for p in paper["undecayed"]]
    steps = recipe.count_steps(IMAGES)
    assert steps == np.ceil(paper["steps"])
    rate = recipe.schedule(recipe.optimizer.learning_rate, steps)
    found = {epoch: float(rate(round(epoch * IMAGES / recipe.batch_size))) for epoch in paper["rates"]}
    assert found == pytest.approx(paper["rates"], rel=0.005, abs=1e-3 * max(paper["rates"].values()))
    first, last, tested = paper["sides"]
    stored = (292, 292, 3)
    assert [recipe.after(share).trained_shape(stored) for share in (0.0, 1.0)] == [(s, s, 3) for s in (first, last)]
    seen, *others = recipe.test_time
    assert jax.eval_shape(lambda x: seen(x)[0][1], jnp.zeros((1, *stored))).shape == (1, tested, tested, 3)
    assert seen.share == pytest.approx(0.95 if name == "resnet50-a3" else 224 / 256)
    assert others == [Mirror()] * name.endswith("ffcv")


@pytest.mark.parametrize("name", PAPERS)
def test_a_network_has_as_many_parameters_as_published(name):
    model = IMAGENET.RECIPES[name].recipe.model
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    assert count(shapes["params"]) == (11_689_512 if name == "resnet18-ffcv" else 25_557_032)
    fields = model.zero_init, model.blur, model.output_std
    assert fields == (
        name in ("resnet50-large-batch", "resnet50-a3"),
        "ffcv" in name,
        0.01 if "large" in name else None,
    )


def test_ffcv_sizes_are_its_programs():
    """160 up to epoch 11, 192 from 13 on, and between the two to a multiple of 32."""
    recipe = IMAGENET.RECIPES["resnet50-ffcv"].recipe
    for epoch in range(16):
        size = int(np.round(np.interp(epoch, [11, 13], [160, 192]) / 32)) * 32
        for step in (-(-epoch * IMAGES // 4096), (epoch + 1) * IMAGES // 4096 - 1):
            assert recipe.at_step(step, IMAGES).trained_shape((292, 292, 3)) == (size, size, 3)
    assert Centre(224).share == 224 / 256


def test_a_step_of_a3_is_that_of_its_program():
    """LAMB as in timm, of losses averaged over 1,000 classes, where what does not decay is not scaled by its norm."""
    recipe = IMAGENET.RECIPES["resnet50-a3"].recipe
    draw = np.random.default_rng(0)
    params = {
        "conv": {"kernel": draw.normal(size=(3, 4))}, "norm_1": {"scale": draw.normal(size=4)},
        "output": {"kernel": draw.normal(size=(4, 2)), "bias": draw.normal(size=2)},
    }  # fmt: skip
    # So small that the epsilon counts.
    grads = [jax.tree.map(lambda leaf: 1e-6 * draw.normal(size=leaf.shape), params) for _ in range(3)]
    with jax.enable_x64(True):
        optimizer = make_optimizer(
            recipe.optimizer, recipe.schedule, recipe.groups, lambda schedule, peak: lambda k: peak
        )
        found, state = params, optimizer.init(params)
        for each in grads:
            updates, state = optimizer.update(jax.tree.map(lambda g: 1000 * g, each), state, found)
            found = jax.tree.map(lambda p, u: np.asarray(p + u), found, updates)

    def follow(p, *gradients):
        m = v = 0.0
        for k, g in enumerate(gradients, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            update = (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-6)
            if p.ndim > 1:
                update = update + 0.02 * p
                update = update * np.linalg.norm(p) / np.linalg.norm(update)
            p = p - 8e-3 * update
        return p

    expected = jax.tree.map(follow, params, *grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert isinstance(recipe.optimizer, LAMB)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of two classes, of several sizes: 24 to train on and 8 to test on."""
    root, draw = tmp_path_factory.mktemp("imagenet") / "photos", np.random.default_rng(0)
    for split, number in (("train", 24), ("val", 8)):
        for k in range(number):
            folder = root / split / ("red", "blue")[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            picture = draw.integers(0, 120, (30 + k, 44 - k % 5, 3))
            picture[..., 2 * (k % 2)] += 120
            (folder / f"{k}.png").write_bytes(encoded(picture.astype(np.uint8), "PNG"))
    return root


def test_a_recipe_runs_on_a_folder_of_pictures(photos, tmp_path, monkeypatch, capsys):
    """Squares of 24 pixels, crops to 8 of them that grow to 12, and test images of 16."""
    name = "resnet18-ffcv"
    options = [
        "--recipe", name, "--augment", "growing_crop(sizes=(8, 12), at=(0.5,)) | flip()", "--test-time",
        "centre(16) | mirror()", "--data", f'folder("{photos}", square=24)',
        "--model.stage-sizes", "1", "--model.features", "2", "--epochs", "2", "--batch-size", "8",
        "--precision", "float32", "--steps-per-call", "1", "--out", str(tmp_path / "run"), "--no-report",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["imagenet"])
    config = command.parse(IMAGENET.Config, options, "", IMAGENET.defaults(options))
    assert config.data == Folder(str(photos), square=24)
    assert (config.recipe.loss, config.recipe.epochs) == (IMAGENET.RECIPES[name].recipe.loss, 2)
    IMAGENET.main(config)
    assert f"published for {name} on ImageNet: {PAPERS[name]['accuracy']} %" in capsys.readouterr().out
    run = load_run(tmp_path / "run")
    assert (run.step, run.image_shape) == (6, (24, 24, 3))
    assert run.test_time == config.recipe.test_time
    evaluation = run.evaluate(run.load_data("test"))
    assert evaluation.count == 8
    assert set(evaluation.metrics) >= {"accuracy", "top5"}


def test_the_table_says_what_was_not_run(capsys):
    IMAGENET.main(IMAGENET.Config(published=True))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("resnet")]
    assert len(rows) == len(IMAGENET.RECIPES) == len(IMAGENET.Name.__args__)
    for row, paper in zip(rows, PAPERS.values(), strict=True):
        assert "not run here" in row
        assert f"{paper['accuracy']:.4g} %" in row
