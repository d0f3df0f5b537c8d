"""Each transform is its definition in float64 for the numbers drawn, row by row, alone and in a chain."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import (
    Affine,
    AlternatingFlip,
    Augmentation,
    Context,
    Crop,
    Cutmix,
    Cutout,
    Flip,
    ImageTransform,
    Mixup,
    RandomErasing,
    affine,
    apply,
    needs_targets,
)
from cnn_jax.errors import InputError
from tests import quick

ALL = (Affine(), Crop(4), Flip(), AlternatingFlip(), Cutout(5), RandomErasing(fill="noise"), Cutmix(), Mixup(0.4))
IMAGES = tuple(transform for transform in ALL if isinstance(transform, ImageTransform))
STILL = (Affine(0.0, 0.0, 0.0, 0.0), Crop(0), Flip(0.0), Cutout(0), RandomErasing(0.0), Cutmix(0.0), Mixup(0.0))
chain = quick.jit(apply, static_argnums=0)
mixup = quick.jit(lambda alpha, *batch: Mixup(alpha)(*batch))
cutmix = quick.jit(lambda alpha, *batch: Cutmix(alpha)(*batch))


def contexts(rows, seed=0):
    return Context(
        key=jax.random.split(jax.random.key(seed), rows),
        run=jnp.broadcast_to(jax.random.key(99), rows),
        index=np.arange(rows, dtype=np.int32) * 7,
        epoch=np.full(rows, 3, np.int32),
        progress=np.full(rows, 0.25, np.float32),
    )


def batch(rows, height=9, width=12, classes=5):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(rows, height, width, 2)).astype(np.float32)
    return images, np.eye(classes, dtype=np.float32)[rng.integers(classes, size=rows)]


def drawn(draw, context):
    """What a documented draw gives for each row's key, (N, ...)."""
    return np.asarray(quick.jit(jax.vmap(draw))(context.key))


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


def rectangle(key, sides, smallest, largest, aspect):
    """`draw_rectangle` as its docstring says, in float64: (top, left, height, width), or None where none fits."""
    sizes, aspects, places = jax.random.split(key, 3)
    bound = float(np.log(aspect))
    areas = np.prod(sides) * np.float64(jax.random.uniform(sizes, (10,), minval=smallest, maxval=largest))
    ratios = np.exp(np.float64(jax.random.uniform(aspects, (10,), minval=-bound, maxval=bound)))
    for area, ratio in zip(areas, ratios, strict=True):
        extents = np.round([np.sqrt(area * ratio), np.sqrt(area / ratio)]).astype(int)
        if np.all(extents >= 1) and np.all(extents <= sides):
            place = jax.random.randint(places, (2,), 0, jnp.array(sides) - extents + 1)
            return (*np.asarray(place), *extents)
    return None


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


def test_every_pixel_is_a_centre_equally_often():
    rows = 5000
    holed, _ = chain((Cutout(1),), contexts(rows), jnp.ones((rows, 4, 6, 1)))
    holes = np.sum(1 - np.asarray(holed), axis=0).ravel()
    assert holes.sum() == rows
    assert np.sum((holes - rows / 24) ** 2) / (rows / 24) < 51.2  # one in 1,500, 23 degrees of freedom


def test_mixup_is_the_weighted_mean_of_neighbours():
    images, targets = batch(8)
    weights = drawn(lambda key: jax.random.beta(key, 0.2, 0.2), contexts(8)).astype(float)
    got = mixup(0.2, contexts(8), images, targets)
    for rows, mixed in zip((images, targets), got, strict=True):
        for i in range(8):
            expected = weights[i] * rows[i].astype(float) + (1 - weights[i]) * rows[(i + 1) % 8].astype(float)
            np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_cutmix_puts_a_rectangle_of_the_neighbour_in_and_mixes_by_area():
    rows = 32
    images, targets = batch(rows)
    kept = drawn(lambda key: jax.random.beta(key, 0.8, 0.8), contexts(rows)).astype(float)
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


@pytest.mark.parametrize("alpha", [1e-37, 1e-3, 0.2, 1.0, 30.0, 1e30])
def test_weights_of_mixup_have_the_moments_of_the_beta_distribution(alpha):
    rows = 4000
    targets = jnp.eye(2)[jnp.arange(rows) % 2]
    _, mixed = mixup(alpha, contexts(rows), jnp.zeros((rows, 1, 1, 1)), targets)
    weights = np.sum(np.asarray(mixed) * np.asarray(targets), axis=-1).astype(float)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) <= 4 * (variance / rows) ** 0.5 + 1e-6
    assert abs(weights.var() - variance) <= 0.1 * variance + 1e-6


def test_affine_gives_the_bits_of_the_function_mapped_over_the_keys():
    images, _ = batch(8)
    asked = Affine(translation=1.5, scale=0.2, squeeze=0.05, shear=0.1)
    by_function = quick.jit(
        jax.vmap(lambda key, image: affine(key, image, translation=1.5, scale=0.2, squeeze=0.05, shear=0.1))
    )
    got, targets = chain((asked,), contexts(8), images)
    np.testing.assert_array_equal(got, by_function(contexts(8).key, images))
    assert targets is None


@pytest.mark.parametrize(
    ("transform", "alone"),
    # The last row of a batch is mixed with its first.
    [
        (lambda *rows: chain(IMAGES, *rows), 4),
        (lambda *rows: mixup(0.4, *rows), 3),
        (lambda *rows: cutmix(0.4, *rows), 3),
    ],
    ids=["images", "mixup", "cutmix"],
)
def test_a_row_does_not_depend_on_the_size_of_the_batch(transform, alone):
    large = (contexts(8), *batch(8))
    small = jax.tree.map(lambda leaf: leaf[:4], large)
    for of_large, of_small in zip(transform(*large), transform(*small), strict=True):
        np.testing.assert_allclose(of_large[:alone], of_small[:alone], atol=1e-5)


