"""Heat maps laid over the pictures they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEADING, _LINE, _SPACE = 0.21, 0.15, 0.08  # inches


def heat_maps(images: Any, maps: Mapping[str, Any], *, captions: Sequence[str] | None = None) -> Figure:
    """Draws pictures and, below them, the same pictures with maps of what a score depends on laid over them.

    Each map has a scale of its own, from 0 (the picture stays as it is, only darker) to its greatest value (bright
    yellow); what is negative in it is not shown.

    Args:
      images: (N, H, W, C), uint8 or floats.
      maps: by what their row is to be called, (N, h, w) each, as `grad_cam`, `class_activation_map` and `saliency` give
        them for one image; smaller maps are interpolated linearly.
      captions: what to write below each picture, in one line or more.

    Returns:
      A figure with axes for the pictures and then for each row of maps, one tile a picture.

    Raises:
      ValueError: a row does not have one map for each picture.
    """
    pictures = [canvas.as_picture(image) for image in np.asarray(images)]
    for name, row in maps.items():
        if np.ndim(row) != 3 or len(row) != len(pictures):
            raise ValueError(f"heat_maps: expected {len(pictures)} maps (h, w) of {name!r}, got shape {np.shape(row)}")
    width = canvas.WIDTH - 2 * canvas.MARGIN
    size = pictures[0].shape[:2]
    columns = max(len(pictures), 4)
    height = canvas.grid_height(len(pictures), columns, width, size[0] / size[1])
    caption = _LINE * max((text.count("\n") + 1.5 for text in captions or ()), default=0)
    figure = canvas.new_figure(height + caption + len(maps) * (_SPACE + _HEADING + height) + 2 * canvas.MARGIN)
    axes = canvas.place(figure, canvas.MARGIN, canvas.MARGIN, width, height)
    canvas.show_grid(axes, pictures, columns, cmap="gray", vmin=0, vmax=1)
    for index, text in enumerate(captions or ()):
        left, _ = canvas.tile_corner(index, columns, 1.0)
        place = (left + 0.5, size[0] / size[1] + 0.05)
        axes.text(*place, text, ha="center", va="top", fontsize=canvas.SMALL, parse_math=False)
    top = canvas.MARGIN + height + caption
    for name, row in maps.items():
        top += _SPACE + _HEADING
        axes = canvas.place(figure, canvas.MARGIN, top, width, height)
        tiles = [laid_over(picture, heat) for picture, heat in zip(pictures, np.asarray(row), strict=True)]
        canvas.show_grid(axes, tiles, columns)
        axes.set_title(name, loc="left", fontsize=canvas.LABEL, pad=3, parse_math=False)
        top += height
    return figure


def laid_over(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A heat map over a picture.

    Args:
      picture: (H, W) or (H, W, 3) from 0 to 1.
      heat: (h, w); its positive values are brought to (H, W) and scaled to a greatest value of 1.

    Returns:
      RGB (H, W, 3) from 0 to 1: the picture at half its brightness, and the map's colour instead in the map's measure.
    """
    from matplotlib import colormaps
    from PIL import Image

    drawn = Image.fromarray(np.maximum(heat, 0).astype(np.float32))
    heat = np.asarray(drawn.resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
    heat = heat / (heat.max() or 1.0)
    colour = colormaps["inferno"](heat)[..., :3]
    grey = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    share = heat[..., None] ** 0.5 * 0.8
    return 0.6 * grey * (1 - share) + colour * share
