"""Batches: every epoch a permutation, the same everywhere and after every restart; evaluation once each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.data.batching import apportion
from cnn_jax.errors import InputError

SEEDS = st.integers(0, 2**64 - 1)
SIZES = st.integers(1, 40)


def numbered(n: int, classes: int = 3) -> data.Dataset:
    """n images that spell their own index, with labels index % classes."""
    index = np.arange(n)
    images = np.stack([index // 256, index % 256], axis=1).astype(np.uint8).reshape(n, 1, 2, 1)
    return data.Dataset(
        name="numbered",
        version="1.0.0",
        split="train",
        images=images,
        labels=(index % classes).astype(np.int32),
        class_names=tuple("abcdefghij"[:classes]),
        statistics=data.Statistics(mean=(0.5,), std=(0.25,)),
        fingerprint="",
    )


def indices_of(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]


@settings(deadline=None, max_examples=60)
@given(SEEDS, SIZES, st.integers(1, 60))
def test_every_epoch_is_a_permutation(seed, n, batch_size):
    epochs = 3
    steps = -(-epochs * n // batch_size)
    stream = np.concatenate([data.batch_indices(seed, n, batch_size, step) for step in range(steps)])
    assert len(stream) == steps * batch_size
    for epoch in range(epochs):
        np.testing.assert_array_equal(np.sort(stream[epoch * n : (epoch + 1) * n]), np.arange(n))


@settings(deadline=None, max_examples=60)
@given(SEEDS, SIZES, st.integers(1, 60), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=4))
def test_any_stretch_of_the_order_is_its_batches(seed, n, batch_size, stretches):
    """Wherever a run goes on, and however many steps it takes at a time."""
    order = data.train_order(n, batch_size, seed)
    for step, steps in stretches:
        found = order(step, steps)
        assert (found.shape, found.dtype) == ((steps, batch_size), np.int64)
        for k, batch in enumerate(found, step):
            np.testing.assert_array_equal(batch, data.batch_indices(seed, n, batch_size, k))


def test_batches_do_not_depend_on_batch_size():
    streams = [
        np.concatenate([data.batch_indices(7, 100, size, step) for step in range(600 // size)]) for size in (1, 20, 300)
    ]
    np.testing.assert_array_equal(streams[0], streams[1])
    np.testing.assert_array_equal(streams[0], streams[2])


def test_seeds_and_epochs_differ():
    orders = [tuple(data.batch_indices(seed, 50, 50, epoch)) for seed in (0, 1, 2, 2**63) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


def philox(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10 from its definition (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3
    and table 2), counting from 1 as NumPy does; the first `count` outputs."""
    mask, outputs = 2**64 - 1, []
    for counter in itertools.count(1):
        x, (k0, k1) = [counter, 0, 0, 0], key
        for _ in range(10):
            high0, low0 = divmod(0xD2E7470EE14C6C93 * x[0], 2**64)
            high1, low1 = divmod(0xCA5A826395121157 * x[2], 2**64)
            x = [high1 ^ x[1] ^ k0, low1, high0 ^ x[3] ^ k1, low0]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        outputs += x
        if len(outputs) >= count:
            return outputs[:count]
    raise AssertionError


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 2), (2**64 - 1, 1)])
def test_order_is_that_of_philox(seed, epoch):
    """What makes a batch the same on every machine and with every NumPy: the order is that of published numbers."""
    numbers = philox((seed, epoch), 30)
    expected = sorted(range(30), key=numbers.__getitem__)
    np.testing.assert_array_equal(data.batch_indices(seed, 30, 30, epoch), expected)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(1, 60))
def test_evaluation_counts_each_example_once(n, batch_size):
    dataset = numbered(n)
    batches = list(data.eval_batches(dataset, batch_size))
    assert len(batches) == -(-n // batch_size)
    seen = []
    for batch in batches:
        assert batch["image"].shape == (batch_size, 1, 2, 1)
        assert (batch["image"].dtype, batch["label"].dtype, batch["mask"].dtype) == (np.uint8, np.int32, np.float32)
        real = batch["mask"] == 1
        assert set(batch["mask"]) <= {0, 1}
        seen += indices_of(batch["image"][real]).tolist()
        np.testing.assert_array_equal(batch["label"][real], indices_of(batch["image"][real]) % 3)
        assert not batch["image"][~real].any()
        assert not batch["label"][~real].any()
    assert seen == list(range(n))


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(2, 200), st.integers(1, 5), st.data())
def test_holdout_is_a_stratified_partition(seed, n, classes, draw):
    dataset = numbered(n, classes)
    count = draw.draw(st.integers(1, n - 1))
    rest, held_out = data.holdout(dataset, count, seed)
    assert (rest.split, held_out.split) == ("train", "validation")
    parts = [indices_of(part.images) for part in (rest, held_out)]
    assert len(parts[1]) == count
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    for part, indices in zip((rest, held_out), parts, strict=True):
        np.testing.assert_array_equal(part.labels, indices % classes)
        assert (np.diff(indices) > 0).all()
    share = np.bincount(dataset.labels, minlength=classes) * count / n
    assert np.abs(np.bincount(held_out.labels, minlength=classes) - share).max() < 1
    again = data.holdout(dataset, count, seed)[1]
    np.testing.assert_array_equal(again.images, held_out.images)


def test_holdout_amounts():
    dataset = numbered(200)
    amounts = {0.25: 50, 0.001: 1, 0.9999: 199, 5: 5, 199: 199, 20.0: 20}
    for validation, count in amounts.items():
        rest, held_out = data.holdout(dataset, validation, seed=0)
        assert (len(rest), len(held_out)) == (200 - count, count)
    chosen = {tuple(indices_of(data.holdout(dataset, 50, seed)[1].images)) for seed in range(5)}
    assert len(chosen) == 5


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.data())
def test_apportion(counts, draw):
    total = draw.draw(st.integers(0, sum(counts)))
    shares = apportion(np.array(counts), total)
    assert shares.sum() == total
    assert (shares <= counts).all()
    assert np.abs(shares - np.array(counts) * total / sum(counts)).max() < 1


@pytest.mark.parametrize("validation", [0, 1.5, -1, 10, 11, 1e300, 0.0, float("nan"), float("inf"), -0.5, 10.0])
def test_bad_holdouts(validation):
    with pytest.raises(InputError, match=r"from 1 to 9") as caught:
        data.holdout(numbered(10), validation, seed=0)
    assert repr(validation) in str(caught.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda d: data.train_order(len(d), 0, 0), "batch size"),
        (lambda d: data.train_order(len(d), -3, 0), "batch size"),
        (lambda d: data.train_order(len(d), 4, -1), "seed"),
        (lambda d: data.train_order(len(d), 4, 2**64), "seed"),
        (lambda d: data.train_order(len(d), 4, 0)(-1, 1), "step"),
        (lambda d: data.eval_batches(d, 0), "batch size"),
        (lambda d: data.holdout(d, 2, -1), "seed"),
        (lambda d: data.batch_indices(0, 0, 1, 0), "at least one example"),
    ],
)
def test_bad_values_are_refused_at_the_call(call, said):
    with pytest.raises(InputError, match=said) as caught:
        call(numbered(10))
    assert "\n" not in str(caught.value)
