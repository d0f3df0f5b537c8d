"""What works on pixels before they are normalised: each is its definition in float64 for the numbers drawn."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import ColorJitter, RandAugment, RandomResizedCrop, TrivialAugment, operations, policies
from tests import quick
from tests.augmented import ROWS, SHAPE, contexts, pictures, rectangle

operate = quick.jit(policies.operate, static_argnums=4)
WIDE = policies.Strongest(0.99, 5.0, 5.0, 135.0, 0.99, 6)


# The operations, in float64.


def grey(image):
    return np.floor(image.astype(float) @ [0.2989, 0.587, 0.114])[..., None] if image.shape[-1] == 3 else image * 1.0


def blend(image, other, factor):
    return np.clip(factor * image.astype(float) + (1 - factor) * other, 0, 255)


def smooth(image):
    kernel, padded = np.ones((3, 3)) / 13, image.astype(float)
    kernel[1, 1] = 5 / 13
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
    padded[1:-1, 1:-1] = np.round(np.einsum("hwcij,ij->hwc", windows, kernel))
    return padded


def stretched(image):
    low, high = image.min(axis=(0, 1)).astype(float), image.max(axis=(0, 1)).astype(float)
    return np.where(high > low, 255 * (image - low) / np.where(high > low, high - low, 1), image)


def equalized(image):
    result = image.copy()
    for c in range(image.shape[-1]):
        counts = np.bincount(image[..., c].ravel(), minlength=256)
        step = (image[..., c].size - counts[counts > 0][-1]) // 255
        if step:
            table = [min((step // 2 + counts[:level].sum()) // step, 255) for level in range(256)]
            result[..., c] = np.array(table)[image[..., c]]
    return result


def moved(image, matrix, shift):
    """The pixel of each place, and whether that is too close to the edge between two to say which."""
    sides = np.array(image.shape[:2])
    grid = np.stack(np.meshgrid(*[np.arange(side) - (side - 1) / 2 for side in sides], indexing="ij"), axis=-1)
    place = grid @ np.transpose(matrix) + shift + (sides - 1) / 2
    near = np.round(place).astype(int)
    inside = np.all((near >= 0) & (near < sides), axis=-1)
    row, column = np.moveaxis(np.where(inside[..., None], near, 0), -1, 0)
    unclear = np.any(np.abs(place - np.floor(place) - 0.5) < 1e-4, axis=-1)
    return np.where(inside[..., None], image[row, column], 0), unclear


def plane(kind, signed, strongest, shape):
    """Matrix and shift on (row, column) about the centre, of what a move says."""
    shear, angle = signed * strongest.shear, np.deg2rad(signed * strongest.degrees)
    high, wide = shape[:2]
    return {
        "shear_x": (np.array([[1, 0], [shear, 1]]), [0, shear * high / 2]),
        "shear_y": (np.array([[1, shear], [0, 1]]), [shear * wide / 2, 0]),
        "translate_x": (np.eye(2), [0, -np.trunc(signed * strongest.columns)]),
        "translate_y": (np.eye(2), [-np.trunc(signed * strongest.rows), 0]),
        "rotate": (np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]), [0, 0]),
    }[kind]


def assert_rounded_down(got, exact):
    """uint8 values are exact ones rounded down; where float32 cannot say on which side of a whole number, either."""
    exact = np.asarray(exact, float)
    below = np.floor(exact + 1e-4)
    unclear = np.abs(exact - np.round(exact)) < 1e-4
    assert got.dtype == np.uint8
    assert np.all((got == below) | (unclear & (got == below - 1)))


def expected(image, kind, strength, negative, strongest):
    share = strength / 30
    signed = -share if negative else share
    factor, bits = 1 + signed * strongest.factor, 8 - round(share * strongest.bits)
    if kind in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
        return moved(image, *plane(kind, signed, strongest, image.shape))
    changed = {
        "identity": lambda: image,
        "brightness": lambda: blend(image, 0, factor),
        "contrast": lambda: blend(image, grey(image).mean(), factor),
        "saturation": lambda: blend(image, grey(image), factor),
        "sharpness": lambda: blend(image, smooth(image), factor),
        "posterize": lambda: image // 2 ** (8 - bits) * 2.0 ** (8 - bits),
        "solarize": lambda: np.where(image >= 255 * (1 - share), 255.0 - image, image),
        "autocontrast": lambda: stretched(image),
        "equalize": lambda: equalized(image),
    }[kind]()
    unclear = np.abs(image - 255 * (1 - share)) < 1e-3 if kind == "solarize" else np.zeros(image.shape, bool)
    return changed, unclear.any(axis=-1)


def assert_is_operation(got, image, kind, strength, negative, strongest):
    changed, unclear = expected(image, kind, strength, negative, strongest)
    assert unclear.mean() < 0.2
    assert_rounded_down(got[~unclear], changed[~unclear])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", policies.KINDS)
def test_an_operation_is_its_definition(kind, channels):
    large = pictures(3, (40, 30, channels))  # more pixels than levels, which equalising needs
    for image, strength, negative in zip(large, (29, 7, 13), (False, True, False), strict=True):
        got = np.asarray(operate(image, policies.KINDS.index(kind), strength, negative, WIDE))
        assert_is_operation(got, image, kind, strength, negative, WIDE)
        if kind not in ("identity", "autocontrast", "equalize", "saturation") and np.ptp(image[..., 0]):
            assert np.any(got != image)


def test_the_weakest_operation_is_none():
    image = pictures(2)[1]
    for kind in range(len(policies.KINDS) - 2):  # all that have a strength, and identity
        strength = np.asarray(operate(image, kind, 0, False, WIDE))
        if policies.KINDS[kind] != "solarize":  # which then inverts white alone
            np.testing.assert_array_equal(strength, image)


def test_an_image_too_small_to_be_smoothed_stays():
    image = pictures(1, (2, 10, 3))[0]
    np.testing.assert_array_equal(operations.sharpness(image, 0.0), image)


# The transforms.


@functools.cache
def only(transform, shape=SHAPE):
    images = pictures(ROWS, shape)
    return np.asarray(quick.jit(jax.vmap(transform))(contexts(ROWS), images))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_rand_augment_is_operations_one_after_the_other(count):
    got, images, off = only(RandAugment(count, 17.0)), pictures(), []
    strongest = policies.Strongest(0.3, 150 / 331 * 14, 150 / 331 * 10, 30.0, 0.9, 4)
    for n, key in enumerate(contexts(ROWS).key):
        kinds, signs = jax.random.split(key)
        kinds, signs = jax.random.randint(kinds, (count,), 0, 14), jax.random.bernoulli(signs, 0.5, (count,))
        image = images[n]
        for kind, negative in zip(kinds, signs, strict=True):  # each operation has a test of its own
            image = operate(image, kind, 17.0, negative, strongest)
        off.append(np.mean(got[n] != image))
        if count == 1:
            assert_is_operation(got[n], images[n], policies.KINDS[kinds[0]], 17.0, signs[0], strongest)
    # Other code may round a product otherwise, and a later operation stretch that to many levels.
    assert np.mean(np.array(off) < 0.02) > 0.9


def test_trivial_augment_is_one_operation_of_the_wide_space():
    got, images = only(TrivialAugment()), pictures()
    strongest, seen = policies.Strongest(0.99, 32.0, 32.0, 135.0, 0.99, 6), set()
    for n, key in enumerate(contexts(ROWS).key):
        kinds, strengths, signs = jax.random.split(key, 3)
        kind = policies.KINDS[jax.random.randint(kinds, (), 0, 14)]
        strength = int(jax.random.randint(strengths, (), 0, 31))
        assert_is_operation(got[n], images[n], kind, strength, bool(jax.random.bernoulli(signs)), strongest)
        seen.add(kind)
    assert len(seen) > 7


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_blends_in_random_order(channels):
    images, changes = pictures(ROWS, (14, 10, channels)), np.array([0.4, 1.3, 0.7])
    got = only(ColorJitter(0.4, 1.3, 0.7), images.shape[1:])
    orders = list(itertools.permutations(range(3)))
    for n, key in enumerate(contexts(ROWS).key):
        factors, order = jax.random.split(key)
        factors = jax.random.uniform(factors, (3,), minval=np.maximum(1 - changes, 0), maxval=1 + changes)
        image = images[n].astype(float)
        for kind in orders[jax.random.randint(order, (), 0, 6)]:
            other = (0 * image, grey(image).mean(), grey(image))[kind]
            image = np.floor(blend(image, other, float(factors[kind])) + 1e-5)
        assert np.max(np.abs(got[n] - image)) <= 3  # a level lost to rounding, made greater by what follows
        assert np.mean(got[n] != image) < 0.02


def test_random_resized_crop_is_a_part_interpolated():
    got, images = only(RandomResizedCrop(0.1, 0.8, 2.0)), pictures()
    for n, key in enumerate(contexts(ROWS).key):
        top, left, height, width = rectangle(key, SHAPE[:2], 0.1, 0.8, 2.0)
        part = images[n, top : top + height, left : left + width].astype(float)
        for axis, (size, extent) in enumerate(zip(SHAPE, (height, width), strict=False)):
            place = np.clip((np.arange(size) + 0.5) * extent / size - 0.5, 0, extent - 1)
            below = np.minimum(place.astype(int), max(extent - 2, 0))
            share = (place - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            above = np.minimum(below + 1, extent - 1)
            part = np.take(part, below, axis) * (1 - share) + np.take(part, above, axis) * share
        assert np.max(np.abs(got[n] - part)) <= 0.5 + 1e-3


def test_where_no_part_has_that_area_and_aspect_it_is_the_largest_in_the_middle():
    got, images = only(RandomResizedCrop(1.0, 1.0, 1.0), (4, 16, 1)), pictures(ROWS, (4, 16, 1))
    np.testing.assert_array_equal(got[:, :, [0, -1]], images[:, :, [6, 9]])
    np.testing.assert_array_equal(only(RandomResizedCrop(1.0, 1.0, 1.0), (8, 8, 3)), pictures(ROWS, (8, 8, 3)))


# Those that are compiled above.
PIXELS = (RandomResizedCrop(0.1, 0.8, 2.0), ColorJitter(0.4, 1.3, 0.7), RandAugment(1, 17.0), TrivialAugment())


@pytest.mark.parametrize("transform", PIXELS, ids=lambda transform: type(transform).__name__)
def test_a_row_is_the_same_alone_and_at_any_place_of_a_batch(transform):
    together = only(transform)
    assert (together.shape, together.dtype) == ((ROWS, *SHAPE), np.uint8)
    alone = quick.jit(transform)
    for n in (1, ROWS - 1):
        single = np.asarray(alone(jax.tree.map(lambda leaf, n=n: leaf[n], contexts(ROWS)), pictures()[n]))
        off = np.abs(single.astype(int) - together[n])  # other code may round a product otherwise
        assert off.max() <= 2
        assert np.mean(off > 0) < 0.02


def test_strengths_may_be_traced():
    images = pictures()
    changed = quick.jit(
        jax.vmap(lambda a: jax.vmap(ColorJitter(a, a, a))(contexts(ROWS), images).astype(jnp.int32) - images)
    )(jnp.array([0.0, 0.9]))
    assert np.all(changed[0] == 0)
    assert np.abs(changed[1]).max() > 20
    one = quick.jit(lambda m: jax.vmap(RandAugment(1, m))(contexts(ROWS), images))(17.0)
    assert np.mean(one != only(RandAugment(1, 17.0))) < 0.01
    part = quick.jit(lambda *range: jax.vmap(RandomResizedCrop(*range))(contexts(ROWS), images))(0.1, 0.8, 2.0)
    assert np.mean(part != only(RandomResizedCrop(0.1, 0.8, 2.0))) < 0.01
