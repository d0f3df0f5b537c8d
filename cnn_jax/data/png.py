"""PNG: thousands of small pictures of one size at a time, and the checksums of any.

Opening a picture costs Pillow some 40 microseconds however small it is, three seconds for MNIST. Inflating is the
cheap part of that (8 microseconds), and undoing PNG's line filters vectorises over pictures. Only the plainest pictures
are done here: 8 bits a channel, not interlaced, no chunks but the necessary ones. Pillow does all others.

The format: Portable Network Graphics (PNG) Specification, 2nd edition, W3C 2003; sections named below.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # section 11.2.2, by number of channels
_PIECE = 1 << 20  # bytes read, or inflated, at a time
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)  # section 9.2


def check(file: BinaryIO) -> None:
    """Compares the checksums of a PNG picture, which Pillow leaves alone where the pixels are: a bit that has changed
    since would make another picture. Anything but a PNG picture is passed over.

    Args:
      file: at the picture's beginning; read up to its end.

    Raises:
      ValueError: the checksum of a chunk (section 5.3) or of the stream of pixels (section 10.1) does not match, or the
        picture is cut off, or it has more data than pixels.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return
    stream, most = zlib.decompressobj(), 0
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        crc = zlib.crc32(kind)
        while length:
            piece = file.read(min(length, _PIECE))
            if not piece:
                break
            length -= len(piece)
            crc = zlib.crc32(piece, crc)
            if kind == b"IHDR":  # at most 8 bytes a pixel, and the filters of the lines of seven passes
                width, height = (int.from_bytes(piece[at : at + 4], "big") for at in (0, 4))
                most = 8 * width * height + 7 * height + _PIECE
            while kind == b"IDAT" and piece and not stream.eof:
                most -= len(_next(stream, piece))
                piece = stream.unconsumed_tail
                if most < 0:
                    raise ValueError("a PNG file with more data than pixels")
        if length or len(head) < 8 or (stored := file.read(4)) == b"":
            raise ValueError("a PNG file that is cut off")
        if stored != crc.to_bytes(4, "big"):
            raise ValueError(f"a PNG file whose chunk {kind.decode('ascii', 'replace')!r} has the wrong checksum")
    if not stream.eof:
        raise ValueError("a PNG file whose pixels are cut off")


def _next(stream: zlib._Decompress, piece: bytes) -> bytes:
    try:
        return stream.decompress(piece, _PIECE)
    except zlib.error as error:
        raise ValueError(f"a PNG file whose pixels are damaged ({error})") from None


def decode_plain(pictures: Sequence[bytes], shape: tuple[int, int, int]) -> np.ndarray | None:
    """Decodes plain PNG pictures that are all of one shape (H, W, C).

    Returns:
      uint8 (N, H, W, C), or None if any of them is of another shape, not plain, damaged or no PNG.
    """
    height, width, channels = shape
    # IHDR, section 11.2.2: the two sides, bit depth, colour type, compression, filter and interlace method.
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, _COLOUR_TYPES[channels], 0, 0, 0])
    lines = [_inflate(picture, header) for picture in pictures]
    size = height * (1 + width * channels)
    if any(len(line) != size for line in lines):
        return None
    return _unfilter(np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), height, -1), shape)


def _inflate(picture: bytes, header: bytes) -> bytes:
    """The filtered lines of a picture with this IHDR and no optional chunks; empty if it is not such a picture."""
    if not picture.startswith(_SIGNATURE):
        return b""
    position, data = len(_SIGNATURE), b""
    # Section 5.3: length, type, data, CRC. The CRC is not looked at: the header must be equal to the one given, and the
    # stream has a checksum of its own.
    while position + 12 <= len(picture):
        start, end = position + 8, position + 8 + int.from_bytes(picture[position : position + 4], "big")
        kind = picture[position + 4 : start]
        if kind == b"IDAT":
            data += picture[start:end]
        elif kind == b"IEND":
            break
        elif picture[position + 4 : end] != b"IHDR" + header:
            return b""
        position = end + 4
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


def _unfilter(lines: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Undoes the filters (section 9.2) of lines (N, H, 1 + W * C), each line's first byte naming its own."""
    kinds = lines[:, :, 0]
    if kinds.max(initial=0) > _PAETH:
        return None
    images = lines[:, :, 1:].reshape(len(lines), *shape).copy()
    above_first = np.zeros_like(images[:, 0])
    for y in range(shape[0]):
        for kind in (_SUB, _UP, _AVERAGE, _PAETH):
            picked = np.flatnonzero(kinds[:, y] == kind)
            if len(picked):
                above = images[picked, y - 1] if y else above_first[picked]
                images[picked, y] = _unfilter_line(kind, images[picked, y], above)
    return images


def _unfilter_line(kind: int, line: np.ndarray, above: np.ndarray) -> np.ndarray:
    """One line (N, W, C) of each picture, given the finished line above it; sums are modulo 256."""
    if kind == _SUB:
        return np.cumsum(line, axis=1, dtype=np.uint8)
    if kind == _UP:
        return line + above
    up = above.astype(np.int16)
    left, corner = np.zeros_like(up[:, 0]), np.zeros_like(up[:, 0])
    for x in range(line.shape[1]):
        predicted = (left + up[:, x]) >> 1 if kind == _AVERAGE else _paeth(left, up[:, x], corner)
        left = (line[:, x] + predicted) & 255
        line[:, x] = left
        corner = up[:, x]
    return line


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Section 9.4: whichever is nearest to left + up - corner, ties in the order left, up, corner."""
    to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    best = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, best)
