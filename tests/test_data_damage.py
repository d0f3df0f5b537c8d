"""A damaged picture is refused, or read as what it was: where a format has checksums they are looked at."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import decode, png
from cnn_jax.data.pictures import open_picture
from cnn_jax.errors import InputError
from tests.test_data_png import chunk

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 4, 4), np.uint8)


def saved(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def interlaced() -> bytes:
    """3x2 grey pixels in Adam7's order, which Pillow reads and does not write (PNG specification, section 8.2)."""
    header = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 1)
    lines = b"".join(bytes([0, *line]) for line in ([10], [30], [20], [40, 50, 60]))
    return png._SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


PALETTE = Image.fromarray(PIXELS[..., :3]).quantize(4)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # its orientation
PNGS = {
    "rgb": saved(Image.fromarray(PIXELS[..., :3])),
    "rgba": saved(Image.fromarray(PIXELS)),
    "palette": saved(PALETTE, transparency=1),
    "16 bits": saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)),
    "stored": saved(Image.fromarray(PIXELS[..., 0]), compress_level=0),
    "interlaced": interlaced(),
    "text": saved(Image.fromarray(PIXELS[..., 0]), dpi=(72, 72), exif=TURNED),
}


def read(path, content: bytes):
    path.write_bytes(content)
    try:
        return open_picture(path)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return None


@pytest.mark.parametrize("kind", PNGS)
def test_no_flipped_bit_of_a_png_makes_another_picture(kind, tmp_path):
    good = PNGS[kind]
    expected = read(tmp_path / "a.png", good)
    assert expected is not None
    seen = 0
    bits = range(0, 8 * len(good), 1 if kind in ("palette", "text") else 5)
    for bit in bits:
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        found = read(tmp_path / "a.png", bytes(damaged))
        assert found is None or np.array_equal(found, expected), bit
        seen += found is None
    assert seen > 0.98 * len(bits)  # hardly a bit is not covered by a checksum


@pytest.mark.parametrize("kind", PNGS)
def test_a_png_that_is_cut_off_is_refused(kind, tmp_path):
    for length in range(len(PNGS[kind])):
        assert read(tmp_path / "a.png", PNGS[kind][:length]) is None, length
    assert read(tmp_path / "a.png", PNGS[kind] + b"what follows is nobody's business") is not None


def test_the_pixels_own_checksum_counts_too(tmp_path):
    """One that was damaged before the chunks' checksums were made."""
    good = PNGS["rgb"]
    start = good.index(b"IDAT")
    stream = bytearray(good[start + 4 : good.index(b"IEND") - 8])
    for at in (-1, -4):
        damaged = stream.copy()
        damaged[at] ^= 1
        assert (
            read(tmp_path / "a.png", good[: start - 4] + chunk(b"IDAT", bytes(damaged)) + chunk(b"IEND", b"")) is None
        )
    short = good[: start - 4] + chunk(b"IDAT", bytes(stream[:-4])) + chunk(b"IEND", b"")
    assert read(tmp_path / "a.png", short) is None
    halves = chunk(b"IDAT", bytes(stream[:9])) + chunk(b"IDAT", b"") + chunk(b"IDAT", bytes(stream[9:]))
    split = read(tmp_path / "a.png", good[: start - 4] + halves + chunk(b"IEND", b""))
    np.testing.assert_array_equal(split, PIXELS[..., :3])


def test_a_png_that_unpacks_to_gigabytes_is_refused_at_once(tmp_path):
    packer = zlib.compressobj(9)
    stream = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    head = PNGS["rgb"][:33]
    with pytest.raises(ValueError, match="more data than pixels"):
        png.check(io.BytesIO(head + chunk(b"IDAT", stream) + chunk(b"IEND", b"")))


def test_flipped_bits_in_the_pictures_of_a_data_set():
    good = saved(Image.fromarray(PIXELS[..., :3]))
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        found = png.decode_plain([bytes(damaged)], (5, 4, 3))
        if found is None:
            try:
                found = decode._decode_image(bytes(damaged), 3)[None]
            except Exception as error:  # any kind: `decode_split` makes one line of it
                assert not isinstance(error, MemoryError)  # noqa: PT017
                continue
        assert np.array_equal(found[0], PIXELS[..., :3]), bit


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WEBP", "JPEG"])
def test_a_picture_that_is_cut_off_is_refused_or_whole(form, tmp_path):
    image = Image.fromarray(np.repeat(np.repeat(PIXELS[..., 0], 8, axis=0), 8, axis=1))
    options = {"lossless": True} if form == "WEBP" else {"compression": "tiff_adobe_deflate"} if form == "TIFF" else {}
    good = saved(image.convert("RGB") if form == "WEBP" else image, form, **options)
    expected = read(tmp_path / "a", good)
    assert expected is not None
    for length in {*range(0, len(good), 1 + len(good) // 100), *range(len(good) - 20, len(good))}:
        found = read(tmp_path / "a", good[:length])
        assert found is None or np.array_equal(found, expected), length
