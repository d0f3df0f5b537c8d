"""Pictures of any sizes and kinds read into one array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import xxhash

from cnn_jax.data.pictures import on_paper, open_picture, with_channels
from cnn_jax.data.resizing import cut_square, fit_images
from cnn_jax.errors import InputError

LARGEST_KEPT = 256 * 256  # pixels: ten thousand pictures of them are 2 GB
_AHEAD = 256  # pictures read before they are put away
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Pile:
    """Pictures that were read.

    Attributes:
      images: uint8 (N, H, W, C), C is 1 or 3.
      read: the N indices of files that could be read, ascending.
      digests: a hash of the pixels of each, as they were before they were brought to a size.
      faults: of the other files, index and what is wrong.
      varied: whether the size asked for made a difference.
    """

    images: np.ndarray
    read: list[int]
    digests: list[bytes]
    faults: list[tuple[int, str]]
    varied: bool


def read_pile(
    paths: Sequence[Path], size: tuple[int, int], like: tuple[int, ...] | None = None, square: int | None = None
) -> Pile:
    """Reads pictures into one array.

    Transparency is laid on white or black by the rule of `on_paper`, as for pictures that a model is asked about. There
    is one channel if no picture shows a colour, else three. Pictures that are all of one size keep it, if it has no
    more than `LARGEST_KEPT` pixels; else each is brought to `size` by the rule of `fit_images`.

    Args:
      paths: the files.
      size: (height, width).
      like: (height, width, channels) to bring all of them to, instead of letting the pictures decide.
      square: as for `read_paper`; `size` is then (square, square).
    """
    images, varied = np.empty((0, 0, 0, 1), np.uint8), False
    read: list[int] = []
    digests: list[bytes] = []
    faults: list[tuple[int, str]] = []

    def rebuild(convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        converted = convert(images[: len(read)])
        rebuilt = np.empty((len(paths), *converted.shape[1:]), np.uint8)
        rebuilt[: len(read)] = converted
        return rebuilt

    for index, picture in enumerate(in_order(lambda path: _read(path, size, like, square), paths)):
        if isinstance(picture, str):
            faults.append((index, picture))
            continue
        pixels, digest, fitted = picture
        varied |= fitted
        if not read:
            images = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape[-1] > images.shape[-1]:
            images = rebuild(lambda kept: np.repeat(kept, 3, axis=-1))
        if pixels.shape[:2] != images.shape[1:3]:
            varied = True
            pixels = fit_images(pixels[None], size)[0]
            if images.shape[1:3] != size:
                images = rebuild(lambda kept: fit_images(kept, size))
        images[len(read)] = with_channels(pixels, images.shape[-1])
        read.append(index)
        digests.append(digest)
    return Pile(images=images[: len(read)], read=read, digests=digests, faults=faults, varied=varied)


def _read(
    path: Path, size: tuple[int, int], like: tuple[int, ...] | None, square: int | None
) -> tuple[np.ndarray, bytes, bool] | str:
    """Pixels, their digest and whether they were brought to `size`; or what is wrong with the file."""
    found = read_paper(path, square)
    if isinstance(found, str):
        return found
    pixels, digest = found
    if like:
        return like_others(pixels, like), digest, False
    large = pixels.shape[0] * pixels.shape[1] > LARGEST_KEPT
    return fit_images(pixels[None], size)[0] if large else pixels, digest, large


def read_paper(path: Path, square: int | None = None, least: int | None = None) -> tuple[np.ndarray, bytes] | str:
    """A picture laid on paper, uint8 (h, w, 1 or 3), with one channel if it shows no colour, and its digest.

    Or what is wrong with the file. With `square` it is what `cut_square` leaves of the picture; the digest is that of
    the whole, which is decoded at a reduced scale with `least`, see `decode_picture`.
    """
    try:
        pixels = on_paper(open_picture(path, least))
    except InputError as error:
        return str(error)
    # Most pictures show a colour in their first lines already.
    grey = all((part[..., :1] == part).all() for part in (pixels[::16], pixels))
    pixels = np.ascontiguousarray(pixels[..., :1] if grey else pixels)
    digest = xxhash.xxh3_128(repr(pixels.shape).encode())
    digest.update(pixels.data)
    return pixels if square is None else cut_square(pixels, square), digest.digest()


def like_others(pixels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture laid on paper brought to (height, width, channels)."""
    return fit_images(with_channels(pixels, shape[-1])[None], (shape[0], shape[1]))[0]


def in_order(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """What a function makes of each file or record, several at a time: to read and decode releases Python's lock."""
    # Around all threads: what `open_picture` does to the filters in one, another would undo at the wrong time.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), _AHEAD):
            yield from pool.map(function, items[start : start + _AHEAD])
