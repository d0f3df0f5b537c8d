"""Beginning with the weights of another run, and finding out what a run would be."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from cnn_jax.data import Arrays
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import MLP, ConvNet
from cnn_jax.runs import Execution, Place, fit, load_run
from cnn_jax.training import EMA, SGD, Constant, Group, Recipe
from tests.tiny import assert_same_bits, make_dataset, make_execution, make_recipe
from tests.trained import tree_hash

pytestmark = pytest.mark.usefixtures("shared_engines")
# A step of so little that float32 holds no difference.
STILL = {"optimizer": SGD(1e-30, momentum=0.0), "schedule": Constant(), "epochs": 1}


def save_set(path, classes=3):
    sets = [make_dataset(), make_dataset(30, seed=1, split="test")]
    arrays = {f"{s.split}_images": s.images for s in sets} | {f"{s.split}_labels": s.labels % classes for s in sets}
    np.savez(path, **arrays)
    return Arrays(str(path))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with two sets, of three classes and of two, and a run on the first."""
    root = tmp_path_factory.mktemp("warm")
    three, two = save_set(root / "three.npz"), save_set(root / "two.npz", classes=2)
    run(three, root / "source", epochs=2)
    return root, three, two


def run(data, out, *, place=None, **changes):
    recipe = Recipe(**({"model": ConvNet(filters=(4,)), "batch_size": 8} | changes))
    place = place or Place(out=out, report=False)
    return run_experiment(Experiment(recipe=recipe, data=data, place=place), "warm")


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_it_begins_with_the_weights_of_the_run(here, tmp_path, capsys):
    root, three, _ = here
    source = load_run(root / "source").variables
    result = run(three, tmp_path / "run", init=str(root / "source"), **STILL)
    equal(result.state.params, source["params"])
    assert "init:" not in capsys.readouterr().err
    other = run(three, tmp_path / "other", **STILL)
    first = next(iter(source["params"]))
    assert (other.state.params[first]["kernel"] != source["params"][first]["kernel"]).any()


def test_an_average_begins_with_them_too(here, tmp_path):
    root, three, _ = here
    result = run(three, tmp_path / "run", init=str(root / "source"), averaging=(EMA(0.5),), **STILL)
    equal(result.variables()["params"], load_run(root / "source").variables["params"])
    # And the averaged weights of such a run are what another begins with.
    again = run(three, tmp_path / "again", init=str(tmp_path / "run"), **STILL)
    equal(again.state.params, result.variables()["params"])


def test_other_classes_leave_out_the_head_and_that_is_said(here, tmp_path, capsys):
    root, _, two = here
    source = load_run(root / "source").variables["params"]
    result = run(two, tmp_path / "run", init=str(root / "source"), **STILL)
    *body, head = source
    for name in body:
        equal(result.state.params[name], source[name])
    assert result.state.params[head]["kernel"].shape[-1] == 2
    assert result.state.params[head]["kernel"].any()
    errors = capsys.readouterr().err.splitlines()
    assert sum("does not fit this model" in line for line in errors) == len(source[head])
    assert f"init: params/{head}/kernel does not fit this model, which starts with its own" in "\n".join(errors)


def test_several_seeds_begin_with_the_same(here):
    root, *_ = here
    source = load_run(root / "source").variables
    recipe = make_recipe(model=ConvNet(filters=(4,)), **STILL)
    result = fit(recipe, make_dataset(), seeds=(0, 1), execution=make_execution(), begin_with=lambda: source)
    equal(result.variables(0)["params"], source["params"])
    equal(result.variables(1)["params"], source["params"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": MLP(features=(3,))}, "init: expected parameters of the model's shapes, got params/"),
        ({"init": "nowhere"}, "init: nowhere: expected the folder of a run, there is no such folder"),
        ({"patience": 2}, "patience: expected images held out to judge by, got none"),
        ({"groups": (Group("nothing"),)}, "groups: expected each to have parameters, none is left for"),
    ],
    ids=["shapes", "nowhere", "patience", "groups"],
)
@pytest.mark.parametrize("dry", [False, True], ids=["run", "dry run"])
def test_what_cannot_be_is_refused_in_a_line_and_leaves_nothing(here, tmp_path, changes, message, dry):
    root, _, two = here  # whose head does not fit either
    place = Place(out=tmp_path / "run", report=False, dry_run=dry)
    with pytest.raises(InputError, match=r".") as caught:
        run(two, None, place=place, **({"init": str(root / "source")} | STILL | changes))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_it_resumes_when_the_run_it_began_with_is_gone(here, tmp_path):
    root, three, _ = here
    shutil.copytree(root / "source", tmp_path / "source")
    whole = run(three, tmp_path / "whole", init=str(tmp_path / "source"), epochs=2)
    # As if it had been stopped after its first epoch: a later checkpoint is gone.
    checkpoint = Execution().checkpoint
    often = Execution(checkpoint=dataclasses.replace(checkpoint, every_steps=8, keep=10))
    recipe = Recipe(model=ConvNet(filters=(4,)), batch_size=8, epochs=2, init=str(tmp_path / "source"))

    def start(**place):
        options = Place(out=tmp_path / "parts", report=False, **place)
        return run_experiment(Experiment(recipe=recipe, data=three, execution=often, place=options), "warm")

    start()
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(tmp_path / "parts" / "checkpoints" / str(int(whole.state.step)))
    resumed = start(resume=True)
    assert_same_bits(resumed.state, whole.state)


def test_a_dry_run_says_what_there_would_be_and_does_nothing(here, tmp_path, capsys, monkeypatch):
    root, three, _ = here
    before = tree_hash(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cnn_jax.runs.engine.Engine.train_steps", None)  # so that a step would fail
    for out in (None, tmp_path / "run", root / "source"):
        place = Place(out=out, resume=out == root / "source", dry_run=True)
        recipe = {"epochs": 2} if place.resume else {"epochs": 3, "validation": 0.2, "averaging": (EMA(),)}
        with pytest.raises(SystemExit) as stop:
            run(three, None, place=place, **recipe)
        assert stop.value.code == 0
    assert list(tmp_path.iterdir()) == []
    assert tree_hash(root) == before
    shown = capsys.readouterr().out
    parameters = sum(leaf.size for leaf in jax.tree.leaves(load_run(root / "source").variables["params"]))
    rows = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
    assert f"{parameters:,}" in rows["parameters"]
    assert "61" in shown
    assert "16, 7.6 an epoch" in rows["steps"]
    assert " MiB" in rows["state"]
