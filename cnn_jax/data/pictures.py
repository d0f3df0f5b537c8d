"""Pictures from files, as the images that a model was trained on look."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import terminal
from cnn_jax.data.dataset import Statistics
from cnn_jax.data.drawings import light_on_dark, redraw
from cnn_jax.data.geometry import fit_images
from cnn_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # not all of Pillow's: some of those start other programs
# What phones write and Pillow may not read: by the brand in the file, and by their suffixes.
_PHONES = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}
_NOT_READ = (".heic", ".heif", ".avif")  # named, rather than passed over, where they are found in a folder
_MOST_PIXELS = 64_000_000  # half a gigabyte while it is read; a file of a few kilobytes can claim any size
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def read_picture(path: Path, image_shape: tuple[int, int, int], statistics: Statistics) -> np.ndarray:
    """Reads a picture file as an image of a data set: `open_picture`, then `like_training`.

    Returns:
      uint8 (H, W, C) = `image_shape`.

    Raises:
      InputError: naming the file, in one line, if it cannot be read or nothing is drawn on it.
    """
    try:
        return like_training(open_picture(path), image_shape, statistics)
    except InputError as error:
        raise InputError(f"{shown(path)}: {error}") from None


def like_training(pixels: np.ndarray, image_shape: tuple[int, int, int], statistics: Statistics) -> np.ndarray:
    """Brings a picture to what the images of a data set look like.

    - Transparency is laid on white, or on black if what is visible is light.
    - For a data set of drawings (one channel, dark background: `statistics.ink` is a number), a picture whose border
      is light is inverted. One of the data set's own size is then used as it is. Any other is a drawing or a scan: the
      paper is subtracted, what is drawn is cut out without specks, thin strokes are thickened, and it is scaled to be
      as large as in the data set and centred by its mass; see `cnn_jax.data.drawings`.
    - For other one-channel data sets, grey levels; for three channels, RGB; brought to the data set's size by
      `fit_images`.

    Args:
      pixels: uint8 (h, w, channels): grey, grey and alpha, RGB, or RGB and alpha.
      image_shape: (H, W, C) of the data set's images.
      statistics: of its training images.

    Returns:
      uint8 (H, W, C).

    Raises:
      InputError: nothing is drawn on it, or the data set has neither one nor three channels.
    """
    *size, channels = image_shape
    if channels not in (1, 3):
        raise InputError(f"expected a model for images of 1 or 3 channels, this one is for {channels}")
    pixels = with_channels(on_paper(pixels), channels)
    if statistics.ink is None:
        return fit_images(pixels[None], (size[0], size[1]))[0]
    picture = light_on_dark(pixels[..., 0])
    if picture.shape != tuple(size):
        picture = redraw(picture, (size[0], size[1]), statistics)
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
    colour, alpha = pixels[..., :-1], pixels[..., -1:].astype(np.float32) / 255
    if np.min(alpha) == 1:
        return colour
    visible = with_channels(colour, 1)[alpha[..., 0] >= 0.5]
    low, middle, high = np.percentile(visible, [5, 50, 95]) if visible.size else (0, 0, 0)
    light, ink_alone = middle >= 128, alpha.mean() < 0.5 or high - low < 64
    paper = 255 if light != ink_alone else 0
    return np.rint(colour * alpha + paper * (1 - alpha)).astype(np.uint8)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns grey or RGB pixels, uint8 (h, w, 1 or 3), as grey or RGB: (h, w, `channels`)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.rint(pixels @ _LUMA[:, None]).astype(np.uint8)


def open_picture(path: Path) -> np.ndarray:
    """Reads a picture file: PNG, JPEG, GIF, BMP, TIFF or WebP, by its contents and not its name.

    The first frame of several; turned as its EXIF orientation says; 16-bit and float greys are scaled to 8 bits.

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                _check_size(image)
                image.load()
                return _pixels(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"expected a PNG, JPEG, GIF, BMP, TIFF or WebP picture, {_arrived(path)}") from None
    except Image.DecompressionBombError:
        raise InputError(f"expected a picture of at most {_MOST_PIXELS:,} pixels, it claims many more") from None
    except OSError as error:
        raise InputError(f"expected a readable picture, got: {error.strerror or error}") from None
    except Exception as error:  # Pillow raises almost any kind for a damaged file
        raise InputError(f"expected a readable picture, got: {str(error) or type(error).__name__}") from None


def _arrived(path: Path) -> str:
    """What a file seems to be that is no picture that can be read."""
    with path.open("rb") as file:
        start = file.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in _PHONES:
        return f"got {_PHONES[start[8:12]]}; save it as JPEG or PNG"
    if start.startswith(b"%PDF"):
        return "got PDF; save the page as PNG"
    return "its contents are of no such kind"


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise InputError(f"expected a picture of at most {_MOST_PIXELS:,} pixels, it claims {width:,} x {height:,}")
    if not width * height:
        raise InputError("expected a picture, it has no pixels")


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _eight_bits(np.asarray(image))[..., None]
    transparent = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    pixels = np.asarray(image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey levels of more than 8 bits as uint8.

    White is 65535 for 16 bits, and for other integers or floats the least of 1, 255 and 65535 that is not exceeded.
    """
    values = np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)
    brightest = values.max()
    white = next((w for w in (1, 255, 65535) if brightest <= w), brightest)
    return np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


def find_pictures(paths: tuple[Path, ...]) -> tuple[list[Path], list[str]]:
    """Replaces folders by the picture files in them and in their subfolders, sorted, hidden ones left out.

    Files are told by their suffix in folders, and taken as they are where they are named themselves.

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
