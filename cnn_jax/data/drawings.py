"""From a drawing or a scan of any size to a picture like those of a data set of drawings, such as MNIST.

Everything here is arithmetic on greyscale arrays; `cnn_jax.data.pictures` opens the files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import InputError

_SIDE = 512  # longer side that larger drawings are first brought down to: strokes stay many pixels wide
_SAMPLE = 64  # pixels a side that the paper is fitted to; a smooth surface needs no more
_FAINTEST = 12.0  # of 255: nothing less above the paper counts as ink
_NOISES = 6.0  # ink stands out from the paper by this many standard deviations of the paper's own noise
_QUARTER = 0.25  # of the ink's level; as `Ink.extent` is measured
_THINNEST = 0.7  # of the mean ink of the training images; hardly one of those has less for its size
_SPECK = 0.02  # a mark smaller than this share of the largest one is dirt; so is all, if none is this long
COUNTED = 2000  # images that `Ink.extent` is measured on; the median of that many is settled to well under a pixel


@dataclass(frozen=True, kw_only=True)
class Ink:
    """How the images of a data set are drawn: those of one channel with a dark background, such as MNIST's.

    Attributes:
      extent: the median over images of the longer side of the box around all pixels brighter than a quarter of the
        image's brightest, as a fraction of the longer image side. It says how large the drawing is in its image.
      mean: mean of images / 255.
    """

    extent: float
    mean: float


def measure_ink(images: np.ndarray, mean: float | None = None) -> Ink | None:
    """Returns the `Ink` of uint8 images (N, H, W, C); None where they are not drawings, light on dark.

    With their mean / 255 given, the first `COUNTED` images are enough.
    """
    sample = images[:COUNTED]
    count, height, width, channels = sample.shape
    border = np.concatenate([sample[:, [0, -1]].reshape(count, -1), sample[:, :, [0, -1]].reshape(count, -1)], axis=1)
    if channels != 1 or np.median(border) / 255 >= 0.5:
        return None
    brightest = sample.max(axis=(1, 2, 3), keepdims=True)
    bright = (sample > _QUARTER * brightest)[brightest.ravel() > 0, ..., 0]
    if not len(bright):
        return None
    longest = np.maximum(_length(bright.any(axis=2)), _length(bright.any(axis=1)))
    mean = float(images.mean() / 255) if mean is None else mean
    return Ink(extent=float(np.median(longest) / max(height, width)), mean=mean)


def _length(occupied: np.ndarray) -> np.ndarray:
    """From the first to the last True of every row of (N, L); each row has at least one."""
    first = occupied.argmax(axis=1)
    return occupied.shape[1] - occupied[:, ::-1].argmax(axis=1) - first


def redraw(picture: np.ndarray, size: tuple[int, int], like: Ink) -> np.ndarray:
    """Returns what is drawn in a light-on-dark uint8 picture of any size as a data set would show it: uint8 (H, W).

    Args:
      picture: uint8 (h, w).
      size: (H, W) of the data set's images.
      like: of its training images.

    Raises:
      InputError: nothing is drawn on it.
    """
    # The mean of the images over the square that their drawings fill.
    ink = thicken(isolate_ink(picture), _THINNEST * like.mean / like.extent**2)
    return place(ink, size, like.extent)


def light_on_dark(grey: np.ndarray) -> np.ndarray:
    """Returns a uint8 picture (H, W) with its background dark: inverted if its border is light.

    The border is light if its median lies in the upper half of the levels that the picture has, so that grey paper
    counts as light where the ink is darker.
    """
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    light = 2 * float(np.median(border)) > float(grey.min()) + float(grey.max())
    return 255 - grey if light else grey


def isolate_ink(picture: np.ndarray) -> np.ndarray:
    """Returns what is drawn in a light-on-dark uint8 picture (H, W), cut out: float32 (h, w), 0 paper to 1 ink.

    As `lift_ink`; specks are wiped off.

    Raises:
      InputError: nothing is drawn on it.
    """
    from scipy import ndimage

    ink, inked = lift_ink(picture, _SIDE)
    if not inked.any():
        raise InputError("no drawing found: expected strokes that stand out from their background")

    # Marks this close to each other are one: a stroke that noise has broken is no row of specks.
    near = ndimage.binary_dilation(inked, np.ones((3, 3)), iterations=max(1, round(max(inked.shape) / 200)))
    marks, count = ndimage.label(near, np.ones((3, 3)))
    sizes = np.bincount(marks[inked], minlength=count + 1)
    kept = (sizes >= _SPECK * np.max(sizes)) & (sizes > 0)
    longest = max(max(s.stop - s.start for s in box) for box in ndimage.find_objects(marks))
    if longest < _SPECK * max(inked.shape):
        raise InputError("no drawing found: expected strokes, found specks only")
    rows, columns = _occupied(inked & kept[marks])
    return np.where(kept[marks], ink, np.float32(0))[rows, columns]


def lift_ink(picture: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Separates what is drawn in a light-on-dark uint8 picture (H, W) from its paper.

    The paper's brightness may vary smoothly: a quadratic surface fitted to it is subtracted. Ink is what stands out
    from the paper and its noise, by a quarter of the ink's own level at least.

    Args:
      picture: uint8 (H, W).
      longest: side in pixels that larger pictures are brought down to first.

    Returns:
      float32 (h, w), from 0, paper, to 1, ink at its own level; and bool (h, w), where there is ink.
    """
    picture = _within(picture, longest)
    above = picture - _paper(picture)
    paper = np.abs(above[above < _QUARTER * np.max(above)])
    noise = 1.4826 * np.median(paper) if paper.size else 0.0  # the median deviation of a normal distribution, scaled
    inked = above > max(_FAINTEST, _NOISES * noise)
    if not inked.any():
        return np.zeros(picture.shape, np.float32), inked
    level = np.percentile(above[inked], 90)
    return np.clip(above / level, 0.0, 1.0).astype(np.float32), inked & (above > _QUARTER * level)


