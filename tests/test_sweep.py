"""Sweeps: each replica is the run of its recipe and seed; what can be traced is one program."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from cnn_jax import pictures
from cnn_jax.augment import Mixup
from cnn_jax.errors import InputError
from cnn_jax.report import write_sweep
from cnn_jax.runs import fit, sweep
from cnn_jax.runs.axes import combinations, parse_axes, shown, with_settings
from cnn_jax.runs.programs import plan
from cnn_jax.training import SGD, AdamW, Constant, CrossEntropy, SoftmaxCrossEntropy
from tests.test_training_loop import SignalAt
from tests.tiny import assert_close, assert_same_bits, make_dataset, make_execution, make_folder, make_recipe

TRAIN = make_dataset(70)
LABELS = np.where(np.random.default_rng(0).random(70) < 1 / 3, (TRAIN.labels + 1) % 3, TRAIN.labels)
TRAIN = dataclasses.replace(TRAIN, labels=LABELS.astype(np.int32))
RECIPE = make_recipe(validation=0.2, epochs=2, optimizer=SGD(0.1), schedule=Constant())
AXES = {"optimizer.learning_rate": (0.003, 0.1), "loss.label_smoothing": (0.05, 0.2)}
SEEDS = (4, 5)


def train(axes=AXES, recipe=RECIPE, seeds=SEEDS, **options):
    return sweep(recipe, axes, TRAIN, seeds=seeds, execution=make_execution(steps_per_call=1), **options)


@pytest.fixture(scope="module")
def grid():
    return train()


def test_each_replica_is_the_run_of_its_recipe_and_seed(grid):
    assert [program.members for program in grid.programs] == [(0, 1, 2, 3)]
    for k in (0, 3):
        recipe = with_settings(RECIPE, combinations(AXES)[k])
        alone = fit(recipe, TRAIN, seeds=SEEDS, execution=make_execution(steps_per_call=1))
        p, replicas = grid.place(k)
        assert_close(jax.tree.map(lambda leaf, own=replicas: leaf[own], grid.results[p].state), alone.state)
        np.testing.assert_allclose(grid.values[k], alone.values("validation"))
        np.testing.assert_allclose(grid.losses[k], alone.values("validation", "loss"), rtol=1e-4)
        entropies = grid.results[p].values("validation", "cross_entropy")[replicas]
        np.testing.assert_allclose(entropies, alone.values("validation", "cross_entropy"), rtol=1e-4)
        for name, values in alone.train.items():
            np.testing.assert_allclose(grid.results[p].train[name][replicas], values, rtol=1e-3)


def test_the_best_mean_on_validation_images_is_chosen(grid):
    order = sorted(range(4), key=lambda k: (grid.values[k].mean(), -grid.losses[k].mean()))
    assert grid.chosen == order[-1]
    assert grid.recipe == with_settings(RECIPE, combinations(AXES)[order[-1]])
    assert "test" not in grid.results[0].evaluations
    lower = train({"optimizer.learning_rate": (0.003, 0.1)}, dataclasses.replace(RECIPE, metrics=(CrossEntropy(),)))
    assert lower.chosen == lower.values.mean(axis=1).argmin()


def test_alone_in_its_program_a_run_has_the_bits_of_fit():
    found = train({"batch_size": (8, 16)}, seeds=4)
    assert [program.members for program in found.programs] == [(0,), (1,)]
    recipe = dataclasses.replace(RECIPE, batch_size=16)
    alone = fit(recipe, TRAIN, seeds=4, execution=make_execution(steps_per_call=1))
    assert_same_bits(found.results[1].state, alone.state)


def members(axes, **changes):
    return [program.members for program in plan(dataclasses.replace(RECIPE, **changes), axes, TRAIN)]


def test_what_can_be_traced_is_one_program_and_the_rest_is_grouped():
    assert members({"optimizer.momentum": (0.0, 0.5, 0.9)}) == [(0,), (1, 2)]  # 0 keeps no average
    assert members({"optimizer.clip_norm": (None, 1.0, 2.0)}) == [(0,), (1, 2)]
    assert members({"optimizer.weight_decay": (0.0, 0.1)}, optimizer=AdamW()) == [(0, 1)]
    assert members({"augment.alpha": (0.2, 0.4)}, augment=(Mixup(0.3),)) == [(0, 1)]
    assert members({"schedule.warmup": (0.1, 0.2)}, schedule=parse_axes(["schedule=cosine()"], RECIPE)["schedule"][0]) \
        == [(0,), (1,)]  # a number of steps  # fmt: skip
    axes = {"epochs": (1, 2), "optimizer.learning_rate": (0.1, 0.2)}
    assert members(axes) == [(0, 1), (2, 3)]
    assert members({"optimizer": (SGD(0.1), AdamW(0.1)), "optimizer.learning_rate": (0.1, 0.2)}) == [(0, 1), (2, 3)]


def test_what_diverges_stops_nothing_and_is_not_chosen(capsys):
    found = train({"optimizer.learning_rate": (0.1, 1e38)})
    assert np.isfinite(found.values[0]).all()
    assert np.isnan(found.values[1]).all()
    assert found.chosen == 0
    with pytest.raises(InputError, match=r"^sweep: .*all diverged; try lower"):
        train({"optimizer.learning_rate": (1e37, 1e38)})


def test_the_page_shows_what_was_tried(grid, tmp_path):
    text = write_sweep(tmp_path, grid).read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<svg") == 1  # a map of two fields
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    for k, settings in enumerate(grid.settings):
        cells = [shown(value) for value in settings.values()] + [f"{grid.values[k].mean():.2%}"]
        assert all(f">{cell}</td>" in text for cell in cells)
    assert text.count(">chosen</td>") == 1


@pytest.mark.parametrize(("tried", "scale"), [((1e-4, 1e-3, 1e-2), "log"), ((0.1, 0.2, 0.3), "linear")])
def test_a_number_is_drawn_where_it_is(tried, scale):
    values = np.array([[0.3, 0.5], [0.1, 0.2], [np.nan, 0.2]])
    figure = pictures.swept(values, tried, name="rate", figure_name="error", chosen=1)
    [axes] = figure.axes
    assert axes.get_xscale() == scale
    np.testing.assert_allclose(axes.lines[0].get_xdata(), tried[:2])  # one has diverged
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.4, 0.15])
    assert axes.lines[-1].get_xdata() == tried[1]
    parted = pictures.swept(values, ("sgd()", "adam()", "lion()"), name="optimizer", figure_name="error")
    assert [label.get_text() for label in parted.axes[0].get_xticklabels()] == ["sgd()", "adam()", "lion()"]


def test_interrupted_and_resumed_is_undisturbed(grid, tmp_path):
    def folder(p, program):
        return make_folder(tmp_path / str(p), resume=True, seeds=SEEDS)

    stopped = train(open_folder=folder, display=SignalAt(9, 15))
    assert stopped.interrupted == 15
    found = train(open_folder=folder)
    assert found.interrupted is None
    assert_same_bits(found.results[0].state, grid.results[0].state)
    np.testing.assert_array_equal(found.values, grid.values)


def test_texts_are_read_as_fields_say():
    axes = parse_axes(
        [
            "--optimizer.learning-rate=1e-3, 3",
            "augment = none, crop(4) | flip(), mixup(0.2)",
            "loss = softmax_cross_entropy(class_weights=(1, 2, 3)), map()",
            "precision = float32, bfloat16",
            "optimizer.clip_norm = None, 1",
            "epochs = 2, 3",
        ],
        RECIPE,
    )
    assert list(axes) == ["optimizer.learning_rate", "augment", "loss", "precision", "optimizer.clip_norm", "epochs"]
    assert axes["optimizer.learning_rate"] == (0.001, 3.0)
    assert [len(value) for value in axes["augment"]] == [0, 2, 1]
    assert axes["loss"][0] == SoftmaxCrossEntropy(class_weights=(1.0, 2.0, 3.0))
    assert axes["precision"] == ("float32", "bfloat16")
    assert axes["optimizer.clip_norm"] == (None, 1.0)
    assert axes["epochs"] == (2, 3)


BAD = {
    "": "expected FIELD = VALUE, VALUE",
    "optimizer.learning_rate": "expected FIELD = VALUE",
    "optimizer.learning_rate =": "expected FIELD = VALUE",
    "optimizer.learning_rate = 1,,2": "expected FIELD = VALUE",
    "= 1, 2": "expected FIELD = VALUE",
    "optimizer.learning_rate = fast": "expected values of optimizer.learning_rate to be a number, got fast",
    "optimizer.learning_rate = 1e-3, 0.001": "expected each value of optimizer.learning_rate once",
    "optimizer.learning_rate = -1": "optimizer.learning_rate = -1: .*positive number",
    "optimizer.lr = 1": r"expected a field of the recipe, one of optimizer\.learning_rate, .*, got optimizer\.lr",
    "optimiser.momentum = 1": r"one of model, loss, .*optimizer\.learning_rate.*did you mean optimizer\.momentum\?",
    "epochs = 1.5": "expected values of epochs to be a whole number, got 1.5",
    "epochs = 0": "epochs = 0: epochs: expected a whole number >= 1",
    "batch_size = two": "a whole number",
    "model = lenet6": "model: expected a model",
    "model.num_classes = 3": "expected a field of the recipe",
    "metrics = accuracy": "expected no metrics",
    "validation = 0.1": "expected no validation",
    "seed = 1": "expected a field of the recipe",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_axes_are_one_line(text):
    with pytest.raises(InputError, match=BAD[text]) as error:
        parse_axes([text], RECIPE)
    assert str(error.value).startswith("sweep: ")
    assert "\n" not in str(error.value)


def test_nothing_to_choose_by_and_fields_given_twice_are_refused():
    with pytest.raises(InputError, match=r"^sweep: expected images held out .*--validation, such as 0\.1"):
        train(recipe=dataclasses.replace(RECIPE, validation=0.0))
    with pytest.raises(InputError, match="expected each field once, got epochs twice"):
        parse_axes(["epochs = 1", "epochs = 2"], RECIPE)
    with pytest.raises(InputError, match="sweep: expected fields"):
        train({})
