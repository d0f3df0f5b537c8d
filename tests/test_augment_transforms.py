"""Each transform of single images is its definition in float64 for the numbers drawn, row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import Affine, AlternatingFlip, Crop, Cutout, Flip, RandomErasing, affine
from tests import quick
from tests.augmented import batch, chain, contexts, drawn, rectangle


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_is_the_mirror_image_or_the_image(probability):
    images, _ = batch(16)
    flipped = drawn(lambda key: jax.random.bernoulli(key, probability), contexts(16))
    got, _ = chain((Flip(probability),), contexts(16), images)
    expected = [np.fliplr(image) if flip else image for image, flip in zip(images, flipped, strict=True)]
    np.testing.assert_array_equal(got, expected)


def test_about_half_of_the_images_are_flipped():
    images = jnp.broadcast_to(jnp.arange(2.0)[None, None, :, None], (4000, 1, 2, 1))
    flipped = np.mean(np.asarray(chain((Flip(),), contexts(4000), images)[0])[:, 0, 0, 0])
    assert abs(flipped - 0.5) < 4 * 0.5 / 4000**0.5


def test_alternating_flip_shows_each_image_both_ways_in_each_pair_of_epochs():
    rows = 400
    images, _ = batch(rows, 2, 3)
    first, second, third = (
        np.asarray(chain((AlternatingFlip(),), contexts(rows, seed).replace(epoch=np.full(rows, epoch)), images)[0])
        for seed, epoch in enumerate((4, 5, 6))  # the steps' keys differ, the run's does not
    )
    mirrored = drawn(lambda index: jax.random.bernoulli(jax.random.fold_in(jax.random.key(99), index)),
                     contexts(rows).replace(key=contexts(rows).index))  # fmt: skip
    np.testing.assert_array_equal(first, np.where(mirrored[:, None, None, None], images[:, :, ::-1], images))
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    np.testing.assert_array_equal(third, first)
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / rows**0.5


def test_another_run_begins_with_another_half():
    images, _ = batch(64, 1, 2)
    halves = []
    for seed in range(2):
        context = contexts(64).replace(run=jnp.broadcast_to(jax.random.key(seed), 64))
        halves.append(np.asarray(chain((AlternatingFlip(),), context, images)[0]))
    assert 0.2 < np.mean(halves[0] != halves[1]) < 0.8


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("padding", [1, 4])
def test_crop_is_a_window_of_the_padded_image(mode, padding):
    images, _ = batch(16)
    starts = drawn(lambda key: jax.random.randint(key, (2,), 0, 2 * padding + 1), contexts(16))
    got, _ = chain((Crop(padding, mode),), contexts(16), images)
    for image, (row, column), window in zip(images, starts, got, strict=True):
        padded = np.pad(image.astype(float), [(padding, padding)] * 2 + [(0, 0)], mode=mode)
        np.testing.assert_array_equal(window, padded[row : row + 9, column : column + 12])


def test_crops_begin_everywhere_equally_often():
    rows, padding = 5000, 2
    images = np.broadcast_to(np.arange(25.0, dtype=np.float32).reshape(1, 5, 5, 1), (rows, 5, 5, 1))
    centres = np.asarray(chain((Crop(padding),), contexts(rows), images)[0])[:, 2, 2, 0].astype(int)
    counts = np.bincount(centres, minlength=25)  # the image itself has each place's own number
    chi_squared = np.sum((counts - rows / 25) ** 2) / (rows / 25)
    assert chi_squared < 52.6  # exceeded by one in 1,500 of chi-squared's with 24 degrees of freedom


@pytest.mark.parametrize("size", [1, 4, 5, 40])
def test_cutout_is_a_square_of_zeros_clipped_at_the_edge(size):
    images, _ = batch(16)
    centres = drawn(lambda key: jax.random.randint(key, (2,), 0, jnp.array([9, 12])), contexts(16))
    got, _ = chain((Cutout(size),), contexts(16), images)
    for image, centre, holed in zip(images, centres, got, strict=True):
        top, left = np.maximum(centre - size // 2, 0)
        bottom, right = centre - size // 2 + size
        expected = image.astype(float)
        expected[top:bottom, left:right] = 0
        np.testing.assert_array_equal(holed, expected)


@pytest.mark.parametrize("size", [1, 4, 9])
def test_cutout_inside_is_a_whole_square(size):
    images, _ = batch(16)
    starts = drawn(lambda key: jax.random.randint(key, (2,), 0, jnp.array([10 - size, 13 - size])), contexts(16))
    got, _ = chain((Cutout(size, inside=True),), contexts(16), images)
    for image, (top, left), holed in zip(images, starts, got, strict=True):
        expected = image.copy()
        expected[top : top + size, left : left + size] = 0
        np.testing.assert_array_equal(holed, expected)
        assert np.sum(holed == 0) == 2 * size**2


def test_every_pixel_is_a_centre_equally_often():
    rows = 5000
    holed, _ = chain((Cutout(1),), contexts(rows), jnp.ones((rows, 4, 6, 1)))
    holes = np.sum(1 - np.asarray(holed), axis=0).ravel()
    assert holes.sum() == rows
    assert np.sum((holes - rows / 24) ** 2) / (rows / 24) < 51.2  # one in 1,500, 23 degrees of freedom


@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_random_erasing_replaces_a_rectangle(fill):
    rows, options = 24, {"smallest": 0.1, "largest": 0.9, "aspect": 4.0}
    images, _ = batch(rows)
    got, _ = chain((RandomErasing(0.7, **options, fill=fill),), contexts(rows), images)
    chosen = drawn(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), 0.7), contexts(rows))
    noise = drawn(lambda key: jax.random.normal(jax.random.fold_in(key, 2), (9, 12, 2)), contexts(rows))
    assert 0 < chosen.sum() < rows
    for n, key in enumerate(contexts(rows).key):
        expected, place = images[n].copy(), rectangle(key, (9, 12), *options.values())
        if chosen[n] and place is not None:
            inner = np.s_[place[0] : place[0] + place[2], place[1] : place[1] + place[3]]
            expected[inner] = noise[n][inner] if fill == "noise" else 0
        np.testing.assert_allclose(got[n], expected, atol=1e-6)


def test_affine_gives_the_bits_of_the_function_mapped_over_the_keys():
    images, _ = batch(8)
    asked = Affine(translation=1.5, scale=0.2, squeeze=0.05, shear=0.1)
    by_function = quick.jit(
        jax.vmap(lambda key, image: affine(key, image, translation=1.5, scale=0.2, squeeze=0.05, shear=0.1))
    )
    got, targets = chain((asked,), contexts(8), images)
    np.testing.assert_array_equal(got, by_function(contexts(8).key, images))
    assert targets is None
