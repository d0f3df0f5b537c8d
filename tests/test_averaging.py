"""Averages of weights, against their sums in float64 and Optax's own; statistics that belong to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.runs.engine import Engine
from cnn_jax.training import EMA, SGD, SWA, Averaging, Lookahead
from cnn_jax.training.averaging import Moment
from tests import quick
from tests.test_training_step import Everything
from tests.tiny import make_dataset, make_execution, make_recipe

VALUES = np.random.default_rng(0).normal(size=(24, 2, 3))
STATS = np.random.default_rng(1).uniform(0.5, 2, size=(24, 3))
ENDS = (5, 10, 14, 19, 24)  # steps after which an epoch has ended


def averages(part: Averaging, values=VALUES, stats=STATS, ends=ENDS):
    """After each step: the averaged values and statistics, how many there were, and what is trained on with."""
    steps = len(values)
    drawn = {"kernel": jnp.asarray(values, jnp.float32)}, {"mean": jnp.asarray(stats, jnp.float32)}

    def step(average, k):
        params, batch_stats = jax.tree.map(lambda leaf: leaf[k], drawn)
        moment = Moment(step=k + 1, steps=steps, ends_epoch=jnp.any(jnp.array(ends) == k + 1))
        average, trained, _ = part(average, params, batch_stats, moment)
        return average, (average, trained)

    start = part.begin({"kernel": jnp.full(values.shape[1:], 7.0)}, {"mean": jnp.full(stats.shape[1:], 7.0)})
    found, trained = quick.jit(lambda: jax.lax.scan(step, start, jnp.arange(steps))[1])()
    return found.params["kernel"], found.batch_stats["mean"], found.count, trained["kernel"]


def corrected(values, decay):
    """The average that begins at 0, over the sum of its weights: Kingma and Ba 2015, section 3, in float64."""
    weights = decay ** np.arange(len(values))[::-1]
    return np.tensordot(weights / weights.sum(), values, 1)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_ema_is_the_average_with_its_bias_corrected(decay):
    found, stats, count, trained = averages(EMA(decay))
    for k in range(len(VALUES)):
        np.testing.assert_allclose(found[k], corrected(VALUES[: k + 1], decay), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stats[k], corrected(STATS[: k + 1], decay), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(count, np.arange(1, 25))
    np.testing.assert_array_equal(trained, np.float32(VALUES))
    np.testing.assert_array_equal(found[0], np.float32(VALUES[0]))


def test_ema_by_epochs_takes_the_values_at_their_ends():
    found, stats, count, _ = averages(EMA(0.7, "epoch"))
    for k in range(len(VALUES)):
        taken = [end - 1 for end in ENDS if end <= k + 1]
        expected = corrected(VALUES[taken], 0.7) if taken else np.full((2, 3), 7.0)
        np.testing.assert_allclose(found[k], expected, rtol=1e-5, atol=1e-6)
        assert count[k] == len(taken)
    np.testing.assert_allclose(stats[-1], corrected(STATS[[end - 1 for end in ENDS]], 0.7), rtol=1e-5)


def test_ema_is_that_of_optax():
    found, *_ = averages(EMA(0.9))
    optax_ema = optax.ema(0.9, debias=True)
    state = optax_ema.init(jnp.zeros((2, 3)))
    for k, value in enumerate(jnp.asarray(VALUES, jnp.float32)):
        expected, state = optax_ema.update(value, state)
        np.testing.assert_allclose(found[k], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "taken"),
    [
        (SWA(0.25), [18, 23]),
        (SWA(0.5), [13, 18, 23]),
        (SWA(1.0), [4, 9, 13, 18, 23]),
        (SWA(0.25, "step"), range(18, 24)),
        (SWA(1.0, "step"), range(24)),
    ],
    ids=str,
)
def test_swa_is_the_mean_of_its_share_and_before_that_what_is_trained(part, taken):
    found, stats, count, trained = averages(part)
    for k in range(len(VALUES)):
        chosen = [k for k in taken if k < len(VALUES)][: sum(t <= k for t in taken)]
        expected, expected_stats = (v[chosen].mean(0) if chosen else v[k] for v in (VALUES, STATS))
        np.testing.assert_allclose(found[k], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stats[k], expected_stats, rtol=1e-5, atol=1e-6)
        assert count[k] == len(chosen)
    np.testing.assert_array_equal(trained, np.float32(VALUES))


def test_a_share_without_a_step_leaves_what_is_trained():
    found, _, count, _ = averages(SWA(0.01))
    np.testing.assert_array_equal(found, np.float32(VALUES))
    assert not count.any()


@pytest.mark.parametrize(("period", "size"), [(6, 0.5), (1, 0.3), (4, 1.0)])
def test_lookahead_is_that_of_optax(period, size):
    """Descent of a quadratic, by which both end at the same slow and fast weights."""
    target, part = jnp.asarray(VALUES[0], jnp.float32), Lookahead(period, size)
    fast = optax.sgd(0.1, momentum=0.5)
    begin = {"kernel": jnp.ones((2, 3))}

    def gradient(params):
        return jax.tree.map(lambda leaf: 2 * (leaf - target), params)

    def own(carry, k):
        params, opt_state, average = carry
        updates, opt_state = fast.update(gradient(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        average, params, _ = part(average, params, {}, Moment(step=k + 1, steps=20, ends_epoch=jnp.bool_(False)))
        return (params, opt_state, average), (params["kernel"], average.params["kernel"])

    theirs = optax.lookahead(fast, period, size)

    def optax_step(carry, _):
        both, opt_state = carry
        updates, opt_state = theirs.update(gradient(both.fast), opt_state, both)
        both = optax.apply_updates(both, updates)
        return (both, opt_state), (both.fast["kernel"], both.slow["kernel"])

    both = optax.LookaheadParams.init_synced(begin)
    found = quick.jit(lambda: jax.lax.scan(own, (begin, fast.init(begin), part.begin(begin, {})), jnp.arange(20))[1])()
    expected = quick.jit(lambda: jax.lax.scan(optax_step, (both, theirs.init(both)), None, 20)[1])()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_lookahead_has_the_statistics_of_what_was_trained_last():
    _, stats, _, _ = averages(Lookahead(5, 0.5))
    np.testing.assert_array_equal(stats, np.float32(STATS))


def test_lookahead_whose_step_shrinks_is_airbenchs():
    """Descent of a quadratic, in float64: every five steps the average moves over all of the state by 1 - 0.95^5
    (t / T)^3 of the way, and what is trained goes on from there. At the end it is the average that counts."""
    part, steps, target = Lookahead(5, 1 - 0.95**5, power=3.0, statistics=True), 23, STATS[0]

    def own(carry, k):
        params, stats, average = carry
        params = params + 0.3 * (target - params)
        stats = 0.6 * stats + 0.4 * jnp.sin(k + params)
        moment = Moment(step=k + 1, steps=steps, ends_epoch=jnp.bool_(False))
        average, params, stats = part(average, params, stats, moment)
        return (params, stats, average), (params, stats, average.params, average.batch_stats)

    begin = jnp.full(3, 7.0), jnp.ones(3)
    found = quick.jit(lambda: jax.lax.scan(own, (*begin, part.begin(*begin)), jnp.arange(steps))[1])()

    params, stats, slow, slow_stats = np.full(3, 7.0), np.ones(3), np.full(3, 7.0), np.ones(3)
    for k in range(steps):
        params = params + 0.3 * (target - params)
        stats = 0.6 * stats + 0.4 * np.sin(k + params)
        if (k + 1) % 5 == 0:
            decay = 0.95**5 * ((k + 1) / steps) ** 3
            slow, slow_stats = (decay * a + (1 - decay) * b for a, b in ((slow, params), (slow_stats, stats)))
            params, stats = slow, slow_stats
        for values, expected in zip(found, (params, stats, slow, slow_stats), strict=True):
            np.testing.assert_allclose(values[k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(1.0), "ema: expected decay to be a number from 0 to below 1, got 1.0"),
        (lambda: EMA(each="batch"), "ema: expected each to be step or epoch, got 'batch'"),
        (lambda: SWA(0.0), "swa: expected share to be a share above 0, at most 1, got 0.0"),
        (lambda: SWA(each=""), "swa: expected each to be step or epoch"),
        (lambda: Lookahead(0), "lookahead: expected sync_period to be a whole number >= 1, got 0"),
        (lambda: Lookahead(5, 1.5), "lookahead: expected slow_step_size"),
        (lambda: Lookahead(power=-1.0), "lookahead: expected power to be a number >= 0, got -1.0"),
        (lambda: make_recipe(averaging=(EMA(), SWA())), "averaging: expected one way or none, got"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=r".") as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


class NormAlone(Everything):
    """Of the images of `tests.tiny`."""

    input_size = (6, 6)


@pytest.mark.parametrize("seeds", [(0,), (3, 5)])
def test_statistics_for_swa_are_the_means_over_batches(seeds):
    """Of each batch's mean and variance, taken of the convolution by hand; the norm moves half of the way a step."""
    train = make_dataset(60)
    recipe = make_recipe(model=NormAlone(), averaging=(SWA(1.0, "step"),), epochs=1, batch_size=12)
    engine = Engine(recipe, train, seeds, make_execution(), None, None)
    state = engine.init()
    before = jax.device_get(state.average.batch_stats)
    untouched = jax.device_get(engine.settle(state).average.batch_stats)  # nothing has been averaged yet
    jax.tree.map(np.testing.assert_array_equal, untouched, before)
    for k in range(5):
        state, _ = engine.train_steps(state, k, 1)
    trained = jax.device_get(state.batch_stats)
    state = engine.settle(state)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.batch_stats), trained)
    average = jax.device_get(state.average)
    if len(seeds) == 1:
        average = jax.tree.map(lambda leaf: leaf[None], average)
    for k, seed in enumerate(seeds):
        stats = {name: values[k] for name, values in average.batch_stats["BatchNorm_0"].items()}
        order = data.train_order(60, 12, seed)(0, 5)
        kernel, bias = (np.asarray(average.params["Conv_0"][name][k], np.float64) for name in ("kernel", "bias"))
        means, variances = [], []
        for rows in order:
            images = np.asarray(data.normalise(train.images[rows], train.statistics), np.float64)
            padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
            volume = np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias
            means.append(volume.mean((0, 1, 2)))
            variances.append(volume.var((0, 1, 2)))
        np.testing.assert_allclose(stats["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stats["var"], np.mean(variances, 0), rtol=1e-4, atol=1e-5)


def test_a_step_averages_the_variables_it_leaves():
    recipe = make_recipe(model=NormAlone(), averaging=(EMA(0.5),), optimizer=SGD(0.1), epochs=2)
    engine = Engine(recipe, make_dataset(), (0,), make_execution(steps_per_call=1), None, None)
    state, kernels, means = engine.init(), [], []
    for k in range(4):
        state, _ = engine.train_steps(state, k, 1)
        kernels.append(np.asarray(state.params["Conv_0"]["kernel"], np.float64))
        means.append(np.asarray(state.batch_stats["BatchNorm_0"]["mean"], np.float64))
    average = state.average
    np.testing.assert_allclose(average.params["Conv_0"]["kernel"], corrected(np.stack(kernels), 0.5), rtol=1e-5)
    np.testing.assert_allclose(
        average.batch_stats["BatchNorm_0"]["mean"], corrected(np.stack(means), 0.5), rtol=1e-5, atol=1e-7
    )
    assert state.eval_variables["params"] is average.params
    assert state.variables["params"] is state.params
