"""Each mixture of neighbouring images and targets is its definition in float64 for the numbers drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from cnn_jax.augment import Cutmix, Mixup, MixupOrCutmix
from cnn_jax.augment.mixup import draw_weights
from tests import quick
from tests.augmented import batch, contexts, drawn

mixup = quick.jit(lambda alpha, *batch: Mixup(alpha)(*batch))
cutmix = quick.jit(lambda alpha, *batch: Cutmix(alpha)(*batch))


def shares(alpha, rows):
    """What of its own each row keeps, of Beta(alpha, alpha), in float64."""
    u = drawn(lambda key: jax.random.uniform(key, (4,), minval=np.finfo(np.float32).tiny), contexts(rows)).astype(float)
    apart = np.sqrt(1 - u[:, 0] ** (2 / (2 * alpha + 1))) * np.cos(2 * np.pi * u[:, 1])
    return special.expit(np.log1p(apart) - np.log1p(-apart) + np.log(u[:, 2] / u[:, 3]) / alpha)


def test_mixup_is_the_weighted_mean_of_neighbours():
    images, targets = batch(8)
    weights = shares(0.2, 8)
    got = mixup(0.2, contexts(8), images, targets)
    for rows, mixed in zip((images, targets), got, strict=True):
        for i in range(8):
            expected = weights[i] * rows[i].astype(float) + (1 - weights[i]) * rows[(i + 1) % 8].astype(float)
            np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [1e-37, 1e-3, 0.2, 1.0, 30.0, 1e30])
def test_weights_of_mixup_have_the_moments_of_the_beta_distribution(alpha):
    rows = 4000
    targets = jnp.eye(2)[jnp.arange(rows) % 2]
    _, mixed = mixup(alpha, contexts(rows), jnp.zeros((rows, 1, 1, 1)), targets)
    weights = np.sum(np.asarray(mixed) * np.asarray(targets), axis=-1).astype(float)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) <= 4 * (variance / rows) ** 0.5 + 1e-6
    assert abs(weights.var() - variance) <= 0.1 * variance + 1e-6


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 4.0])
def test_weights_are_of_the_beta_distribution(alpha):
    """No further from it than one time in ten thousand, by Kolmogorov and Smirnov's test."""
    weights = np.asarray(draw_weights(jax.random.split(jax.random.key(0), 20_000), alpha), float)
    # Some are so near to 0 or 1 that float32 has them there.
    inner = weights[(weights > 1e-6) & (weights < 1 - 1e-6)]
    whole = stats.beta(alpha, alpha)
    low, high = whole.cdf(1e-6), whole.cdf(1 - 1e-6)
    assert abs(len(inner) / len(weights) - (high - low)) < 0.02
    assert stats.kstest(inner, lambda x: (whole.cdf(x) - low) / (high - low)).pvalue > 1e-4


def test_cutmix_puts_a_rectangle_of_the_neighbour_in_and_mixes_by_area():
    rows = 32
    images, targets = batch(rows)
    kept = shares(0.8, rows)
    centres = drawn(
        lambda key: jax.random.randint(jax.random.fold_in(key, 1), (2,), 0, jnp.array([9, 12])), contexts(rows)
    )
    got, mixed = cutmix(0.8, contexts(rows), images, targets)
    for i in range(rows):
        half = (0.5 * np.sqrt(1 - kept[i]) * np.array([9, 12])).astype(int)
        (top, left), (bottom, right) = np.maximum(centres[i] - half, 0), np.minimum(centres[i] + half, [9, 12])
        expected = images[i].copy()
        expected[top:bottom, left:right] = images[(i + 1) % rows, top:bottom, left:right]
        np.testing.assert_array_equal(got[i], expected)
        own = 1 - (bottom - top) * (right - left) / (9 * 12)
        np.testing.assert_allclose(
            mixed[i], own * targets[i].astype(float) + (1 - own) * targets[(i + 1) % rows], atol=1e-6
        )


def test_either_is_chosen_for_each_row():
    rows = 400
    images, targets = batch(rows)
    given = contexts(rows), images, targets
    cut = drawn(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2), 0.3), contexts(rows))
    assert abs(cut.mean() - 0.3) < 4 * (0.3 * 0.7 / rows) ** 0.5
    both = quick.jit(lambda *batch: MixupOrCutmix(0.4, 0.8, switch=0.3)(*batch))(*given)
    for got, pasted, laid in zip(both, cutmix(0.8, *given), mixup(0.4, *given), strict=True):
        expected = np.where(cut.reshape(-1, *[1] * (got.ndim - 1)), pasted, laid)
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("mixing", [mixup, cutmix], ids=["mixup", "cutmix"])
def test_a_row_does_not_depend_on_the_size_of_the_batch(mixing):
    large = (contexts(8), *batch(8))
    small = jax.tree.map(lambda leaf: leaf[:4], large)
    for of_large, of_small in zip(mixing(0.4, *large), mixing(0.4, *small), strict=True):
        # The last row of a batch is mixed with its first.
        np.testing.assert_allclose(of_large[:3], of_small[:3], atol=1e-5)


def test_alpha_may_be_traced_and_0_mixes_nothing():
    images, targets = batch(8)
    for mixing in (mixup, cutmix):  # it is an argument of both
        for rows, mixed in zip((images, targets), mixing(0.0, contexts(8), images, targets), strict=True):
            np.testing.assert_array_equal(rows, mixed)
