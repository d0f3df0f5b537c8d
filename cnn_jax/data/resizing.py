"""The one place where images are brought to a size: that a model is made for, or that a source is told to give."""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import InputError

_WHOLE = (1, 3)  # channel counts Pillow resizes as one picture without giving any channel a special meaning


def fit_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Brings images to the size a model is made for.

    The rule, for images of height H and width W and a target (h, w):

    1. H = h and W = w: the same array, not copied.
    2. Neither side larger than its target, each at least three quarters of it: zeros all round, the image centred (an
       odd line of zeros goes to the bottom or the right). This is what LeCun et al. 1998, "Gradient-based learning
       applied to document recognition", section II.B, does with 28x28 digits in 32x32: strokes near the edge come to
       lie in the middle of some receptive field, and no pixel is made up.
    3. Otherwise the image is resized by the largest factor that fits both sides, keeping its aspect ratio (bicubic,
       with a wider, antialiasing filter when shrinking; each side at least one pixel), then centred on zeros as in 2.

    Args:
      images: uint8 (N, H, W, C).
      size: (h, w) in pixels.

    Returns:
      uint8 (N, h, w, C).

    Raises:
      InputError: if `size` is not two positive integers.
      ValueError: if `images` is not a uint8 array of four dimensions.
    """
    height, width = checked_size(size)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"fit_images: expected uint8 images (N, H, W, C), got {images.dtype} {images.shape}")
    old_height, old_width = images.shape[1:3]
    if (old_height, old_width) == (height, width):
        return images
    pads = old_height <= height <= old_height * 4 / 3 and old_width <= width <= old_width * 4 / 3
    if not pads:
        factor = min(height / old_height, width / old_width)
        images = _resize(images, max(1, round(old_height * factor)), max(1, round(old_width * factor)))
    return _centre(images, height, width)


def cut_square(image: np.ndarray, side: int) -> np.ndarray:
    """The square in the middle of an image whose shorter side is brought to the square's, bicubic as in `fit_images`.

    Args:
      image: uint8 (H, W, C).
      side: of the square, in pixels.

    Returns:
      uint8 (side, side, C).
    """
    height, width = (max(side, round(old * side / min(image.shape[:2]))) for old in image.shape[:2])
    if image.shape[:2] != (height, width):
        [image] = _resize(image[None], height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) as plain integers; InputError unless they are two positive ones."""
    try:
        height, width = (int(side) for side in size)
        valid = height >= 1 and width >= 1 and (height, width) == tuple(size)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f"image size: expected two positive whole numbers (height, width), got {size!r}")
    return height, width


def _centre(images: np.ndarray, height: int, width: int) -> np.ndarray:
    count, old_height, old_width, channels = images.shape
    top, left = (height - old_height) // 2, (width - old_width) // 2
    out = np.zeros((count, height, width, channels), np.uint8)
    out[:, top : top + old_height, left : left + old_width] = images
    return out


def _resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    channels = images.shape[-1]
    out = np.empty((len(images), height, width, channels), np.uint8)
    for source, target in zip(images, out, strict=True):
        if channels in _WHOLE:
            picture = Image.fromarray(source if channels > 1 else source[..., 0])
            resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
            target[...] = resized.reshape(target.shape)
        else:  # two or four channels: Pillow would take the last for transparency and weight the others by it
            for channel in range(channels):
                picture = Image.fromarray(np.ascontiguousarray(source[..., channel]))
                target[..., channel] = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return out
