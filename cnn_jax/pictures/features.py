"""The feature maps of an image: what it becomes, layer by layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.pictures import canvas
from cnn_jax.pictures.attribution import layer_names, layer_outputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 8
_DEEP = 20  # layers; with two rows for each of more the picture has no end
_INPUT, _BARS, _HEADING, _SPACE = 0.9, 0.4, 0.21, 0.08  # inches
_NAMED = 20  # most scores that have their classes' names below them


def feature_maps(
    model: nn.Module, variables: Any, image: Any, *, class_names: Sequence[str] | None = None, limit: int | None = None
) -> Figure:
    """Draws what an image becomes, from the input at the top down to the scores: a strip of maps for every layer.

    Each layer has a scale of its own: blue is below zero, white is zero, red is above. A volume without height and
    width is drawn as bars. Layers are shown as they leave the module, before an activation function that follows.

    Args:
      model: a Linen module called as `model.apply(variables, images)`.
      variables: its parameters and statistics.
      image: (H, W, C) floats, normalised as the model is used to.
      class_names: names for the last volume, where it is the scores; that of the likeliest class is bold.
      limit: most maps to show of a layer; by default two rows of 8, or one if the model has more than 20 layers.

    Returns:
      A figure with axes for the input and then for each layer in turn.
    """
    image = np.asarray(image)
    names = layer_names(model, image.shape)
    limit = limit or (_COLUMNS if len(names) > _DEEP else 2 * _COLUMNS)
    outputs, scores = jax.device_get(jax.jit(functools.partial(_run, model))(variables, image[None]))
    volumes = [_squeezed(output[0]) for output in outputs]

    width = canvas.WIDTH - 2 * canvas.MARGIN
    named = class_names is not None and volumes[-1].ndim == 1 and len(volumes[-1]) == len(class_names) <= _NAMED
    heights = [_height(volume, limit, width) for volume in volumes]
    total = _HEADING + _INPUT + sum(_SPACE + _HEADING + height for height in heights) + 2 * canvas.MARGIN
    figure = canvas.new_figure(total + (_labels(class_names)[2] if named and class_names else 0))
    top = canvas.MARGIN + _HEADING
    axes = canvas.place(figure, canvas.MARGIN, top, _INPUT * image.shape[1] / image.shape[0], _INPUT)
    canvas.show_grid(axes, [canvas.as_picture(image)], 1, cmap="gray", vmin=0, vmax=1)
    _head(axes, "input", image.shape)
    top += _INPUT
    for name, output, volume, height in zip(names, outputs, volumes, heights, strict=True):
        top += _SPACE + _HEADING
        axes = canvas.place(figure, canvas.MARGIN, top, _grid_width(volume, limit, width), height)
        note = ""
        if volume.ndim == 1:
            _draw_bars(axes, volume)
        else:
            note = _draw_maps(axes, volume, limit)
        _head(axes, name, output.shape[1:], note)
        top += height
    if named and class_names is not None:
        _name_bars(axes, int(scores.argmax()), class_names)
    return figure


def _run(model: nn.Module, variables: Any, images: jax.Array) -> tuple[list[jax.Array], Any]:
    """What every layer gives, and the scores: those are not always what the last layer gives."""
    return layer_outputs(model, variables, images), model.apply(variables, images)


def _squeezed(volume: np.ndarray) -> np.ndarray:
    """A volume of one position, (1, 1, features), as (features,)."""
    return volume.reshape(-1) if volume.shape[-1] == volume.size else volume


def _columns(volume: np.ndarray, limit: int) -> tuple[int, int]:
    count = min(volume.shape[-1], limit)
    return count, min(count, _COLUMNS)


def _grid_width(volume: np.ndarray, limit: int, width: float) -> float:
    if volume.ndim == 1:
        return width
    tile = width / (_COLUMNS * (1 + canvas.GAP) - canvas.GAP)
    return tile * (_columns(volume, limit)[1] * (1 + canvas.GAP) - canvas.GAP)


def _height(volume: np.ndarray, limit: int, width: float) -> float:
    if volume.ndim == 1:
        return _BARS
    count, columns = _columns(volume, limit)
    return canvas.grid_height(count, columns, _grid_width(volume, limit, width), volume.shape[0] / volume.shape[1])


def _head(axes: Axes, name: str, shape: Sequence[int], note: str = "") -> None:
    size = "x".join(map(str, shape))
    axes.set_title(f"{name}  {size}{note}", loc="left", fontsize=canvas.LABEL, pad=3, parse_math=False)


def _draw_maps(axes: Axes, volume: np.ndarray, limit: int) -> str:
    greatest = float(np.abs(volume).max()) or 1.0
    count, columns = _columns(volume, limit)
    tiles = list(np.moveaxis(volume[..., :count], -1, 0))
    canvas.show_grid(axes, tiles, columns, cmap=canvas.DIVERGING, vmin=-greatest, vmax=greatest)
    return f", the first {count} maps" if count < volume.shape[-1] else ""


def _draw_bars(axes: Axes, values: np.ndarray) -> None:
    places = np.arange(len(values))
    colours = np.where(values < 0, canvas.BLUE, canvas.VERMILION)
    # One collection of lines; as many rectangles take longer to draw than all the rest of the figure.
    thick = 0.6 * 72 * (canvas.WIDTH - 2 * canvas.MARGIN) / max(len(values), 10)
    axes.vlines(places, 0, values, colors=list(colours), linewidth=thick)
    axes.axhline(0, color=canvas.GREY, linewidth=0.5)
    axes.set_xlim(-0.6, max(len(values), 10) - 0.4)
    greatest = float(np.abs(values).max()) or 1.0
    axes.set_ylim(min(0.0, float(values.min())) - 0.05 * greatest, max(0.0, float(values.max())) + 0.05 * greatest)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _labels(class_names: Sequence[str]) -> tuple[list[str], bool, float]:
    """The labels of scores, whether they stand upright for want of room, and the room below the bars in inches."""
    # DejaVu's letters are about 0.62 of their height wide.
    letter = 0.62 * canvas.SMALL / 72
    labels = [canvas.short(name) for name in class_names]
    longest = max(map(len, labels)) * letter
    upright = longest > (canvas.WIDTH - 2 * canvas.MARGIN) / max(len(labels), 10)
    return labels, upright, longest + 0.06 if upright else 0.18


def _name_bars(axes: Axes, winner: int, class_names: Sequence[str]) -> None:
    labels, upright, _ = _labels(class_names)
    rotation = 90 if upright else 0
    axes.set_xticks(range(len(labels)), labels, fontsize=canvas.SMALL, rotation=rotation, parse_math=False)
    axes.tick_params(length=0, pad=2)
    axes.get_xticklabels()[winner].set_fontweight("bold")
