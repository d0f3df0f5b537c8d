"""Large pictures are computed with in bands: the same pixels as all at once, in a fraction of the memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data import drawings, pictures

LUMA = np.array([0.299, 0.587, 0.114])


def laid_on_paper(pixels: np.ndarray) -> np.ndarray:
    """What `on_paper` says, of all pixels at once and in float64."""
    colour, alpha = pixels[..., :-1].astype(float), pixels[..., -1:] / 255
    grey = np.rint(colour @ LUMA) if colour.shape[-1] == 3 else colour[..., 0]
    visible = grey[alpha[..., 0] >= 0.5]
    low, middle, high = np.percentile(visible, [5, 50, 95]) if visible.size else (0, 0, 0)
    ink_alone = alpha.mean() < 0.5 or high - low < 64
    return colour * alpha + (255 if (middle >= 128) != ink_alone else 0) * (1 - alpha)


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(pictures, "_BAND", 16)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 30), st.sampled_from([2, 4]), st.integers(0, 2**32), st.sampled_from("vcdb"))
def test_paper_in_bands_is_paper_at_once(height, width, channels, seed, kind):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
    if kind == "c":  # nearly all transparent or all visible
        pixels[..., -1] = np.where(rng.random((height, width)) < 0.1, pixels[..., -1], rng.choice([0, 255]))
    elif kind == "d":
        pixels[..., :-1] //= 4
    elif kind == "b":
        pixels[..., :-1] |= 0xC0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_BAND", 16)
        found = pictures.on_paper(pixels)
    np.testing.assert_allclose(found, laid_on_paper(pixels), atol=0.5001)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.95, 1])
def test_percentiles_of_counts(share):
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 10, 101):
        levels = rng.integers(0, 256, size)
        found = pictures._percentile(np.bincount(levels, minlength=256), share)
        assert found == pytest.approx(np.percentile(levels, 100 * share))
    assert pictures._percentile(np.zeros(256, int), share) == 0


def test_grey_levels_in_bands(narrow, tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 7, 3), np.uint8)
    np.testing.assert_allclose(pictures.with_channels(colours, 1), colours @ LUMA[:, None], atol=0.501)
    deep = rng.integers(0, 65536, (9, 7), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_allclose(pictures.open_picture(tmp_path / "deep.png")[..., 0], deep / 257, atol=0.501)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    np.testing.assert_array_equal(pictures.open_picture(tmp_path / "colours.png"), colours)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "I;16", "F"])
@pytest.mark.parametrize("ink", [None, drawings.Ink(extent=0.7, mean=0.13)])
def test_memory_of_a_large_picture(mode, ink, tmp_path, monkeypatch):
    """Without Pillow's own, which the tracer does not see; all at once it is 20 to 40 bytes a pixel."""
    monkeypatch.setattr(pictures, "_BAND", 1 << 14)
    monkeypatch.setattr(drawings, "_SIDE", 64)  # what is done at the size it is brought down to does not count
    side = 1000
    name = tmp_path / ("a.tif" if mode == "F" else "a.png")
    drawn = Image.new("L", (side, side), 255)
    drawn.paste(0, (480, 300, 520, 700))
    if mode in ("I;16", "F"):
        drawn = Image.fromarray(np.asarray(drawn).astype(np.uint16 if mode == "I;16" else np.float32))
    elif mode in ("RGBA", "LA"):
        drawn = drawn.convert(mode)
        drawn.putalpha(Image.linear_gradient("L").point(lambda v: 128 + v // 2).resize((side, side)))
    drawn.convert(mode).save(name)
    pictures.read_picture(name, (28, 28, 1), ink)  # what is imported is not counted
    tracemalloc.start()
    try:
        pictures.read_picture(name, (28, 28, 1), ink)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 9 * side**2
