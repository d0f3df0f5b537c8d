"""The decoder of many plain PNG pictures at once, against pictures filtered by the specification and against Pillow."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data.png import decode_plain
from tests.small_sets import encoded, random_images

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(image: np.ndarray, filters, *, extra: bytes = b"", cuts: int = 1) -> bytes:
    """`image` (H, W, C) as PNG with the given filter for each line: PNG specification, section 9.2, byte by byte."""
    height, width, channels = image.shape
    lines = image.reshape(height, width * channels).astype(int)
    data = bytearray()
    for y, kind in enumerate(filters):
        data.append(kind)
        for i in range(width * channels):
            a = lines[y, i - channels] if i >= channels else 0
            b = lines[y - 1, i] if y else 0
            c = lines[y - 1, i - channels] if y and i >= channels else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            data.append((lines[y, i] - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
    packed = zlib.compress(bytes(data))
    bounds = np.linspace(0, len(packed), cuts + 1).astype(int)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)),
            extra,
            *(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(bounds)),
            chunk(b"IEND", b""),
        ]
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32), st.integers(1, 3))
def test_every_filter(height, width, channels, seed, cuts):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (4, height, width, channels), np.uint8)
    pictures = [png(image, rng.integers(0, 5, height), cuts=cuts) for image in images]
    np.testing.assert_array_equal(decode_plain(pictures, (height, width, channels)), images)
    with Image.open(io.BytesIO(pictures[0])) as picture:  # the reference above is a PNG to others, too
        np.testing.assert_array_equal(np.asarray(picture).reshape(images[0].shape), images[0])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_by_pillow(channels):
    """Smooth pictures, which make Pillow's encoder choose among all filters."""
    y, x = np.mgrid[:20, :30]
    images = np.stack(
        [
            np.stack([(a * x + 3 * y + x * y // (a + 1) + 40 * c) % 256 for c in range(channels)], axis=-1)
            for a in range(12)
        ]
    ).astype(np.uint8)
    pictures = [encoded(image) for image in images]
    decoded = decode_plain(pictures, (20, 30, channels))
    np.testing.assert_array_equal(decoded, images)
    assert decoded.flags.writeable


IMAGE = random_images(1, 6, 5, 3)[0]
PLAIN = png(IMAGE, [0, 1, 2, 3, 4, 0])


def saved(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def header(**changed: int) -> bytes:
    fields = {"width": 5, "height": 6, "depth": 8, "colour": 2, "compression": 0, "filter": 0, "interlace": 0} | changed
    return PLAIN[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", *fields.values())) + PLAIN[33:]


OTHERS = {
    "jpeg": saved(Image.fromarray(IMAGE), format="JPEG"),
    "palette": saved(Image.fromarray(IMAGE).quantize(8), format="PNG"),
    "grey": encoded(IMAGE[..., :1]),
    "other size": encoded(IMAGE[:5]),
    "interlaced": header(interlace=1),
    "16 bits": header(depth=16),
    "gamma": png(IMAGE, [0] * 6, extra=chunk(b"gAMA", struct.pack(">I", 45455))),
    "unknown filter": PLAIN[:33] + chunk(b"IDAT", zlib.compress(bytes([5] + [0] * 15) * 6)) + chunk(b"IEND", b""),
    "too few lines": PLAIN[:33] + chunk(b"IDAT", zlib.compress(bytes(16 * 5))) + chunk(b"IEND", b""),
    "no stream": PLAIN[:33] + chunk(b"IDAT", b"no zlib stream") + chunk(b"IEND", b""),
    "no data": PLAIN[:33] + chunk(b"IEND", b""),
    "cut": PLAIN[:60],
    "cut early": PLAIN[:10],
    "flipped": PLAIN[:50] + bytes([PLAIN[50] ^ 4]) + PLAIN[51:],
    "empty": b"",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_anything_else_is_left_to_pillow(other):
    np.testing.assert_array_equal(decode_plain([PLAIN, PLAIN], IMAGE.shape), [IMAGE, IMAGE])
    assert decode_plain([PLAIN, other, PLAIN], IMAGE.shape) is None