def thicken(ink: np.ndarray, coverage: float) -> np.ndarray:
    """Returns drawn ink with its strokes made thicker, if need be, until ink covers enough of a square around it.

    A thin pen would leave a faint trace in a picture of a few pixels a side, unlike those of the data set.

    Args:
      ink: float32 (h, w), 0 paper to 1 ink, cut to what is drawn.
      coverage: least share of a square on the drawing's longer side that is to be ink, from 0 to 1.

    Returns:
      float32 (h + 2 r, w + 2 r), r being how far the strokes were widened on each side; `ink` itself if r = 0.
    """
    from scipy import ndimage

    width = max(1, max(ink.shape) // 4)  # the furthest that strokes may grow
    distance = ndimage.distance_transform_edt(np.pad(ink, width) < 0.5)
    within = np.bincount(np.minimum(distance, width).astype(int).ravel()).cumsum()
    # With strokes that reach r further, the drawing's sides are 2 r longer, and so is the square.
    wanted = coverage * (max(ink.shape) + 2 * np.arange(len(within))) ** 2
    enough = np.flatnonzero(within >= wanted)
    radius = int(enough[0]) if enough.size else width
    if ink.sum() >= wanted[0] or not radius:
        return ink
    rows, columns = (slice(width - radius, width + side + radius) for side in ink.shape)
    grown = distance[rows, columns]
    return np.clip(radius + 1 - grown, 0.0, 1.0).astype(np.float32)


def place(ink: np.ndarray, size: tuple[int, int], extent: float) -> np.ndarray:
    """Returns drawn ink as a uint8 picture (H, W), sized and placed like the drawings of a data set.

    MNIST is made like this: the digit's longer side takes 20 of 28 pixels, the aspect ratio kept, grey levels from
    antialiasing, and its centre of mass lies in the middle (Bottou et al. 1994, and the page of the MNIST database).

    Args:
      ink: float32 (h, w), 0 paper to 1 ink, cut to what is drawn.
      size: (H, W) of the result.
      extent: the longer side of what is drawn as a fraction of the longer side of the result: `Ink.extent`.

    Where the centre of mass would push part of the drawing out, the drawing stops at the edge. Drawings are placed to
    fractions of a pixel: in pictures as small as 8x8, half a pixel more to one side is a twentieth of the accuracy.
    """
    scale = min(extent * max(size) / max(ink.shape), size[0] / ink.shape[0], size[1] / ink.shape[1])
    margins = [math.ceil(side / scale) + 1 for side in size]
    region = []  # of the drawing with margins all round, which the picture shows: first and last edge along each axis
    for axis, (side, margin) in enumerate(zip(size, margins, strict=True)):
        mass, length = ink.sum(axis=1 - axis), ink.shape[axis]
        middle = float(mass @ (np.arange(length) + 0.5) / mass.sum())
        start = min(max(side / 2 - middle * scale, 0.0), side - length * scale)
        region.append((margin - start / scale, margin + (side - start) / scale))
    small = _resized(np.pad(ink, [(margin, margin) for margin in margins]), size, region)
    # Strokes thinner than a pixel fade; the data sets' are full black.
    return np.rint(np.clip(small / small.max(), 0.0, 1.0) * 255).astype(np.uint8)


def _paper(picture: np.ndarray) -> np.ndarray:
    """The quadratic surface, float (H, W), that fits the background of a light-on-dark picture."""
    step = max(1, -(-max(picture.shape) // _SAMPLE))
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    values = picture[::step, ::step].astype(np.float64)
    # Broadcast terms of the surface: 1, x, y, x^2, xy, y^2, each side of the picture running from -1 to 1.
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in picture.shape), indexing="ij", sparse=True)
    terms = [np.ones((1, 1)), x, y, x * x, x * y, y * y]
    sampled = np.stack([np.broadcast_to(term, picture.shape)[::step, ::step] for term in terms], axis=-1)
    surface = np.full_like(values, np.median(border))
    # What stands out more than half as much as the ink is left out of the first fit, a quarter later on.
    for share in (0.5, _QUARTER, _QUARTER):
        above = values - surface
        paper = above <= share * np.max(above)
        rows = sampled[paper]
        weights, *_ = np.linalg.lstsq(rows.T @ rows, rows.T @ values[paper], rcond=None)
        surface = sampled @ weights
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


def _occupied(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _within(picture: np.ndarray, side: int) -> np.ndarray:
    factor = side / max(picture.shape)
    if factor >= 1:
        return picture
    return _resized(picture, tuple(max(1, round(length * factor)) for length in picture.shape))


def _resized(
    picture: np.ndarray, shape: tuple[int, ...], region: Sequence[tuple[float, float]] | None = None
) -> np.ndarray:
    """A picture, or a region of it, resized, float32: to fewer pixels by the mean over each, to more by interpolation.

    The region is its first and last edge along each axis, in pixels and fractions of them.
    """
    from PIL import Image

    (top, bottom), (left, right) = region or [(0.0, float(side)) for side in picture.shape]
    shrinks = shape[0] * shape[1] <= (bottom - top) * (right - left)
    if shrinks and region:  # Pillow's own means are over whole pixels, so up to half a pixel of the result off
        rows, columns = map(_means, picture.shape, region, shape)
        return rows @ picture.astype(np.float32) @ columns.T
    resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    image = Image.fromarray(picture).convert("F")  # uint8 or float32; there is no other copy of it in floats
    return np.asarray(image.resize((shape[1], shape[0]), resampling, box=(left, top, right, bottom)))


def _means(side: int, edges: tuple[float, float], number: int) -> np.ndarray:
    """Weights (number, side), float32, that take means over equal parts of a region of `side` pixels."""
    between = np.linspace(*edges, number + 1)
    first, last = np.clip(between[:-1, None], 0, side), np.clip(between[1:, None], 0, side)
    pixels = np.arange(side)
    shares = np.clip(np.minimum(last, pixels + 1) - np.maximum(first, pixels), 0, None)
    return (shares / (between[1] - between[0])).astype(np.float32)
