"""Pictures from files, brought to look like the images that a model was trained on."""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import terminal
from cnn_jax.data import jpeg, png
from cnn_jax.data.drawings import Ink, light_on_dark, redraw
from cnn_jax.data.jpeg import MOST_PIXELS
from cnn_jax.data.resizing import fit_images
from cnn_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # not all of Pillow's: some of those start other programs
# What phones write and Pillow may not read: by the brand in the file, and by their suffixes.
_PHONES = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}
_NOT_READ = (".heic", ".heif", ".avif")  # named, rather than passed over, where they are found in a folder
_BAND = 1 << 20  # pixels computed with at a time, in floats
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def read_picture(path: Path, image_shape: tuple[int, int, int], ink: Ink | None) -> np.ndarray:
    """Reads a picture file as an image of a data set: `open_picture`, then `like_training`.

    Returns:
      uint8 (H, W, C) = `image_shape`.

    Raises:
      InputError: naming the file, in one line, if it cannot be read or nothing is drawn on it.
    """
    try:
        return like_training(open_picture(path), image_shape, ink)
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from None


def like_training(pixels: np.ndarray, image_shape: tuple[int, int, int], ink: Ink | None) -> np.ndarray:
    """Brings a picture to what the images of a data set look like.

    - Transparency is laid on white, or on black if what is visible is light.
    - For a data set of drawings (one channel, dark background: `ink` is not None), a picture whose border
      is light is inverted. One of the data set's own size is then used as it is. Any other is a drawing or a scan: the
      paper is subtracted, what is drawn is cut out without specks, thin strokes are thickened, and it is scaled to be
      as large as in the data set and centred by its mass; see `cnn_jax.data.drawings`.
    - For other one-channel data sets, grey levels; for three channels, RGB; brought to the data set's size by
      `fit_images`.

    Args:
      pixels: uint8 (h, w, channels): grey, grey and alpha, RGB, or RGB and alpha.
      image_shape: (H, W, C) of the data set's images.
      ink: how its training images are drawn; None where they are not drawings.

    Returns:
      uint8 (H, W, C).

    Raises:
      InputError: nothing is drawn on it, or the data set has neither one nor three channels.
    """
    *size, channels = image_shape
    if channels not in (1, 3):
        raise InputError(f"expected a model for images of 1 or 3 channels, this one is for {channels}")
    pixels = with_channels(on_paper(pixels), channels)
    if ink is None:
        return fit_images(pixels[None], (size[0], size[1]))[0]
    picture = light_on_dark(pixels[..., 0])
    if picture.shape != tuple(size):
        picture = redraw(picture, (size[0], size[1]), ink)
    elif picture.min() == picture.max():
        raise InputError("no drawing found: all its pixels are equal")
    return picture[..., None]


def on_paper(pixels: np.ndarray) -> np.ndarray:
    """Returns uint8 (h, w, 1 or 3): a picture without its alpha channel, if it has one.

    What shows through is white, or black where that is what the visible part stands out from: if the visible part is
    ink alone (less than half of the picture, or of nearly one level), it is the one further from it; else, around a
    visible page, the nearer one.
    """
    if pixels.shape[-1] in (1, 3):
        return pixels
    alpha = pixels[..., -1]
    if alpha.min() == 255:
        return pixels[..., :-1]
    counts = np.zeros(256, np.int64)  # of the visible grey levels
    for band in _bands(pixels):
        grey = with_channels(band[..., :-1], 1)[..., 0]
        counts += np.bincount(grey[band[..., -1] >= 128], minlength=256)
    low, middle, high = (_percentile(counts, share) for share in (0.05, 0.5, 0.95))
    light, ink_alone = middle >= 128, alpha.mean() < 127.5 or high - low < 64
    paper = 255 if light != ink_alone else 0

    def laid(band: np.ndarray) -> np.ndarray:
        share = band[..., -1:].astype(np.float32) / 255
        return np.rint(band[..., :-1] * share + paper * (1 - share)).astype(np.uint8)

    return _banded(laid, pixels, pixels.shape[-1] - 1)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns grey or RGB pixels, uint8 (h, w, 1 or 3), as grey or RGB: (h, w, `channels`)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return _banded(lambda band: np.rint(band @ _LUMA[:, None]).astype(np.uint8), pixels, 1)


