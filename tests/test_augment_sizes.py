"""Augmentations and views that give images of another size, against Pillow; and the two that move with them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import Flip, GrowingCrop, Lighting, RandAugment, RandomResizedCrop, ScaleCrop, policies, resampled
from cnn_jax.data import Statistics
from cnn_jax.errors import InputError
from cnn_jax.models import LeNet5, ResNet18ImageNet
from cnn_jax.training import Centre, Hardest, Mirror, Recipe, make_functions
from cnn_jax.training.views import averaged
from tests import quick
from tests.augmented import ROWS, contexts, pictures, rectangle

SHAPE = (40, 30, 3)


def by_pillow(image, top, left, height, width, size):
    """Pillow rounds after each axis: a level and a half is the most that it can be off."""
    from PIL import Image

    box = (left, top, left + width, top + height)
    return np.asarray(Image.fromarray(image).crop(box).resize((size, size), Image.Resampling.BILINEAR)).astype(float)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (7, 30), (13, 5), (1, 1)])
@pytest.mark.parametrize("size", [1, 8, 17, 64])
def test_resampling_is_pillows(height, width, size):
    image = pictures(2, SHAPE)[1]
    top, left = 40 - height, (30 - width) // 2
    found = quick.jit(resampled, static_argnums=3)(image.astype(np.float32), (top, left), (height, width), size)
    assert found.shape == (size, size, 3)
    assert np.abs(found - by_pillow(image, top, left, height, width, size)).max() < 1.5


@pytest.mark.parametrize("size", [9, 48])
def test_random_resized_crop_to_a_size(size):
    transform, images = RandomResizedCrop(0.1, 0.8, 2.0, size), pictures(ROWS, SHAPE)
    found = quick.jit(jax.vmap(transform))(contexts(ROWS), images)
    assert (found.shape, found.dtype) == ((ROWS, size, size, 3), np.uint8)
    for key, image, ours in zip(contexts(ROWS).key, images, found, strict=True):
        box = rectangle(key, SHAPE[:2], 0.1, 0.8, 2.0)
        assert np.abs(ours - by_pillow(image, *box, size)).max() < 2


def test_scale_crop_is_a_square_of_the_scaled_image():
    images = pictures(ROWS, SHAPE)
    found = quick.jit(jax.vmap(ScaleCrop(10, 12, 25)))(contexts(ROWS), images)
    for key, image, ours in zip(contexts(ROWS).key, images, found, strict=True):
        lengths, places = jax.random.split(key)
        side = round(30 * 10 / float(jax.random.uniform(lengths, (), minval=12, maxval=25)))
        top, left = map(int, jax.random.randint(places, (2,), 0, jnp.array([40, 30]) - side + 1))
        assert 12 <= side <= 25
        assert np.abs(ours - by_pillow(image, top, left, side, side, 10)).max() < 2


def test_the_centre_is_cut_out_and_brought_to_its_size():
    images = pictures(3, SHAPE)
    [(weight, found)] = Centre(24, 0.8)(images.astype(np.float32))  # 24 of 30 pixels: nothing is resized
    assert weight == 1
    np.testing.assert_array_equal(found, images[:, 8:32, 3:27])
    [(_, found)] = Centre(12, 0.8)(images.astype(np.float32))
    for image, ours in zip(images, found, strict=True):
        assert np.abs(ours - by_pillow(image, 8, 3, 24, 24, 12)).max() < 1.5


def test_a_growing_crop_is_one_size_after_another():
    crop = GrowingCrop((8, 12, 16), (0.25, 0.5), 0.1, 0.9, 2.0)
    sizes = {0.0: 8, 0.24: 8, 0.25: 12, 0.49: 12, 0.5: 16, 1.0: 16}
    assert {share: crop.after(share) for share in sizes} == {
        share: RandomResizedCrop(0.1, 0.9, 2.0, size) for share, size in sizes.items()
    }
    recipe = Recipe(model=ResNet18ImageNet(), augment=(crop, Flip()), epochs=8, batch_size=10)
    assert recipe.stages(33) == {0: 0.0, 7: 0.25, 14: 0.5}  # 66 and 132 images, the last batch with some of the next
    assert recipe.stages(1) == {0: 0.0}  # all in one step
    assert recipe.at_step(13, 33).augment == (crop.after(0.25), Flip())
    assert recipe.trained_shape(SHAPE) == (16, 16, 3)
    plain = Recipe(augment=(Flip(),))
    assert plain.after(0.5) is plain
    assert plain.stages(100) == {0: 0.0}


def test_lighting_adds_the_same_to_all_pixels():
    images = np.full((ROWS, 5, 4, 3), 128, np.uint8)
    found = quick.jit(jax.vmap(Lighting(0.5)))(contexts(ROWS), images)
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    for key, ours in zip(contexts(ROWS).key, np.asarray(found), strict=True):
        added = 255 * vectors @ (values * 0.5 * np.float64(jax.random.normal(key, (3,))))
        assert np.abs(ours - np.clip(128 + added, 0, 255)).max() <= 0.51
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-4)
    with pytest.raises(InputError, match=r"^lighting: expected images of 3 channels, got 1; leave it out$"):
        Lighting()(None, np.zeros((4, 4, 1), np.uint8))


def test_rand_augment_with_a_spread_and_a_chance():
    """Each operation is left out or has a strength of its own, cut off at 0 and 30."""
    transform, images = RandAugment(2, 20.0, 15.0, 0.6), pictures(ROWS, SHAPE)
    found = np.asarray(quick.jit(jax.vmap(transform))(contexts(ROWS), images))
    strongest = policies.Strongest(0.3, 150 / 331 * 40, 150 / 331 * 30, 30.0, 0.9, 4)
    operate = quick.jit(policies.operate, static_argnums=4)
    off, left_out = [], 0
    for key, image, ours in zip(contexts(ROWS).key, images, found, strict=True):
        kinds, signs = jax.random.split(key)
        kinds, signs = jax.random.randint(kinds, (2,), 0, 14), jax.random.bernoulli(signs, 0.5, (2,))
        strengths = 20 + 15 * np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (2,)))
        kept = jax.random.bernoulli(jax.random.fold_in(key, 2), 0.6, (2,))
        for n in np.flatnonzero(kept):
            image = operate(image, kinds[n], np.clip(strengths[n], 0, 30).astype(np.float32), signs[n], strongest)
        left_out += 2 - int(kept.sum())
        off.append(np.mean(ours != image))
    assert 0 < left_out < 2 * ROWS
    assert np.mean(np.array(off) < 0.02) > 0.9  # other code may round a product otherwise


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop(size=0), "random_resized_crop: expected size to be a whole number of pixels"),
        (lambda: GrowingCrop(()), "growing_crop: expected sizes to be whole numbers of pixels"),
        (lambda: GrowingCrop((8, 9), ()), "growing_crop: expected at to be 1 shares, one fewer than sizes"),
        (lambda: GrowingCrop((8, 9), (1.0,)), "growing_crop: expected at to be ascending shares"),
        (lambda: ScaleCrop(224, 200), "scale_crop: expected smallest to be pixels, at least size, 224, got 200"),
        (lambda: ScaleCrop(224, 256, 255), "scale_crop: expected largest to be pixels, at least smallest, 256"),
        (lambda: Centre(0), "centre: expected size to be a whole number >= 1"),
        (lambda: Centre(share=1.1), "centre: expected share to be a share above 0, at most 1, got 1.1"),
        (lambda: RandAugment(chance=1.5), "rand_augment: expected chance to be a number from 0 to 1, got 1.5"),
        (
            lambda: Recipe(augment=(GrowingCrop(),), selection=(Hardest("lenet5()", 4),)),
            "augment: expected images of one size with a selection",
        ),
    ],
)
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(InputError, match=f"^{message}"):
        make()


def test_a_centre_alone_is_what_is_scored():
    images = pictures(3, SHAPE).astype(np.float32)
    [(_, expected)] = Centre(24, 0.8)(images)
    np.testing.assert_array_equal(averaged(lambda x: x.mean((1, 2)), (Centre(24, 0.8),), images), expected.mean((1, 2)))


def test_views_after_the_centre_see_its_square():
    [(_, square)] = Centre(10)(jnp.ones((2, 40, 30, 1)))
    assert [view.shape for _, view in Mirror()(square)] == [(2, 10, 10, 1)] * 2


def test_a_model_for_one_size_refuses_another():
    recipe = Recipe(model=LeNet5(), augment=(RandomResizedCrop(size=20),), test_time=(Centre(28),))
    functions = make_functions(recipe, Statistics(mean=(0.5,), std=(0.2,)), (32, 32, 1), 10, steps=1)
    state = jax.eval_shape(functions.init, jax.random.key(0))
    row = np.zeros(8, np.int32)
    batch = {"image": np.zeros((8, 32, 32, 1), np.uint8), "label": row, "index": row, "epoch": row}
    expected = "expected images that stay 32x32 for LeNet5, got {0}x{0}; take a model for images of any size"
    with pytest.raises(InputError, match=f"^augment: {expected.format(20)}"):
        jax.eval_shape(functions.train_step, state, batch)
    with pytest.raises(InputError, match=f"^test_time: {expected.format(28)}"):
        jax.eval_shape(functions.eval_step, state.eval_variables, {**batch, "mask": np.ones(8)})
    # And before anything is made of them, also where they grow.
    with pytest.raises(InputError, match=f"^test_time: {expected.format(28)}"):
        dataclasses.replace(recipe, augment=()).check_sizes((32, 32, 1), 100)
    grown = dataclasses.replace(recipe, augment=(GrowingCrop((32, 48), at=(0.5,)),), test_time=(), epochs=2)
    with pytest.raises(InputError, match=f"^augment: {expected.format(48)}"):
        grown.check_sizes((32, 32, 1), 100)
    dataclasses.replace(grown, augment=()).check_sizes((32, 32, 1), 100)
