"""A swept network says of each window what it says of the window cut out, and digits are found where they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import detection, models
from cnn_jax.detection import pages
from cnn_jax.detection.finding import best_on_each
from cnn_jax.errors import InputError
from tests import bars, quick

SIDE = 32


@pytest.fixture(scope="module")
def lenet():
    model = models.build("lenet5", num_classes=11)
    return model, quick.jit(model.init)(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 1)))


def test_the_swept_grid_is_the_network_on_each_window_cut_out(lenet):
    model, variables = lenet
    image = np.random.default_rng(0).normal(size=(1, 48, 61, 1)).astype(np.float32)
    sweep = quick.jit(lambda images: detection.sweep(model, variables, images))
    grid = sweep(image)
    assert grid.shape == (1, 5, 8, 11)
    windows = np.concatenate([image[:, y : y + 32, x : x + 32] for y in range(0, 17, 4) for x in range(0, 29, 4)])
    alone = sweep(windows)  # a picture as large as a window has a grid of one
    assert alone.shape == (40, 1, 1, 11)
    np.testing.assert_allclose(grid.reshape(40, 11), alone.reshape(40, 11), atol=2e-5)


@pytest.mark.parametrize(("name", "stride"), [("lenet5", 4), ("lenet1", 4)])
def test_the_stride_is_how_far_windows_are_apart(name, stride):
    assert detection.stride_of(models.build(name)) == stride


def test_a_network_without_a_grid_is_refused():
    with pytest.raises(InputError, match="MLP: expected a network that gives a grid of scores"):
        detection.stride_of(models.build("mlp"))


def test_a_network_for_images_of_any_size_is_refused():
    with pytest.raises(InputError, match="ResNet50: expected a model whose input_size is a square, got None"):
        detection.stride_of(models.build("resnet50"))


@settings(deadline=None)
@given(st.floats(4, 40), st.floats(1.0, 80.0), st.floats(0, 1))
def test_some_scale_of_a_pyramid_is_right_for_every_length(smallest, ratio, share):
    factors = detection.pyramid(smallest, smallest * ratio, SIDE)
    assert list(factors) == sorted(factors, reverse=True)
    seen = smallest * ratio**share * np.array(factors)
    assert np.abs(np.log2(seen / 20)).min() <= 1 / 6 + 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 400), st.integers(1, 300))
def test_tiles_hold_every_window_of_a_level(height, width):
    level = np.arange(1, height * width + 1, dtype=np.float32).reshape(height, width)
    seen = {}
    for corner, tile in pages._tiles(level, SIDE, 4):
        assert tile.shape == (156, 156)
        for y in range(0, 156 - SIDE + 1, 4):
            for x in range(0, 156 - SIDE + 1, 4):
                centre = corner[0] + y + SIDE // 2, corner[1] + x + SIDE // 2
                assert centre not in seen
                seen[centre] = tile[y + SIDE // 2, x + SIDE // 2]
    # Windows are centred on every fourth pixel; where the level ends, there is nothing.
    for y in range(0, height, 4):
        for x in range(0, width, 4):
            assert seen.pop((y, x)) == level[y, x]
    assert not any(seen.values())


def test_one_box_is_kept_of_those_on_one_digit_whatever_their_classes():
    boxes = jnp.array([[0.0, 0, 20, 10], [1, 0, 20, 11], [0, 40, 20, 50], [60, 60, 80, 70], [0, 0, 20, 10]])
    found = detection.Detections(boxes, jnp.array([1, 7, 1, 2, 1]), jnp.array([0.6, 0.9, 0.3, 0.1, -jnp.inf]))
    boxes, labels, scores = quick.jit(best_on_each)(found, 0.2)
    assert labels[:2].tolist() == [7, 1]
    np.testing.assert_allclose(scores, [0.9, 0.3, -np.inf, -np.inf, -np.inf])
    np.testing.assert_array_equal(boxes[:2], [[1, 0, 20, 11], [0, 40, 20, 50]])


def test_bars_are_found_where_they_are():
    factors = detection.pyramid(15, 30, bars.SIDE)
    find = quick.jit(lambda image: detection.find(bars.BarFinder(), {}, bars.STATISTICS, image, factors))
    boxes, labels, scores = map(np.asarray, find(bars.picture()[..., None]))
    there = scores >= 0.5
    assert sorted(np.rint(boxes[there]).astype(int).tolist()) == bars.BARS.tolist()
    assert not labels[there].any()
    assert (np.diff(scores[np.isfinite(scores)]) <= 0).all()
