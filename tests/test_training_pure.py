"""Training as a pure function: mapped over keys and numbers it is the runs of their own. What several come to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnn_jax.training import (
    AugmentConfig,
    Hyperparameters,
    OptimizerConfig,
    fit,
    make_optimizer,
    make_train,
    summarise,
    train_arrays,
)
from tests.tiny import TinyNet, assert_close, make_config, make_dataset

TRAIN = make_dataset(70)


def part(stacked, k: int):
    return jax.tree.map(lambda leaf: leaf[k], stacked)


def test_vmap_over_keys_rates_and_decays_is_runs_of_their_own():
    """With distortions, whose random numbers are the seed's too."""
    seeds, rates, decays = (7, 8), (1e-3, 1e-2), (0.0, 0.5)

    def configured(seed, rate=0.1, decay=0.1):
        optimizer, augment = OptimizerConfig(learning_rate=rate, weight_decay=decay), AugmentConfig(name="affine")
        return make_config(seed=seed, optimizer=optimizer, augment=augment, epochs=2)

    train = make_train(TinyNet(), configured(0), TRAIN.statistics)
    arrays = train_arrays(TinyNet(), TRAIN, configured(0), seeds)
    axes = (0, 0, {"image": None, "label": None, "order": 0})
    numbers = Hyperparameters(learning_rate=jnp.array(rates), weight_decay=jnp.array(decays))
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    states, metrics = jax.jit(jax.vmap(train, axes))(keys, numbers, arrays)
    assert metrics["loss"].shape == (2, 18)
    expected = fit(TinyNet(), TRAIN, configured(seeds[1], rates[1], decays[1]))
    assert_close(part(states, 1), expected.state)
    assert metrics["accuracy"][1, -9:].mean() == pytest.approx(expected.train["accuracy"])
    for k, seed in enumerate(seeds):
        order = train_arrays(TinyNet(), TRAIN, configured(0), seed)["order"]
        np.testing.assert_array_equal(order, arrays["order"][k])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_traced_weight_decay_is_the_configured_one(name):
    params, grads = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, {"kernel": jnp.eye(2), "bias": jnp.ones(2)}

    def update(config, decay=None):
        optimizer = make_optimizer(config, lambda count: 0.1, decay)
        return optimizer.update(grads, optimizer.init(params), params)[0]

    found = jax.vmap(lambda decay: update(OptimizerConfig(name=name, weight_decay=7.0), decay))(jnp.array([0.0, 0.3]))
    for k, decay in enumerate((0.0, 0.3)):
        assert_close(part(found, k), update(OptimizerConfig(name=name, weight_decay=decay)), rtol=1e-6)


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
