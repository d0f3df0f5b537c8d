"""Chains of augmentations: in which order they are, what each draws from, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.augment import (
    Affine,
    AlternatingFlip,
    Augmentation,
    ColorJitter,
    Context,
    Crop,
    Cutmix,
    Cutout,
    Flip,
    ImageTransform,
    Mixup,
    MixupOrCutmix,
    PixelTransform,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    TrivialAugment,
    apply,
    count_on_pixels,
    needs_targets,
)
from cnn_jax.errors import InputError
from cnn_jax.training import Recipe
from tests import quick
from tests.augmented import ROWS, batch, chain, contexts, drawn, pictures

ALL = (Affine(), Crop(4), Flip(), AlternatingFlip(), Cutout(5), RandomErasing(fill="noise"), Cutmix(), Mixup(0.4))
IMAGES = tuple(transform for transform in ALL if isinstance(transform, ImageTransform))
STILL = (Affine(0.0, 0.0, 0.0, 0.0), Crop(0), Flip(0.0), Cutout(0), RandomErasing(0.0), Cutmix(0.0), Mixup(0.0))
STATISTICS = data.Statistics(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def test_a_row_does_not_depend_on_the_size_of_the_batch():
    large = (contexts(8), batch(8)[0])
    small = jax.tree.map(lambda leaf: leaf[:4], large)
    np.testing.assert_allclose(chain(IMAGES, *large)[0][:4], chain(IMAGES, *small)[0], atol=1e-5)


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
    images, _ = batch(8)
    distorted = quick.jit(jax.vmap(lambda a: apply((Affine(a, a, a, a), Flip(a)), contexts(8), images)[0]))
    still, moved = distorted(jnp.array([0.0, 0.75]))
    np.testing.assert_allclose(still, images, atol=1e-5)
    assert np.abs(moved - images).max() > 0.1


# Before and after normalising.


def normalise(images):
    return data.normalise(images, STATISTICS)


def test_a_chain_is_normalised_after_the_last_that_works_on_pixels():
    images, jitter, context = pictures(), ColorJitter(), contexts(ROWS)
    got, _ = chain((Flip(), jitter, Cutout(4)), context, images, None, normalise)
    second, third = (context.replace(key=jax.vmap(jax.random.fold_in, (0, None))(context.key, k)) for k in (1, 2))
    by_hand = normalise(quick.jit(jax.vmap(jitter))(second, quick.jit(jax.vmap(Flip()))(context, images)))
    np.testing.assert_allclose(got, quick.jit(jax.vmap(Cutout(4)))(third, by_hand), atol=1e-6)
    assert got.dtype == jnp.float32


@pytest.mark.parametrize("move", [Flip(), AlternatingFlip(), Crop(3, "reflect"), Crop(3, "edge")])
def test_what_moves_whole_pixels_does_so_before_normalising_as_after(move):
    images = pictures()
    before, _ = chain((move, RandAugment(0)), contexts(ROWS), images, None, normalise)
    after, _ = chain((move,), contexts(ROWS), images, None, normalise)
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert np.any(np.asarray(after) != normalise(images))


def test_what_is_to_be_normalised_first_is_known():
    assert count_on_pixels(()) == count_on_pixels((Flip(), Crop(2, "edge"), Cutout())) == 0
    assert count_on_pixels((Flip(), RandAugment(), Crop(2, "edge"), RandomErasing(), Mixup())) == 2


@pytest.mark.parametrize(
    ("early", "text"),
    [(Crop(4), "crop"), (Mixup(0.2), "mixup"), (Cutout(8), "cutout")],
)
def test_an_order_that_cannot_be_is_refused_in_one_line(early, text):
    with pytest.raises(InputError) as raised:
        Recipe(augment=(Flip(), early, TrivialAugment()))
    assert str(raised.value) == (
        "augment: expected trivial_augment, which works on pixels before they are normalised, before "
        f"{text}, which works on normalised images; got flip | {text} | trivial_augment"
    )


class Halved(PixelTransform):
    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        return image // 2


def test_a_users_own_takes_part():
    got, _ = chain((Halved(), Cutout(0)), contexts(ROWS), pictures(), None, normalise)
    np.testing.assert_allclose(got, normalise(pictures() // 2), atol=1e-6)


# What cannot be.


@pytest.mark.parametrize("transform", [ColorJitter(), RandAugment(), TrivialAugment()])
def test_images_of_two_channels_are_refused(transform):
    with pytest.raises(InputError, match=r"expected images of 1 channel or 3, got 2; leave it out"):
        transform(jax.tree.map(lambda leaf: leaf[0], contexts(1)), np.zeros((8, 8, 2), np.uint8))


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
        (lambda: MixupOrCutmix(switch=1.5), "mixup_or_cutmix: expected switch to be a number from 0 to 1, got 1.5"),
        (lambda: Mixup(float("inf")), "mixup: expected alpha to be a number >= 0, got inf"),
        (
            lambda: apply((Crop(10),), contexts(2), batch(2)[0]),
            "crop: expected padding to be at most the smaller side of the images, 9, got 10",
        ),
        (lambda: RandAugment(-1), "rand_augment: expected operations to be a whole number >= 0, got -1"),
        (lambda: RandAugment(magnitude=31.0), "rand_augment: expected magnitude to be a number from 0 to 30, got 31.0"),
        (lambda: ColorJitter(contrast=-0.1), "color_jitter: expected contrast to be a number >= 0, got -0.1"),
        (lambda: RandomResizedCrop(aspect=0.9), "random_resized_crop: expected aspect to be a number >= 1, got 0.9"),
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
