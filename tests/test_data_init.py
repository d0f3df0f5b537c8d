"""Parameters made of the training images: against NumPy in float64, for one seed and several, kept by a run."""

from __future__ import annotations

import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import command, data, layers, parts
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.runs import fit
from cnn_jax.runs.fit import check_parameters
from cnn_jax.training import SGD, DataInit, Group, Whiten, data_init, make_train, train_arrays
from tests import quick
from tests.test_training_loop import SignalAt
from tests.tiny import assert_same_bits, make_dataset, make_execution, make_folder, make_recipe


class Whitened(nn.Module):
    """Scores of what a whitening kernel makes of an image."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = layers.Conv(8 * images.shape[-1], (2, 2), padding="VALID", name="whiten")(images)
        return layers.Dense(self.num_classes, name="scores")(jnp.abs(x).mean((1, 2)))


TRAIN, TEST = make_dataset(60), make_dataset(20, seed=1, split="test")
PART = Whiten(images=25, eps=1e-3)
RECIPE = {
    "model": Whitened(), "data_init": (PART,), "groups": (Group("whiten/kernel", frozen=True),), "optimizer": SGD(0.1),
    "epochs": 2,
}  # fmt: skip


def eigen(images, window, eps):
    """Falling eigenvalues of the windows' second moments, and their vectors over sqrt(value + eps) as (h, w, C, n)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(images, np.float64), window, (1, 2))
    flat = np.moveaxis(windows, 3, -1).reshape(-1, window[0] * window[1] * images.shape[-1])
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    return values[::-1], (vectors / np.sqrt(values + eps))[:, ::-1].reshape(*window, images.shape[-1], -1)


def assert_whitens(kernel, images, eps, window=(2, 2)):
    """A vector's sign is free, and the second half is the first negated."""
    first, second = np.split(np.asarray(kernel, np.float64), 2, axis=-1)
    np.testing.assert_array_equal(second, -first)
    _, expected = eigen(images, window, eps)
    signs = np.sign((first * expected).sum((0, 1, 2)))
    np.testing.assert_allclose(first * signs, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max((0, 1, 2)).min())


def normalised(rows):
    return data.normalise(TRAIN.images[rows], TRAIN.statistics)


@pytest.mark.parametrize(("window", "channels", "images"), [((2, 2), 3, 11), ((3, 1), 2, 5), ((1, 2), 1, 4)])
def test_the_kernel_is_made_of_eigenvectors_of_windows(window, channels, images, monkeypatch):
    monkeypatch.setattr(data_init, "_CHUNK", 4)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(images, 7, 6, channels)) + np.arange(channels)
    x = (x[:, :, 1:] + 0.5 * x[:, :, :-1]).astype(np.float32)  # neighbours that depend on each other
    shape = (*window, channels, 2 * window[0] * window[1] * channels)
    params = {"a": {"kernel": jnp.ones(shape)}, "b": {"kernel": jnp.ones(3)}}
    found = quick.jit(Whiten("a/kernel", eps=1e-2))(params, x)
    assert_whitens(found["a"]["kernel"], x, 1e-2, window)
    np.testing.assert_array_equal(found["b"]["kernel"], 1)


def test_what_it_gives_is_white():
    """The responses have the second moments value / (value + eps), and none with each other."""
    x = normalised(np.arange(60))
    kernel = quick.jit(PART)({"whiten": {"kernel": jnp.zeros((2, 2, 1, 8))}}, x)["whiten"]["kernel"]
    y = np.asarray(jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")))
    y = y[..., :4].reshape(-1, 4).astype(np.float64)
    values, _ = eigen(x, (2, 2), PART.eps)
    np.testing.assert_allclose(y.T @ y / len(y), np.diag(values / (values + PART.eps)), atol=1e-3)


def test_a_run_begins_with_it_and_a_frozen_one_stays():
    recipe = make_recipe(**RECIPE)
    result = fit(recipe, TRAIN, test=TEST, execution=make_execution())
    kernel = np.asarray(result.state.params["whiten"]["kernel"])
    assert_whitens(kernel, normalised(np.arange(25)), PART.eps)
    pure = quick.jit(make_train(recipe, TRAIN))(jax.random.key(0), {}, train_arrays(recipe, TRAIN, 0))[0]
    np.testing.assert_allclose(pure.params["whiten"]["kernel"], kernel, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_each_seed_looks_at_the_first_images_that_it_learns_from(validation):
    result = fit(make_recipe(**RECIPE, validation=validation), TRAIN, seeds=(2, 5), execution=make_execution())
    for k, seed in enumerate((2, 5)):
        rows = data.holdout_indices(TRAIN, validation, seed)[0] if validation else np.arange(60)
        assert_whitens(result.state.params["whiten"]["kernel"][k], normalised(rows[:25]), PART.eps)


def test_fewer_images_than_it_asks_for_are_all_taken():
    recipe = make_recipe(**RECIPE | {"data_init": (Whiten(),)})
    kernel = fit(recipe, TRAIN, execution=make_execution()).state.params["whiten"]["kernel"]
    assert_whitens(kernel, normalised(np.arange(60)), 5e-4)


def test_interrupted_and_resumed_is_undisturbed(tmp_path):
    def train_in(path, resume=False, display=None):
        folder = make_folder(path, resume=resume)
        try:
            return fit(
                make_recipe(**RECIPE), TRAIN, test=TEST, execution=make_execution(), folder=folder, display=display
            )
        finally:
            folder.close()

    expected = train_in(tmp_path / "whole")
    assert train_in(tmp_path / "parts", display=SignalAt(6, signal.SIGTERM)).interrupted == signal.SIGTERM
    assert_same_bits(train_in(tmp_path / "parts", resume=True).state, expected.state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Whiten(images=0), "whiten: expected images to be a whole number >= 1, got 0"),
        (lambda: Whiten(eps=0.0), "whiten: expected eps to be a positive number that float32 holds, got 0.0"),
        (lambda: Whiten(""), "whiten: expected parameter to be the path of a kernel, such as whiten/kernel, got ''"),
        (
            lambda: check_parameters(make_recipe(**RECIPE | {"data_init": (Whiten("conv/kernel"),)}), TRAIN, None),
            "whiten: expected parameter to be one of scores/bias, scores/kernel, whiten/bias, whiten/kernel, got 'conv",
        ),
        (
            lambda: check_parameters(make_recipe(**RECIPE | {"data_init": (Whiten("scores/kernel"),)}), TRAIN, None),
            "whiten: expected parameter to be a kernel (height, width, 1, twice their product), got scores/kernel of",
        ),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_texts_and_options(monkeypatch):
    assert parts.parse(parts.text(PART), DataInit) == PART
    monkeypatch.setattr("sys.argv", ["train"])
    options = ["--data-init", "whiten(eps=0.001)", "--data-init.images", "25"]
    assert command.parse(Experiment, options, "About it.").recipe.data_init == (PART,)
