"""Scenes and the windows cut out of them are what they say: of digits whose place, size and label can be read off."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn_jax import data, detection
from cnn_jax.detection import clutter, windows
from cnn_jax.detection.ink import middle_box as middle_box_of
from cnn_jax.detection.resampling import cut, paste
from cnn_jax.detection.scenes import ink_box
from cnn_jax.errors import InputError
from tests import quick

SIDE = 32
middle_box = quick.jit(middle_box_of)
# A digit of class k is a full rectangle, 20 high and 4 + 2 k wide, somewhere in its image.
WIDTHS = np.array([4, 8, 12, 16, 20])
CONFIG = detection.SceneConfig(fragments=0, strokes=0)
COUNT = 48


def rectangles() -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.zeros((20, SIDE, SIDE, 1), np.uint8), np.arange(20, dtype=np.int32) % len(WIDTHS)
    for index, label in enumerate(labels):
        top, left = 2 + index % 9, 1 + index % 7
        images[index, top : top + 20, left : left + WIDTHS[label]] = 255
    return images, labels


def dataset(images: np.ndarray, labels: np.ndarray, extent: float | None = 0.625) -> data.Dataset:
    return data.Dataset(
        name="drawn", version="1", split="train", images=images, labels=labels, class_names=tuple("abcde"),
        statistics=data.Statistics(mean=(0.2,), std=(0.3,)), fingerprint="",
        ink=None if extent is None else data.Ink(extent=extent, mean=0.2),
    )  # fmt: skip


@quick.jit
@functools.partial(jax.vmap, in_axes=(0, None, None))
def make_scenes(key, images, labels):
    return detection.make_scene(key, images, labels, CONFIG)


@pytest.fixture(scope="module")
def scenes() -> detection.Scene:
    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.tree.map(np.asarray, make_scenes(keys, *rectangles()))


def test_the_true_boxes_are_tight_round_the_ink(scenes):
    alone = 0
    for image, boxes, labels, valid in zip(*scenes, strict=True):
        assert image.shape == (128, 128, 1)
        # Digits have 0.65 of full brightness at least; lines, paper and three deviations of noise to 0.48
        marks, count = ndimage.label(image[..., 0] > 0.58 * 255)
        found = np.array([[s.start for s in mark] + [s.stop for s in mark] for mark in ndimage.find_objects(marks)])
        for box, label in zip(boxes[valid], labels[valid], strict=True):
            height, width = box[2:] - box[:2]
            assert 0.75 * 20 <= height <= 1.5 * 20
            assert width / height == pytest.approx(WIDTHS[label] / 20, rel=1e-4)
            if count == valid.sum():  # else two touch
                assert np.abs(found - box).max(axis=1).min() < 1.5
                alone += 1
    assert alone > COUNT


def test_digits_lie_on_the_canvas_and_overlap_little(scenes):
    counts = scenes.valid.sum(axis=1)
    assert counts.min() >= 1
    assert counts.max() > 5
    assert set(scenes.labels[scenes.valid]) == set(range(len(WIDTHS)))
    assert (scenes.labels[~scenes.valid] == -1).all()
    assert not scenes.boxes[~scenes.valid].any()
    for boxes, valid in zip(scenes.boxes, scenes.valid, strict=True):
        boxes = boxes[valid]
        assert boxes.min() >= 0
        assert boxes.max() <= CONFIG.side + 1e-4
        for k, box in enumerate(boxes):
            for other in boxes[:k]:
                shared = np.prod(np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0))
                smaller = min(np.prod(one[2:] - one[:2]) for one in (box, other))
                assert shared <= 0.1 * smaller + 1e-3


def test_scenes_are_functions_of_the_key_alone(scenes):
    again = make_scenes(jax.random.split(jax.random.key(0), COUNT)[::-1], *rectangles())
    for part, other in zip(scenes, again, strict=True):
        np.testing.assert_array_equal(part, other[::-1])
    assert len({image.tobytes() for image in scenes.image}) == COUNT


def test_bright_clutter_keeps_clear_of_digits_and_is_no_digit():
    boxes, valid = jnp.array([[30.0, 30, 70, 60], [5, 80, 40, 120], [0, 0, 128, 128]]), jnp.array([True, True, False])
    image = jnp.asarray(rectangles()[0][0, ..., 0] / 255)

    @quick.jit
    @functools.partial(jax.vmap, in_axes=0)
    def draw(key):
        random = jax.random.uniform(key, (clutter.OF_STROKE,))
        fragment = clutter.fragment(random[: clutter.OF_FRAGMENT], image, 128, boxes, valid)
        return fragment, clutter.stroke(random, 128, boxes, valid)

    fragments, strokes = np.asarray(draw(jax.random.split(jax.random.key(1), 200)))
    for drawn, lengths in ((fragments, [(0, 12.5)]), (strokes, [(0, 12.5), (20, 128)])):
        there = drawn.max(axis=(1, 2)) > 0
        assert 0.3 < there.mean() < 0.7
        for top, left, bottom, right in np.asarray(boxes[valid], int):
            assert not drawn[:, top - 1 : bottom + 1, left - 1 : right + 1].any()
        for ink in drawn[there]:
            longer = max(np.ptp(axis) + 1 for axis in np.nonzero(ink))
            assert any(low <= longer <= high for low, high in lengths)


def test_pasting_and_cutting_move_images_to_the_pixel():
    image = np.random.default_rng(0).uniform(size=(20, 30)).astype(np.float32)
    pasted = np.asarray(quick.jit(paste, static_argnums=1)(image, 50, 1.0, jnp.array([7.0, 40.0])))
    np.testing.assert_allclose(pasted[7:27, 40:], image[:, :10], atol=1e-6)
    assert pasted.sum() == pytest.approx(image[:, :10].sum(), rel=1e-5)
    window = np.asarray(quick.jit(cut, static_argnums=1)(image, 8, jnp.float32(1), jnp.array([6.0, 2.0])))
    np.testing.assert_allclose(window[:, 2:], image[2:10, :6], atol=1e-6)
    np.testing.assert_allclose(window[:, :2], np.median(image[::4, ::4]), atol=1e-6)


def test_windows_show_digits_in_the_middle_and_background_does_not():
    """Seen in the windows themselves: where a full rectangle stands, and how long it is."""
    digits = dataset(*rectangles())
    found = detection.window_dataset(digits, jax.random.key(2), 80, CONFIG)  # more than a chunk, and not a whole number
    assert found.images.shape[1:] == (SIDE, SIDE, 1)
    assert found.images.dtype == np.uint8
    assert found.class_names == (*digits.class_names, "background")
    assert found.statistics == digits.statistics
    counts = np.bincount(found.labels)
    assert len(counts) == 6
    assert 80 * 2 < counts[:5].sum() < 80 * 8 * windows.PER_DIGIT
    assert counts[5] > 80 * 8
    shown = np.array([_shows(window[..., 0]) for window in found.images])
    assert shown[found.labels < 5].mean() > 0.85  # where two touch, what is in the middle is both
    assert shown[found.labels == 5].mean() < 0.02
    offsets = [_middle(window[..., 0])[0] for window in found.images[found.labels < 5]]
    assert np.percentile(np.abs(offsets), 75) > 1  # they move about within the tolerances
    widths = [_width(window[..., 0]) for window in found.images[(found.labels < 5) & shown]]
    expected = WIDTHS[found.labels[(found.labels < 5) & shown]]
    assert np.median(np.abs(widths - expected) / expected) < 0.15


def _middle(window):
    """Offset of what stands in a window's middle, down and across, and its longer side, in pixels."""
    marks, _ = ndimage.label(window > 0.5 * window.max())
    middle = marks[SIDE // 2 - 3 : SIDE // 2 + 3, SIDE // 2 - 3 : SIDE // 2 + 3]
    if not middle.any() or window.max() < 128:
        return np.array([SIDE, SIDE]), 0
    box = ndimage.find_objects(marks)[np.bincount(middle[middle > 0]).argmax() - 1]
    return np.array([(s.start + s.stop - SIDE) / 2 for s in box]), max(s.stop - s.start for s in box)


def _width(window):
    return (window[SIDE // 2] > 0.5 * window.max()).sum()


def _shows(window):
    offset, longer = _middle(window)
    return np.abs(offset).max() <= 2.56 + 1 and 20 / 1.15 - 1.5 <= longer <= 20 * 1.15 + 1.5


@pytest.mark.parametrize(
    ("box", "size", "slack", "expected"),
    [
        ((10, 20, 30, 30), 1.0, 1.0, True),  # in the middle, 20 pixels long
        ((12, 20, 32, 30), 1.0, 1.0, True),
        ((13, 20, 33, 30), 1.0, 1.0, False),  # 3 pixels down
        ((13, 20, 33, 30), 1.0, 2.0, True),
        ((10, 23, 30, 33), 1.0, 1.0, False),  # 3 pixels across
        ((10, 20, 30, 30), 1.2, 1.0, False),  # 24 pixels long as seen
        ((10, 20, 30, 30), 1.2, 2.0, True),
        ((10, 20, 30, 30), 0.8, 1.0, False),
        ((10, 20, 30, 30), 0.5, 2.0, False),
        ((12.5, 21, 27.5, 29), 4 / 3, 1.0, True),  # 15 pixels long, seen at 20
    ],
)
def test_what_a_window_shows(box, size, slack, expected):
    found = windows.shows(jnp.array([box], jnp.float32), jnp.float32(size), jnp.array([20.0, 25]), SIDE, slack)
    assert found.tolist() == [expected]


def test_the_box_of_the_ink_in_the_middle():
    window = np.full((32, 32), 20, np.float32)
    window[10, 8:20] = 60  # a faint line
    window[6:25, 15:18] = 200  # a 1 across it
    window[25, 18:20] = 110  # hangs on by a corner, just bright enough
    window[4:28, 25] = 255  # brighter, but beside it
    assert middle_box(jnp.asarray(window)).tolist() == [6, 15, 26, 20]
    window[12, 17:26] = 200  # now joined with its neighbour, which is cut off at the inner three quarters
    assert middle_box(jnp.asarray(window)).tolist() == [4, 15, 28, 26]
    ring = np.zeros((32, 32), np.float32)
    ring[8:24, 9:23] = 1
    ring[11:21, 12:20] = 0
    assert middle_box(jnp.asarray(ring)).tolist() == [8, 9, 24, 23]


def test_the_box_of_an_image():
    image = np.zeros((28, 28), np.float32)
    image[3:20, 7:9], image[20, 8], image[25, 25] = 1.0, 0.26, 0.24
    assert ink_box(jnp.asarray(image)).tolist() == [3, 7, 21, 9]


@pytest.mark.parametrize(("size", "extent", "own"), [(28, 20 / 28, 28), (8, 1.0, 20), (64, 1.0, 20), (28, 0.3, 32)])
def test_framing_brings_drawings_to_one_length(size, extent, own):
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 1), np.uint8)
    digits = dataset(images, np.arange(3, dtype=np.int32), extent)
    framed = detection.framed(digits, SIDE)
    assert framed.images.shape == (3, SIDE, SIDE, 1)
    assert framed.ink.extent == pytest.approx(extent * own / SIDE)
    before = (SIDE - own) // 2
    inside = framed.images[:, before : before + own, before : before + own]
    assert framed.images.sum(dtype=int) == inside.sum(dtype=int)
    if own == size:
        np.testing.assert_array_equal(inside, images)
        exact = data.dataset.compute_statistics(framed.images)
        before = data.dataset.compute_statistics(images)
        share = (own / SIDE) ** 2
        assert exact.mean[0] == pytest.approx(share * before.mean[0])


def test_framing_refuses_what_is_not_drawn():
    with pytest.raises(InputError, match="drawn: expected one-channel drawings"):
        detection.framed(dataset(*rectangles(), extent=None), SIDE)
