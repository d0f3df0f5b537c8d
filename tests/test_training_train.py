"""Training as a pure function: mapped over keys and numbers it is the runs of their own. What several come to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnn_jax.augment import Affine
from cnn_jax.errors import InputError
from cnn_jax.runs import fit
from cnn_jax.training import (
    SGD,
    AdamW,
    CalibrationError,
    Mirror,
    SoftmaxCrossEntropy,
    make_measure,
    make_train,
    summarise,
    train_arrays,
)
from tests import quick
from tests.tiny import assert_close, make_dataset, make_recipe

TRAIN = make_dataset(70)


def part(stacked, k: int):
    return jax.tree.map(lambda leaf: leaf[k], stacked)


def test_vmap_over_keys_rates_and_decays_is_runs_of_their_own():
    """With distortions, whose random numbers are the seed's too."""
    seeds, rates, decays = (7, 8), (1e-3, 1e-2), (0.0, 0.5)

    def recipe(rate=0.1, decay=0.1):
        return make_recipe(optimizer=AdamW(rate, decay), augment=(Affine(),), epochs=2)

    train = make_train(recipe(), TRAIN)
    arrays = train_arrays(recipe(), TRAIN, seeds)
    axes = (0, 0, {"image": None, "label": None, "order": 0})
    numbers = {"optimizer.learning_rate": jnp.array(rates), "optimizer.weight_decay": jnp.array(decays)}
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    states, metrics = quick.jit(jax.vmap(train, axes))(keys, numbers, arrays)
    assert metrics["loss"].shape == (2, 18)
    expected = fit(recipe(rates[1], decays[1]), TRAIN, seeds=seeds[1])
    assert_close(part(states, 1), expected.state)
    assert metrics["accuracy"][1, -9:].mean() == pytest.approx(expected.train["accuracy"][0])
    for k, seed in enumerate(seeds):
        order = train_arrays(recipe(), TRAIN, seed)["order"]
        np.testing.assert_array_equal(order, arrays["order"][k])


def test_a_race_is_a_run_and_its_last_evaluation(monkeypatch):
    """Cut off in an epoch, with a last batch of test images that has to be filled up."""
    monkeypatch.setattr("cnn_jax.training.train._MEASURED", 8)
    test = make_dataset(30, seed=1, split="test")
    recipe = make_recipe(steps=11, loss=SoftmaxCrossEntropy(0.1), metrics=(CalibrationError(),), test_time=(Mirror(),))
    train, measure = make_train(recipe, TRAIN), make_measure(recipe, TRAIN)

    @quick.jit
    def race(key, arrays, split):
        state, _ = train(key, {}, arrays)
        return state, measure(state.eval_variables, split)

    split = {"image": jnp.asarray(test.images), "label": jnp.asarray(test.labels)}
    state, measured = race(jax.random.key(4), train_arrays(recipe, TRAIN, 4), split)
    run = fit(recipe, TRAIN, seeds=4, test=test)
    assert int(run.state.step) == int(state.step) == 11
    assert_close(state.params, run.state.params)
    [expected] = run.evaluations["test"]
    assert measured.keys() == expected.values().keys() == {"loss", "calibration_error", "accuracy", "cross_entropy"}
    for name, value in expected.values().items():
        assert float(measured[name]) == pytest.approx(value, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["accuracy", "optimizer", "optimizer.rate", "model.learning_rate", "epochs", "a.b"])
def test_numbers_of_no_part_are_named(name):
    train, arrays = make_train(make_recipe(), TRAIN), train_arrays(make_recipe(), TRAIN, 0)
    with pytest.raises(InputError, match=f"^{name}: expected a part of a recipe and a field of it"):
        train(jax.random.key(0), {name: 1.0}, arrays)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_traced_weight_decay_is_the_configured_one(kind):
    params, grads = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, {"kernel": jnp.eye(2), "bias": jnp.ones(2)}

    def update(decay):
        optimizer = kind(weight_decay=decay)(lambda count: 0.1)
        return optimizer.update(grads, optimizer.init(params), params)[0]

    decays = (0.0, 0.3)
    found, expected = quick.jit(lambda traced: (jax.vmap(update)(traced), list(map(update, decays))))(jnp.array(decays))
    for k in range(len(decays)):
        assert_close(part(found, k), expected[k], rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.floats(0.5, 0.99))
def test_the_summary_is_student_s(values, confidence):
    found = summarise(values, confidence)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.std == pytest.approx(np.sqrt(sum((v - np.mean(values)) ** 2 for v in values) / (len(values) - 1)))
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence) if found.std > 1e-6 else values[:1] * 2
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-6, abs=1e-5)


def test_one_value_has_no_deviation():
    found = summarise([0.985])
    assert found.mean == 0.985
    assert np.isnan([found.std, found.low, found.high]).all()
    assert (found.percent(), summarise([0.5, 0.6, 0.7]).percent()) == ("98.50%", "60.00 ± 10.00 %")
