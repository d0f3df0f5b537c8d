"""Distortions move pictures by what they say: against SciPy's affine transformation and worked cases."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import augment

STILL = {"translation": 0.0, "scale": 0.0, "squeeze": 0.0, "shear": 0.0}
distort = jax.jit(augment.affine)
warp = jax.jit(augment.warp)


def blob(height=21, width=21, channels=1):
    """A smooth spot a little off the centre, nothing at the edge."""
    rows, columns = np.mgrid[:height, :width]
    spot = np.exp(-((rows - height * 0.45) ** 2 + (columns - width * 0.55) ** 2) / 8.0)
    return np.stack([spot * (c + 1) for c in range(channels)], axis=-1).astype(np.float32)


def centre_of_mass(image):
    return np.array(scipy.ndimage.center_of_mass(image.sum(-1)))


def spread(image):
    """Covariance of the spot's pixels, (row, column)."""
    weights = image.sum(-1) / image.sum()
    grid = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], -1) - centre_of_mass(image)
    return np.einsum("hw,hwi,hwj->ij", weights, grid, grid)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-0.25, 0.25, width=32, allow_subnormal=False), min_size=4, max_size=4),
    st.tuples(*[st.floats(-3, 3, width=32, allow_subnormal=False)] * 2),
)
def test_warp_is_scipys_affine_transform_about_the_centre(entries, shift):
    image = blob(12, 17, 2)
    matrix = np.eye(2) + np.reshape(entries, (2, 2))
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre - matrix @ centre + np.array(shift)
    expected = [
        scipy.ndimage.affine_transform(image[..., c].astype(float), matrix, offset, order=1, mode="nearest")
        for c in range(2)
    ]
    got = warp(jnp.asarray(image), jnp.asarray(matrix, jnp.float32), jnp.asarray(shift, jnp.float32))
    np.testing.assert_allclose(got, np.stack(expected, -1), atol=1e-4)


def test_nothing_asked_for_changes_nothing():
    np.testing.assert_allclose(distort(jax.random.key(0), blob(), **STILL), blob(), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_translation_moves_by_at_most_so_many_pixels_and_does_nothing_else(seed):
    image = blob()
    moved = np.asarray(distort(jax.random.key(seed), image, **(STILL | {"translation": 3.0})))
    assert 0 < np.abs(centre_of_mass(moved) - centre_of_mass(image)).max() <= 3.0
    np.testing.assert_allclose(moved.sum(), image.sum(), rtol=1e-3)
    np.testing.assert_allclose(spread(moved), spread(image), atol=0.3)  # interpolation blurs by up to 1/4


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        # Areas go with the square of the size; squeezing keeps them; so does shearing.
        ("scale", 1 / 1.4**2, 1.4**2),
        ("squeeze", 1.0, 1.0),
        ("shear", 1.0, 1.0),
    ],
)
def test_each_kind_changes_the_area_as_it_should(kind, low, high):
    image = blob(33, 33)
    ratios = [
        np.asarray(distort(jax.random.key(seed), image, **(STILL | {kind: 0.4}))).sum() / image.sum()
        for seed in range(20)
    ]
    assert low * 0.99 <= min(ratios)
    assert max(ratios) <= high * 1.01
    if kind == "scale":
        assert min(ratios) < 0.8
        assert max(ratios) > 1.25


def test_squeezing_stretches_one_way_and_compresses_the_other():
    image = blob(33, 33)
    for seed in range(6):
        heights, widths = np.diag(spread(distort(jax.random.key(seed), image, **(STILL | {"squeeze": 0.5}))))
        before_h, before_w = np.diag(spread(image))
        assert (heights - before_h) * (widths - before_w) < 0


def test_shearing_is_horizontal():
    image = blob(33, 33)
    slants = []
    for seed in range(6):
        after = spread(distort(jax.random.key(seed), image, **(STILL | {"shear": 0.5})))
        np.testing.assert_allclose(after[0, 0], spread(image)[0, 0], rtol=0.05)
        slants.append(after[0, 1])
    assert min(slants) < -0.3
    assert max(slants) > 0.3


def test_a_batch_is_distorted_by_vmap_each_image_in_its_own_way():
    images = jnp.stack([blob()] * 3)
    keys = jax.random.split(jax.random.key(1), 3)
    asked = STILL | {"translation": 2.0, "shear": 0.2}
    together = jax.jit(jax.vmap(lambda k, i: augment.affine(k, i, **asked)))(keys, images)
    for key, image, got in zip(keys, images, together, strict=True):
        np.testing.assert_allclose(got, distort(key, image, **asked), atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.05


def test_the_background_stays_the_background():
    distorted = distort(jax.random.key(3), blob(33, 33) - 0.1, translation=4.0, scale=0.3, squeeze=0.3, shear=0.3)
    np.testing.assert_allclose(distorted[0], -0.1, atol=1e-4)
