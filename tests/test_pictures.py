"""Pictures of any size and mode come out as the images that the network was trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cnn_jax import data
from cnn_jax.data import drawings, pictures
from cnn_jax.errors import InputError
from cnn_jax.runs import load_run
from tests.trained import draw_page, trained

MNIST_LIKE = data.Ink(extent=20 / 28, mean=0.13)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load_run(trained(tmp_path_factory))


@pytest.fixture(scope="module")
def digits():
    """Every eighth test digit: 45, of all classes."""
    test = data.load("digits", "test")
    return dataclasses.replace(test, images=test.images[::8], labels=test.labels[::8])


def accuracy(run, images, labels):
    return (run.probabilities(np.stack(images)).argmax(axis=-1) == labels).mean()


def read(path, ink=MNIST_LIKE, shape=(28, 28, 1)):
    return pictures.read_picture(path, shape, ink)


def stroke(width=30, size=(300, 400), points=((150, 60), (250, 240))):
    """A page with one black line that ends in a blot, so that its mass is off its middle; (height, width) = `size`."""
    page = Image.new("L", size[::-1], 255)
    ImageDraw.Draw(page).line(list(points), fill=0, width=width)
    ImageDraw.Draw(page).circle(points[0], width, fill=0)
    return np.asarray(page)


# How a page, uint8 (h, w) dark on light, may come to lie in a file: suffix, picture, how far the accuracy may fall.
def _sixteen_bits(page):
    return Image.fromarray(page.astype(np.uint16) * 257)


def _float(page):
    return Image.fromarray(page.astype(np.float32) / 255)


def _transparent(page, colour):
    rgba = np.empty((*page.shape, 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = colour, 255 - page
    return Image.fromarray(rgba)


def _uneven(page):
    """Paper in shade: darker to one side, with noise."""
    shade = np.linspace(1.0, 0.65, page.shape[1]) - 0.15 * np.linspace(0, 1, page.shape[0])[:, None] ** 2
    noise = np.random.default_rng(0).normal(0, 4, page.shape)
    return Image.fromarray(np.clip(page * shade + noise, 0, 255).astype(np.uint8))


def _dirty(page):
    page = page.copy()
    page[5:8, 5:8] = page[-9:-6, 20:23] = page[30:32, -12:-10] = 0
    return Image.fromarray(page)


WAYS = {
    "grey": (".png", Image.fromarray),
    "light on dark": (".png", lambda page: Image.fromarray(255 - page)),
    "JPEG": (".jpg", Image.fromarray),
    "RGB": (".png", lambda page: Image.fromarray(page).convert("RGB")),
    "CMYK": (".jpg", lambda page: Image.fromarray(page).convert("CMYK")),
    "palette": (".png", lambda page: Image.fromarray(page).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)),
    "GIF": (".gif", Image.fromarray),
    "1 bit": (".png", lambda page: Image.fromarray(page).point(lambda v: 255 * (v > 127), mode="1")),
    "16 bits": (".png", _sixteen_bits),
    "float": (".tif", _float),
    "opaque alpha": (".png", lambda page: Image.fromarray(page).convert("LA")),
    "black ink on nothing": (".png", lambda page: _transparent(page, (0, 0, 0))),
    "white ink on nothing": (".webp", lambda page: _transparent(page, (255, 255, 255))),
    "blue ink on nothing": (".png", lambda page: _transparent(page, (20, 30, 160))),
    "wrong suffix": (".dat", Image.fromarray),
    "pencil on grey": (".png", lambda page: Image.fromarray((110 + (page.astype(int) * 60) // 255).astype(np.uint8))),
    "uneven paper": (".jpg", _uneven),
    "specks": (".png", _dirty),
    "small": (".png", lambda page: Image.fromarray(page).resize((60, 57), Image.Resampling.LANCZOS)),
}
QUICKLY = {".png": {"compress_level": 1}, ".webp": {"method": 0}}  # how hard a file is packed is not what is asked


@pytest.mark.parametrize("way", WAYS)
def test_a_drawing_is_read_as_well_as_the_image_it_came_from(run, digits, tmp_path, way):
    suffix, convert = WAYS[way]
    found = []
    for index, image in enumerate(digits.images):
        path = tmp_path / f"{index}{suffix}"
        page = draw_page(image, factor=12, offset=(4 * index % 180, 7 * index % 200))
        convert(page).save(path, "PNG" if suffix == ".dat" else None, **QUICKLY.get(suffix, {}))
        found.append(pictures.read_picture(path, (8, 8, 1), run.ink))
    # One bit a pixel takes away the grey levels that tell how far a stroke goes into one of only 8x8 pixels.
    allowed = 0.1 if way == "1 bit" else 0.03
    assert accuracy(run, found, digits.labels) >= accuracy(run, list(digits.images), digits.labels) - allowed


@pytest.mark.parametrize("inverted", [False, True])
def test_a_picture_of_the_training_size_is_used_as_it_is(digits, tmp_path, inverted):
    for image in digits.images[:40]:
        Image.fromarray((255 - image if inverted else image)[..., 0]).save(tmp_path / "x.png")
        found = pictures.read_picture(tmp_path / "x.png", (8, 8, 1), digits.ink)
        np.testing.assert_array_equal(found, image)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.integers(150, 900), st.integers(150, 900))
def test_what_is_drawn_has_the_size_and_place_of_the_training_images(width, seed, height, length):
    ends = np.random.default_rng(seed).uniform(0.1, 0.9, (2, 2)) * (length, height)
    if np.abs(ends[0] - ends[1]).max() < 0.2 * max(height, length):
        return
    page = stroke(min(width, height // 8, length // 8) or 1, (height, length), tuple(map(tuple, ends)))
    found = pictures.like_training(page[..., None], (28, 28, 1), MNIST_LIKE)[..., 0]
    assert (found.shape, found.dtype, found.max()) == ((28, 28), np.uint8, 255)
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)
    mass = found.astype(float)
    for axis in (0, 1):
        assert abs(mass.sum(axis=1 - axis) @ np.arange(28) / mass.sum() - 13.5) < 0.02


@pytest.mark.parametrize("turn", range(4))
def test_the_aspect_ratio_and_the_orientation_are_kept(turn):
    page = np.full((200, 300), 255, np.uint8)
    page[50:150, 40:80] = 0  # an upright bar, twice as wide in its lower half
    page[100:150, 40:120] = 0
    found = pictures.like_training(np.rot90(page, turn)[..., None], (28, 28, 1), MNIST_LIKE)[..., 0]
    box = np.rot90(found, -turn) > 64
    rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
    assert len(rows) in (20, 21)
    assert len(columns) in (16, 17)
    assert abs(box[rows[2]].sum() - 8) <= 1
    assert abs(box[rows[-3]].sum() - 16) <= 1


def test_nothing_is_cut_where_the_centre_of_mass_is_far_off():
    ink = np.zeros((100, 100), np.float32)
    ink[:30, :30] = 1.0
    ink[99, 99] = 1.0
    found = drawings.place(ink, (28, 28), 1.0)
    assert found[:8, :8].min() >= 250
    assert found[27, 27] > 0


@pytest.mark.parametrize("extent", [0.3, 20 / 28, 1.0])
def test_a_drawing_wider_than_a_tall_data_set_still_fits(extent):
    found = drawings.place(np.ones((20, 90), np.float32), (40, 10), extent)
    assert found.shape == (40, 10)
    assert abs(np.flatnonzero(found.any(axis=0)).size - min(10, 40 * extent)) <= 1


def test_a_thin_pen_reads_like_a_thick_one(run, digits):
    """A line of two pixels through the middle of each stroke, instead of the stroke."""
    from scipy import ndimage

    thin, labels = [], digits.labels
    for image in digits.images:
        ink = draw_page(image, factor=40) < 128
        distance = ndimage.distance_transform_edt(ink)
        ridge = (distance > 0) & (distance >= ndimage.maximum_filter(distance, 9) - 0.5)
        page = np.where(ndimage.binary_dilation(ridge), 0, 255).astype(np.uint8)
        thin.append(pictures.like_training(page[..., None], (8, 8, 1), run.ink))
    assert accuracy(run, thin, labels) > 0.65  # without thickening, about a third


def test_ink():
    """Boxes of known size drawn on black; a faint halo under a quarter of the brightest does not count."""
    images = np.zeros((5, 20, 30, 1), np.uint8)
    for image, (height, width) in zip(images, [(3, 5), (9, 2), (6, 6), (12, 7), (1, 1)], strict=True):
        image[4 : 5 + height + 1, 6 : 6 + width + 2] = 40
        image[5 : 5 + height, 7 : 7 + width] = 200
    assert drawings.measure_ink(images).extent == pytest.approx(6 / 30)
    holes = images.copy()
    holes[2, 6:10, 8:12] = 0  # only the outline counts
    assert drawings.measure_ink(holes).extent == pytest.approx(6 / 30)
    empty = np.concatenate([images, np.zeros_like(images)])
    assert drawings.measure_ink(empty).extent == pytest.approx(6 / 30)
    assert drawings.measure_ink(np.zeros_like(images)) is None
    assert drawings.measure_ink(255 - images) is None
    assert drawings.measure_ink(np.repeat(images, 3, axis=-1)) is None


@settings(deadline=None, max_examples=300)
@given(st.floats(0, 0.9), st.integers(1, 60))
def test_thickening_reaches_the_coverage_and_only_adds(coverage, width):
    ink = np.zeros((180, 120), np.float32)
    ink[:, 60 : 60 + width] = 1.0
    thick = drawings.thicken(ink, coverage)
    grown = (thick.shape[0] - 180) // 2
    assert thick.shape == (180 + 2 * grown, 120 + 2 * grown)
    assert (thick[grown : grown + 180, grown : grown + 120] >= ink).all()
    if grown < 180 // 4:
        assert thick.sum() >= 0.97 * coverage * max(thick.shape) ** 2  # its round corners have soft edges


def test_thick_strokes_are_left_alone():
    ink = np.ones((50, 50), np.float32)
    assert drawings.thicken(ink, 0.3) is ink


BLANK = {
    "white": np.full((200, 150), 255, np.uint8),
    "black": np.zeros((200, 150), np.uint8),
    "white of the data set's size": np.full((28, 28), 255, np.uint8),
    "shade": np.tile(np.linspace(255, 120, 300).astype(np.uint8), (200, 1)),
    "noise": np.clip(np.random.default_rng(1).normal(220, 6, (300, 300)), 0, 255).astype(np.uint8),
    "specks": np.where(np.random.default_rng(2).random((400, 400)) < 2e-5, 0, 255).astype(np.uint8),
    "one pixel": np.full((1, 1), 7, np.uint8),
}


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_page_is_said_to_be_one(tmp_path, name):
    Image.fromarray(BLANK[name]).save(tmp_path / "page.png")
    with pytest.raises(InputError, match=r"page\.png: no drawing found"):
        read(tmp_path / "page.png")


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (2, 2), (3, 1000)])
def test_odd_shapes_end_in_an_image_or_a_line(shape):
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with contextlib.suppress(InputError):
        found = pictures.like_training(noise[..., None], (28, 28, 1), MNIST_LIKE)
        assert (found.shape, found.dtype) == ((28, 28, 1), np.uint8)


def test_colour_and_other_grey_runs_take_pictures_by_the_rule_of_fit_images(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    expected = data.fit_images(rgb[None], (32, 32))[0]
    np.testing.assert_array_equal(read(tmp_path / "x.png", None, (32, 32, 3)), expected)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    found = read(tmp_path / "x.png", None, (50, 70, 1))[..., 0].astype(int)
    assert np.abs(found - grey).max() <= 1
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png", None, (50, 70, 3)), np.repeat(grey[..., None], 3, 2))


def test_exif_orientation_is_applied(tmp_path):
    page = stroke()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned by a quarter clockwise
    Image.fromarray(page).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(np.rot90(page, -1)).save(tmp_path / "upright.jpg", quality=95)
    one, other = (pictures.open_picture(tmp_path / f"{name}.jpg") for name in ("turned", "upright"))
    assert one.shape == other.shape == (400, 300, 1)
    assert np.abs(one.astype(int) - other).mean() < 1


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    first, second = Image.new("L", (9, 9), 255), Image.new("L", (9, 9), 0)
    first.save(tmp_path / "x.gif", save_all=True, append_images=[second])
    assert pictures.open_picture(tmp_path / "x.gif").min() == 255


@pytest.mark.parametrize(
    ("values", "white"),
    [(np.uint16([[0, 65535]]), 255), (np.uint16([[0, 257]]), 1), (np.int32([[0, 65535]]), 255)]
    + [(np.float32([[0, peak]]), 255) for peak in (1, 255, 65535, 1e9)]
    + [(np.float32([[math.nan, 1]]), 255)],
)
def test_deep_greys_are_scaled_to_eight_bits(tmp_path, values, white):
    Image.fromarray(values).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(pictures.open_picture(tmp_path / "x.tif")[..., 0], [[0, white]])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("size", [(30_000, 30_000), (8_001, 8_001), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_claims_too_much_is_refused_before_it_is_believed(tmp_path, size):
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"bomb\.png: expected a picture of at most 64,000,000 pixels"):
            read(tmp_path / "bomb.png")


def test_folders_are_searched_in_order_and_without_what_is_hidden(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.jpeg", ".hidden/d.png", ".e.png", "notes.txt", "sub/deep/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    found, faults = pictures.find_pictures((tmp_path / "notes.txt", tmp_path, tmp_path / "empty"))
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["notes.txt", "a.JPG", "b.png", "sub/c.jpeg", "sub/deep/f.png"]
    assert len(faults) == 1
    assert "empty: expected pictures" in faults[0]