def _bands(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """A picture (h, w, channels), or plane (h, w), as bands of whole lines."""
    lines = max(1, _BAND // pixels.shape[1])
    for top in range(0, len(pixels), lines):
        yield pixels[top : top + lines]


def _banded(function: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, channels: int) -> np.ndarray:
    """What a function of single pixels makes of all of them, uint8 (h, w, channels), band by band."""
    out = np.empty((*pixels.shape[:2], channels), np.uint8)
    for band, target in zip(_bands(pixels), _bands(out), strict=True):
        target[...] = function(band)
    return out


def _percentile(counts: np.ndarray, share: float) -> float:
    """The percentile of levels that occur `counts` times each, as np.percentile interpolates; 0 if there are none."""
    upto = np.cumsum(counts)
    place = share * (upto[-1] - 1)
    below, above = np.searchsorted(upto, [math.floor(place), math.ceil(place)], side="right") if upto[-1] else (0, 0)
    return float(below + (above - below) * (place - math.floor(place)))


def open_picture(path: Path, least: int | None = None) -> np.ndarray:
    """`decode_picture`, without the warnings of Pillow; not for threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_picture(path, least)


def decode_picture(path: str | Path, least: int | None = None) -> np.ndarray:
    """Reads a picture file: PNG, JPEG, GIF, BMP, TIFF or WebP, by its contents and not its name.

    The first frame of several; turned as its EXIF orientation says; 16-bit and float greys are scaled to 8 bits.

    Args:
      path: the file.
      least: as for `jpeg.decode_plain`; other pictures have their own size.

    Returns:
      uint8 (h, w, channels): grey, grey and alpha, RGB, or RGB and alpha.

    Raises:
      InputError: with the reason, but without the name of the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise InputError("expected a picture file, it is not a regular file")
        if not status.st_size:
            raise InputError("expected a picture file, it is empty")
        with open(path, "rb") as file:
            if file.read(2) == jpeg.START:
                file.seek(0)
                pixels = jpeg.decode_plain(file.read(), least)
                if pixels is not None:
                    return pixels
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                _check_size(image)
                position = file.tell()
                file.seek(0)
                png.check(file)
                file.seek(position)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _pixels(image)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"expected a PNG, JPEG, GIF, BMP, TIFF or WebP picture, {_arrived(path)}") from None
    except Image.DecompressionBombError:
        raise InputError(f"expected a picture of at most {MOST_PIXELS:,} pixels, it claims many more") from None
    except OSError as error:
        raise InputError(f"expected a readable picture, got: {error.strerror or error}") from None
    except Exception as error:  # Pillow raises almost any kind for a damaged file
        raise InputError(f"expected a readable picture, got: {str(error) or type(error).__name__}") from None


def _arrived(path: str | Path) -> str:
    """What a file seems to be that cannot be read as a picture."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in _PHONES:
        return f"got {_PHONES[start[8:12]]}; save it as JPEG or PNG"
    if start.startswith(b"%PDF"):
        return "got PDF; save the page as PNG"
    return "its contents are something else"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(f"expected a picture of at most {MOST_PIXELS:,} pixels, it claims {width:,} x {height:,}")
    if not width * height:
        raise InputError("expected a picture, it has no pixels")


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _eight_bits(np.asarray(image))
    transparent = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    out = np.empty((image.height, image.width, len(mode)), np.uint8)
    top = 0
    for band in _bands(out):
        part = image.crop((0, top, image.width, top + len(band))).convert(mode)
        band[...] = np.asarray(part).reshape(band.shape)
        top += len(band)
    return out


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of more than 8 bits (h, w) as uint8 (h, w, 1).

    White is 65535 for 16 bits, and for other integers or floats the least of 1, 255 and 65535 that is not exceeded.
    """

    def finite(band: np.ndarray) -> np.ndarray:
        return np.nan_to_num(band.astype(np.float32), posinf=0.0, neginf=0.0)

    brightest = max(finite(band).max() for band in _bands(values))
    white = next((w for w in (1, 255, 65535) if brightest <= w), brightest)
    return _banded(lambda band: np.rint(np.clip(finite(band) / white, 0, 1) * 255)[..., None], values, 1)


def find_pictures(paths: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
    """Replaces folders by the picture files in them and in their subfolders, sorted, hidden ones left out.

    In folders, pictures are recognised by their suffix; files named themselves are taken as they are.

    Returns:
      The files in the order of `paths`, and a line for each folder that has none or cannot be listed.
    """
    found: list[Path] = []
    faults: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(path)
            continue
        errors: list[OSError] = []
        inside = [
            Path(folder, name)
            for folder, folders, names in os.walk(path, onerror=errors.append)
            if not (folder != str(path) and any(part.startswith(".") for part in Path(folder).relative_to(path).parts))
            for name in names
            if name.lower().endswith(SUFFIXES + _NOT_READ) and not name.startswith(".")
        ]
        found += sorted(inside)
        faults += [
            f"{shown(Path(error.filename))}: expected a readable folder, got: {error.strerror}" for error in errors
        ]
        if not inside and not errors:
            faults.append(f"{shown(path)}: expected pictures in this folder, found no {', '.join(SUFFIXES)} file")
    return found, faults


def shown(path: Path) -> str:
    """The path as one line of text, whatever bytes it is made of."""
    return terminal.plain(str(path))
