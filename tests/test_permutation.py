"""Above a number of examples their order is a keyed permutation: each example once an epoch, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.data.batching import order_name
from cnn_jax.data.permutation import LARGEST, KeyedPermutation, permutation

SEEDS = st.integers(0, 2**64 - 1)


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(1, 300), st.integers(0, 5))
def test_each_number_comes_once(seed, n, epoch):
    order = permutation(seed, n, epoch, largest=0)
    assert isinstance(order, KeyedPermutation)
    np.testing.assert_array_equal(np.sort(order[:]), np.arange(n))


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(1, 300), st.integers(-400, 400), st.integers(-400, 400))
def test_a_part_is_a_slice_of_the_whole(seed, n, start, end):
    order = permutation(seed, n, 3, largest=0)
    np.testing.assert_array_equal(order[start:end], order[:][start:end])


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 40), st.integers(1, 60))
def test_batches_are_made_of_it(seed, n, batch_size):
    steps = -(-3 * n // batch_size)
    stream = data.train_order(n, batch_size, seed, largest=0)(0, steps).ravel()
    for epoch in range(3):
        np.testing.assert_array_equal(stream[epoch * n : (epoch + 1) * n], permutation(seed, n, epoch, largest=0)[:])


def test_keys_differ():
    orders = [tuple(permutation(seed, 50, epoch, 0)[:]) for seed in (0, 1, 2**63) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


def test_it_is_as_good_as_random():
    """Over many keys every number comes in every place equally often, and neighbours are as often in order as not.

    Chi-square of n x n counts has (n - 1)^2 degrees of freedom: that mean, and twice that variance.
    """
    n, keys = 16, 1600
    orders = np.stack([permutation(seed, n, 0, largest=0)[:] for seed in range(keys)])
    counts = np.zeros((n, n))
    np.add.at(counts, (np.broadcast_to(np.arange(n), orders.shape), orders), 1)
    expected = keys / n
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (n - 1) ** 2) < 5 * np.sqrt(2 * (n - 1) ** 2)
    rising = (orders[:, 1:] > orders[:, :-1]).mean()
    assert abs(rising - 0.5) < 5 * 0.5 / np.sqrt(keys * (n - 1))


def test_large_sets_need_no_array():
    n = 10**12
    found = permutation(1, n, 2)[n - 5 :]
    assert (found.shape, found.dtype) == ((5,), np.int64)
    assert ((found >= 0) & (found < n)).all()
    assert len(set(found.tolist())) == 5


@pytest.mark.parametrize(("n", "name"), [(LARGEST, None), (LARGEST + 1, "feistel-8")])
def test_the_keyed_one_has_a_name(n, name):
    assert order_name(n) == name
