"""Selections: what a proxy picks, against float64 NumPy, and that picks go with a run."""

from __future__ import annotations

import dataclasses
import functools
import re
import signal

import jax
import numpy as np
import optax
import pytest

from cnn_jax.augment import Mixup
from cnn_jax.errors import InputError
from cnn_jax.models import MLP
from cnn_jax.runs import fit
from cnn_jax.runs.display import Display
from cnn_jax.training import (
    SGD,
    Hardest,
    Linear,
    SoftmaxCrossEntropy,
    make_functions,
    make_train,
    train_arrays,
)
from cnn_jax.training.step import make_inputs
from tests import quick
from tests.test_training_loop import SignalAt
from tests.tiny import TinyNet, assert_same_bits, make_dataset, make_execution, make_folder, make_recipe

pytestmark = pytest.mark.usefixtures("shared_engines")


def make(**changes):
    selection = Hardest("mlp(features=())", keep=5, every=4)
    return make_recipe(selection=(selection,), optimizer=SGD(0.3, momentum=0.8), schedule=Linear(), **changes)


def by_hand(recipe, train, weights, bias, order):
    """The rows that softmax regression on these batches finds hardest, learning in every fourth step, in float64."""
    steps, rate, picks = len(order), recipe.optimizer.learning_rate, []
    pixels = np.float64(train.images[..., 0]).reshape(len(train), -1) / 255
    pixels = (pixels - train.statistics.mean[0]) / train.statistics.std[0]
    smoothing = recipe.loss.label_smoothing
    moments = [np.zeros_like(weights), np.zeros_like(bias)]
    for k, rows in enumerate(order):
        x = pixels[rows]
        targets = (1 - smoothing) * np.eye(3)[train.labels[rows]] + smoothing / 3
        scores = x @ weights + bias
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        losses = -(targets * logs).sum(1)
        picked = np.sort(np.argsort(-losses, kind="stable")[:5])
        picks.append(picked)
        if k % 4 == 0:
            error = (np.exp(logs) - targets)[picked] / 5
            moments = [0.8 * m + g for m, g in zip(moments, (x[picked].T @ error, error.sum(0)), strict=True)]
            now = rate * (1 - (k // 4) / -(-steps // 4))
            weights, bias = weights - now * moments[0], bias - now * moments[1]
    return np.array(picks)


def test_picks_are_the_largest_losses_of_a_proxy_that_learns_in_every_fourth_step():
    train = make_dataset()
    recipe = make(loss=SoftmaxCrossEntropy(label_smoothing=0.2))
    arrays = train_arrays(recipe, train, 3)
    state, _ = quick.jit(make_train(recipe, train))(jax.random.key(3), {}, arrays)
    # As the proxy begins: with a key of its own.
    key = jax.random.split(jax.random.fold_in(jax.random.key(3), 2**31))[0]
    params = MLP(features=(), num_classes=3).init(key, np.zeros((1, 6, 6, 1), np.float32))["params"]["output"]
    begin = (np.float64(params[name]) for name in ("kernel", "bias"))
    expected = by_hand(recipe, train, *begin, np.asarray(arrays["order"]))
    np.testing.assert_array_equal(state.picks, expected)
    assert len(np.unique(expected)) == recipe.batch_size  # every place of a batch is picked now and then


def test_a_step_is_that_of_the_rows_picked():
    train = make_dataset()
    with_picks, without = (
        make_functions(recipe, train.statistics, (6, 6, 1), 3, 4)
        for recipe in (make(augment=(Mixup(),)), dataclasses.replace(make(), selection=()))
    )
    rows = np.arange(8)
    batch = {"image": train.images[rows], "label": train.labels[rows], "index": rows, "epoch": np.zeros(8, np.int32)}
    picked = np.array([1, 2, 3, 5, 6])
    state = with_picks.init(jax.random.key(0)).replace(picks=np.tile(picked, (4, 1)))
    [mixed, targets] = make_inputs(with_picks.preprocess, (Mixup(),), 3, 4)(state.rng, 0, batch)
    found, metrics = quick.jit(with_picks.train_step)(state, batch)

    def loss(params):
        scores = TinyNet().apply({"params": params}, mixed[picked])
        return optax.softmax_cross_entropy(scores, targets[picked]).mean()

    value, grads = quick.jit(jax.value_and_grad(loss))(state.params)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    # The rate of the first step is the peak, Nesterov's momentum is not used.
    expected = jax.tree.map(lambda p, g: p - 0.3 * g, state.params, grads)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found.params, expected)
    other, _ = quick.jit(without.train_step)(state.replace(picks=()), batch)
    assert np.abs(other.params["scores"]["kernel"] - found.params["scores"]["kernel"]).max() > 1e-3


def test_picks_are_those_of_the_seed_however_it_is_trained(tmp_path):
    """In calls, as one program, among other seeds, and resumed after a signal while the proxy learned."""
    train, recipe = make_dataset(), make()
    several = fit(recipe, train, seeds=(2, 5))
    alone, _ = quick.jit(make_train(recipe, train))(jax.random.key(5), {}, train_arrays(recipe, train, 5))
    np.testing.assert_array_equal(several.state.picks[1], alone.picks)
    assert not np.array_equal(several.state.picks[0], alone.picks)

    def train_in(path, resume=False, **options):
        folder = make_folder(path, resume=resume, seeds=(5,))
        try:
            return fit(recipe, train, seeds=5, execution=make_execution(), folder=folder, **options)
        finally:
            folder.close()

    whole = train_in(tmp_path / "whole")
    np.testing.assert_array_equal(whole.state.picks, alone.picks)
    path = tmp_path / "parts"
    assert train_in(path, display=SignalAtPicking()).interrupted == signal.SIGTERM
    assert not list((path / "checkpoints").glob("[0-9]*"))
    assert train_in(path, resume=True, display=SignalAt(9, signal.SIGTERM)).interrupted == signal.SIGTERM
    assert_same_bits(train_in(path, resume=True).state, whole.state)


class SignalAtPicking(Display):
    """Sends a signal when a line says that a proxy picks."""

    def __init__(self):
        super().__init__(silent=True)

    def line(self, text):
        assert re.search(r"picks 5 of 8 images for each of 31 steps", text)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Hardest("mlp(size=3)"), r"size"),
        (lambda: Hardest(keep=0), r"^hardest: expected keep to be a whole number"),
        (lambda: Hardest(frozen="("), r"pattern"),
        (lambda: make_recipe(selection=(Hardest(keep=9),)), r"^selection.keep: expected at most batch_size, 8, got 9"),
        (lambda: make(accumulate=2), r"^accumulate: expected a whole number that divides selection.keep, 5, got 2"),
        (lambda: make_recipe(selection=(Hardest(), Hardest())), r"^selection: expected one way or none"),
    ],
)
def test_what_cannot_be(make_it, message):
    with pytest.raises(InputError, match=message):
        make_it()