@pytest.mark.parametrize("transforms", [IMAGES, ALL], ids=["images", "batch"])
def test_batches_keep_their_shapes_and_targets_stay_distributions(transforms):
    assert needs_targets(transforms) == (transforms == ALL)
    images, targets = batch(8)
    got, mixed = chain(transforms, contexts(8), images, targets)
    assert (got.shape, got.dtype, mixed.shape, mixed.dtype) == (images.shape, np.float32, targets.shape, np.float32)
    assert np.abs(got - images).max() > 0.01
    np.testing.assert_allclose(mixed.sum(-1), 1.0, atol=1e-6)
    assert mixed.min() >= 0


@pytest.mark.parametrize("transforms", [(), STILL[1:], STILL], ids=["empty", "exact", "interpolated"])
def test_nothing_asked_for_changes_nothing(transforms):
    images, targets = batch(8)
    got, kept = chain(transforms, contexts(8), images, targets)
    np.testing.assert_allclose(got, images, rtol=0, atol=1e-5 if transforms == STILL else 0)
    np.testing.assert_array_equal(kept, targets)


@dataclass(frozen=True)
class OddFlip(ImageTransform):
    """Mirrors an image in every other epoch, half of the images in each: what a user would write."""

    def __call__(self, context, image):
        return jnp.where((context.epoch + context.index) % 2, image[:, ::-1], image)


@dataclass(frozen=True)
class Noise(ImageTransform):
    def __call__(self, context, image):
        return image + jax.random.normal(context.key, image.shape)


def test_a_users_own_transform_takes_part_in_a_chain():
    images, targets = batch(8)
    mine = OddFlip() | Crop(0) | Mixup(0.0)
    assert mine == (OddFlip(), Crop(0), Mixup(0.0))
    got, _ = chain(mine, contexts(8), images, targets)  # epoch 3, indices 0, 7, 14, ...
    np.testing.assert_array_equal(got[::2], images[::2, :, ::-1])
    np.testing.assert_array_equal(got[1::2], images[1::2])


def test_each_transform_of_a_chain_draws_from_its_own_key():
    def noise(key):
        return jax.random.normal(key, (4, 4, 1)) + jax.random.normal(jax.random.fold_in(key, 2), (4, 4, 1))

    got, _ = chain((Noise(), Flip(0.0), Noise()), contexts(3), jnp.zeros((3, 4, 4, 1)))
    np.testing.assert_allclose(got, drawn(noise, contexts(3)), atol=1e-6)


def test_magnitudes_may_be_traced():
    images, targets = batch(8)
    distorted = quick.jit(jax.vmap(lambda a: apply((Affine(a, a, a, a), Flip(a)), contexts(8), images)[0]))
    still, moved = distorted(jnp.array([0.0, 0.75]))
    np.testing.assert_allclose(still, images, atol=1e-5)
    assert np.abs(moved - images).max() > 0.1
    for rows, mixed in zip((images, targets), mixup(0.0, contexts(8), images, targets), strict=True):
        np.testing.assert_array_equal(rows, mixed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(scale=-0.1), "affine: expected scale to be a number >= 0, got -0.1"),
        (lambda: Affine(shear=float("nan")), "affine: expected shear to be a number >= 0, got nan"),
        (lambda: Flip(1.5), "flip: expected probability to be a number from 0 to 1, got 1.5"),
        (lambda: Flip(float("nan")), "flip: expected probability to be a number from 0 to 1, got nan"),
        (lambda: Crop(-1), "crop: expected padding to be a whole number of pixels, 0 or more, got -1"),
        (lambda: Crop(1.5), "crop: expected padding to be a whole number of pixels, 0 or more, got 1.5"),
        (lambda: Crop(mode="wrap"), "crop: expected mode to be one of constant, reflect, edge, got 'wrap'"),
        (lambda: Cutout(True), "cutout: expected size to be a whole number of pixels, 0 or more, got True"),
        (
            lambda: apply((Cutout(10, inside=True),), contexts(2), batch(2)[0]),
            "cutout: expected size to be at most the smaller side of the images, 9, got 10",
        ),
        (lambda: RandomErasing(1.5), "random_erasing: expected probability to be a number from 0 to 1, got 1.5"),
        (lambda: RandomErasing(smallest=0.0), "expected smallest to be a share above 0, at most 1, got 0.0"),
        (lambda: RandomErasing(smallest=0.5), "expected largest to be at least smallest, 0.5, got 0.33"),
        (lambda: RandomErasing(aspect=0.5), "random_erasing: expected aspect to be a number >= 1, got 0.5"),
        (lambda: RandomErasing(fill="grey"), "expected fill to be one of zeros, noise, got 'grey'"),
        (lambda: Cutmix(-1.0), "cutmix: expected alpha to be a number >= 0, got -1.0"),
        (lambda: Mixup(float("inf")), "mixup: expected alpha to be a number >= 0, got inf"),
        (
            lambda: apply((Crop(10),), contexts(2), batch(2)[0]),
            "crop: expected padding to be at most the smaller side of the images, 9, got 10",
        ),
        (
            lambda: apply((Augmentation(),), contexts(2), batch(2)[0]),
            "expected parts that are ImageTransform or BatchTransform, got",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, message):
    with pytest.raises(InputError) as raised:
        make()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
