"""Bringing images to the model's size, and the statistics they are normalised by."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.data.dataset import compute_statistics
from cnn_jax.errors import InputError

SIDES = st.integers(1, 40)
CHANNELS = st.integers(1, 4)


def bright(height, width, channels, value=200):
    return np.full((2, height, width, channels), value, np.uint8)


@settings(deadline=None, max_examples=150)
@given(SIDES, SIDES, SIDES, SIDES, CHANNELS)
def test_where_the_picture_goes(old_height, old_width, height, width, channels):
    """A plain bright image stays plain and bright whatever filter resizes it, so the result shows where it was put."""
    images = bright(old_height, old_width, channels)
    fitted = data.fit_images(images, (height, width))
    assert fitted.shape == (2, height, width, channels)
    assert fitted.dtype == np.uint8
    sides = (old_height, height), (old_width, width)
    if all(3 * new <= 4 * old and old <= new for old, new in sides):
        inner = old_height, old_width
    else:
        factor = min(new / old for old, new in sides)
        inner = tuple(max(1, round(old * factor)) for old, _ in sides)
        assert inner[0] == height or inner[1] == width
    expected = np.zeros_like(fitted)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    expected[:, top : top + inner[0], left : left + inner[1]] = 200
    np.testing.assert_array_equal(fitted, expected)


def test_same_size_is_the_same_array():
    images = bright(8, 9, 3)
    assert data.fit_images(images, (8, 9)) is images


def test_mnist_to_lenet():
    """28x28 in 32x32: two lines of zeros all round, every pixel kept (LeCun et al. 1998, section II.B)."""
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    fitted = data.fit_images(images, (32, 32))
    for n, y, x in np.ndindex(5, 32, 32):
        inside = 2 <= y < 30 and 2 <= x < 30
        assert fitted[n, y, x, 0] == (images[n, y - 2, x - 2, 0] if inside else 0)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_resizing_is_smooth_and_true(channels):
    """A gentle slope is still that slope when enlarged: bicubic interpolation keeps straight lines, away from edges."""
    slope = (20 + 20 * np.arange(10, dtype=np.float64))[None, None, :, None]
    images = np.broadcast_to(slope, (1, 10, 10, channels)).astype(np.uint8)
    fitted = data.fit_images(images, (40, 40)).astype(float)
    expected = 20 + 20 * ((np.arange(40) + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(fitted[0, :, 8:-8], np.broadcast_to(expected[8:-8, None], (40, 24, channels)), atol=1.5)
    # Channels keep to themselves.
    images = np.zeros((1, 8, 8, channels), np.uint8)
    images[..., -1] = 77
    fitted = data.fit_images(images, (32, 32))
    assert (fitted[..., -1] == 77).all()
    assert not fitted[..., :-1].any()


def test_shrinking_averages_rather_than_skips():
    """One-pixel stripes, shrunk eightfold, give grey; picking pixels would give black or white."""
    images = np.zeros((1, 64, 64, 1), np.uint8)
    images[:, :, ::2] = 255
    fitted = data.fit_images(images, (8, 8))[0, 1:-1, 1:-1]
    assert np.abs(fitted.astype(int) - 127).max() < 20


@pytest.mark.parametrize("images", [np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3, 3, 1), np.float32)])
def test_what_are_no_images(images):
    with pytest.raises(ValueError, match="expected uint8 images") as caught:
        data.fit_images(images, (8, 8))
    assert not isinstance(caught.value, InputError)


def test_bad_target_size():
    with pytest.raises(InputError, match="two positive whole numbers"):
        data.fit_images(bright(4, 4, 1), (0, 4))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 20), SIDES, SIDES, CHANNELS)
def test_statistics_are_those_of_float64(seed, count, height, width, channels):
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    scaled = images.astype(np.float64) / 255
    statistics = compute_statistics(images)
    np.testing.assert_allclose(statistics.mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, scaled.std(axis=(0, 1, 2)), rtol=1e-9, atol=1e-12)


def test_statistics_of_more_images_than_a_chunk():
    images = np.random.default_rng(1).integers(0, 256, (5000, 2, 2, 1), np.uint8)
    images[4096:] //= 2
    np.testing.assert_allclose(compute_statistics(images).mean, images.mean() / 255, rtol=1e-12)


@pytest.mark.parametrize("wrap", [np.asarray, jax.numpy.asarray, jax.jit(lambda x: x)], ids=["numpy", "jax", "jitted"])
def test_normalise(wrap):
    images = np.random.default_rng(2).integers(0, 256, (3, 4, 5, 2), np.uint8)
    statistics = data.Statistics(mean=(0.2, 0.7), std=(0.3, 0.05))
    expected = (images / 255.0 - np.array([0.2, 0.7])) / np.array([0.3, 0.05])
    got = data.normalise(wrap(images), statistics)
    assert type(got) is type(wrap(images))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    traced = jax.jit(lambda x: data.normalise(x, statistics))(images)
    np.testing.assert_allclose(traced, expected, rtol=1e-5, atol=1e-5)


def test_normalised_training_images_have_mean_0_and_std_1():
    train = data.load("digits", "train")
    normalised = data.normalise(train.images, train.statistics).astype(np.float64)
    assert abs(normalised.mean()) < 1e-6
    assert abs(normalised.std() - 1) < 1e-6


def test_constant_channel_does_not_divide_by_zero():
    for value in range(256):
        images = bright(3, 7, 1, value)
        statistics = compute_statistics(images)
        assert statistics.std == (0.0,)
        np.testing.assert_allclose(data.normalise(images, statistics), 0, atol=1e-6)


def test_rescaled_images_run_from_background_to_foreground():
    train = data.rescale(data.load("digits", "train"), background=-0.1, foreground=1.175)
    levels = np.array([0, 51, 255], np.uint8).reshape(1, 3, 1, 1)
    got = data.normalise(levels, train.statistics).ravel()
    np.testing.assert_allclose(got, [-0.1, -0.1 + 0.2 * 1.275, 1.175], atol=1e-6)
    with pytest.raises(ValueError, match="background must be below foreground, got 1 and 0"):
        data.rescale(train, 1, 0)


def test_normalise_says_what_does_not_fit():
    with pytest.raises(ValueError, match="1 channels, images have 3"):
        data.normalise(bright(2, 2, 3), data.Statistics(mean=(0.0,), std=(1.0,)))
