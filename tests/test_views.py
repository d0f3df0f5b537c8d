"""Views of test images: what they are, and that whatever measures or uses a run heeds them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import command, data, parts
from cnn_jax.data import Arrays
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import ConvNet
from cnn_jax.runs import Place, load_run
from cnn_jax.training import SGD, Mirror, Recipe, Shift, View
from cnn_jax.training.views import averaged
from tests import quick
from tests.commands import run_command
from tests.tiny import make_dataset

TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")
BOTH = Shift(2), Mirror()


def scores_of(apply, images, pixels):
    """Half the mean of image and mirror image, half that of both of the two that are moved, in float64."""

    def mirrored(x):
        return 0.5 * np.asarray(apply(x), np.float64) + 0.5 * np.asarray(apply(x[:, :, ::-1]), np.float64)

    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
    first, last = padded[:, :height, :width], padded[:, 2 * pixels :, 2 * pixels :]
    return 0.5 * mirrored(images) + 0.25 * (mirrored(first) + mirrored(last))


def test_shift_and_mirror_have_the_six_views_of_airbench():
    images = np.random.default_rng(0).normal(size=(3, 6, 5, 2)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(6 * 5 * 2, 4)).astype(np.float32)
    calls = []

    def score(x):
        calls.append(len(x))
        return jnp.tanh(x.reshape(len(x), -1) @ weights)

    found = averaged(score, BOTH, jnp.asarray(images))
    np.testing.assert_allclose(found, scores_of(score, images, 2), rtol=1e-5, atol=1e-6)
    assert calls[0] == 6 * 3
    np.testing.assert_array_equal(averaged(score, (), images), score(images))


@pytest.mark.parametrize("view", [Mirror(), Shift(), Shift(3)], ids=str)
def test_weights_add_up_and_shapes_stay(view):
    found = view(jnp.ones((2, 7, 4, 3)))
    assert sum(weight for weight, _ in found) == 1
    assert {x.shape for _, x in found} == {(2, 7, 4, 3)}


def test_the_first_view_moved_is_up_and_left():
    image = jnp.arange(12.0).reshape(1, 3, 4, 1)
    (_, same), (_, moved), (_, back) = Shift(1)(image)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(moved[0, :-1, :-1], image[0, 1:, 1:])
    np.testing.assert_array_equal(back[0, 1:, 1:], image[0, :-1, :-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    np.savez(
        root / "set.npz",
        **{f"{s.split}_{name}": getattr(s, name) for s in (TRAIN, TEST) for name in ("images", "labels")},
    )
    recipe = Recipe(model=ConvNet(filters=(4,)), epochs=1, batch_size=8, test_time=BOTH, optimizer=SGD(0.05))
    place = Place(out=root / "run", report=False)
    result = run_experiment(Experiment(recipe=recipe, data=Arrays(str(root / "set.npz")), place=place), "views")
    return root / "run", result


def test_a_run_is_measured_and_used_by_its_views(run, monkeypatch, capsys):
    path, result = run
    loaded = load_run(path)
    assert loaded.test_time == BOTH
    test = loaded.load_data("test")
    apply = quick.jit(lambda x: loaded.model.apply(loaded.variables, x))
    images = np.asarray(data.normalise(data.fit_images(test.images, loaded.input_size), loaded.statistics))
    expected = scores_of(apply, images, 2)
    assert np.abs(expected - apply(images)).max() > 1e-3  # they make a difference
    [in_training] = result.evaluations["test"]
    for scores in (in_training.scores, loaded.evaluate(test).scores):
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    softmax = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
    np.testing.assert_allclose(loaded.probabilities(test.images), softmax, rtol=1e-4, atol=1e-5)
    code, out, _ = run_command(monkeypatch, capsys, "evaluate", path)
    assert code == 0
    assert f"{in_training.accuracy:.2%}" in out


def test_texts_and_options(monkeypatch):
    with pytest.raises(InputError, match=r"^shift: expected pixels to be a whole number >= 1, got 0$"):
        Shift(0)
    assert parts.parse_several("shift(2) | mirror()", View) == BOTH
    monkeypatch.setattr("sys.argv", ["train"])
    assert command.parse(Experiment, ["--test-time", "shift(2) | mirror()"], "About it.").recipe.test_time == BOTH
