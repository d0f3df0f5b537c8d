"""The feature maps of an image: what it becomes, layer by layer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.pictures import canvas
from cnn_jax.pictures.attribution import layer_names, layer_outputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = canvas.WIDTH - 2 * canvas.MARGIN
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
      class_names: names for the last volume, where it is the scores; that of the most likely class is bold.
      limit: most maps to show of a layer; by default two rows of 8, or one if the model has more than 20 layers.

    Returns:
      A figure with axes for the input and then for each layer in turn.
    """
    return _figure(_strips(model, variables, image, class_names, limit))


def feature_maps_in_two(
    model: nn.Module, variables: Any, image: Any, *, class_names: Sequence[str] | None = None, limit: int | None = None
) -> tuple[Figure, Figure]:
    """`feature_maps` as two figures of about one height, to stand side by side: the first layers, and the rest."""
    strips = _strips(model, variables, image, class_names, limit)
    ends = np.cumsum([_height(strip) for strip in strips])
    first = 1 + int(np.abs(2 * ends[:-1] - ends[-1]).argmin())
    return _figure(strips[:first]), _figure(strips[first:])


@dataclass(frozen=True, kw_only=True)
class _Strip:
    """What is drawn in a row.

    Attributes:
        name: of the layer.
        shape: of what it gives.
        values: (h, w, features), (features,), or the input itself (H, W, C).
        limit: how many maps are shown at most; None shows the values as one picture.
        class_names: of scores, if they are to be named.
        winner: the class that the model finds most likely.
    """

    name: str
    shape: Sequence[int]
    values: np.ndarray
    limit: int | None = None
    class_names: Sequence[str] | None = None
    winner: int = 0


def _strips(
    model: nn.Module, variables: Any, image: Any, class_names: Sequence[str] | None, limit: int | None
) -> list[_Strip]:
    """The input, and what every layer makes of it."""
    image = np.asarray(image)
    names = layer_names(model, image.shape)
    limit = limit or (_COLUMNS if len(names) > _DEEP else 2 * _COLUMNS)
    outputs, scores = jax.device_get(jax.jit(functools.partial(_run, model))(variables, image[None]))
    strips = [
        _Strip(name=name, shape=output.shape[1:], values=_squeezed(output[0]), limit=limit)
        for name, output in zip(names, outputs, strict=True)
    ]
    last = strips[-1].values
    if class_names is not None and last.ndim == 1 and len(last) == len(class_names) <= _NAMED:
        strips[-1] = dataclasses.replace(strips[-1], class_names=class_names, winner=int(scores.argmax()))
    return [_Strip(name="input", shape=image.shape, values=image), *strips]


def _run(model: nn.Module, variables: Any, images: jax.Array) -> tuple[list[jax.Array], Any]:
    """What every layer gives, and the scores: those are not always what the last layer gives."""
    return layer_outputs(model, variables, images), model.apply(variables, images)


def _squeezed(volume: np.ndarray) -> np.ndarray:
    """A volume of one position, (1, 1, features), as (features,)."""
    return volume.reshape(-1) if volume.shape[-1] == volume.size else volume


def _figure(strips: Sequence[_Strip]) -> Figure:
    figure = canvas.new_figure(sum(map(_height, strips)) + 2 * canvas.MARGIN)
    top = canvas.MARGIN
    for strip in strips:
        _draw(figure, top + _HEADING, strip)
        top += _height(strip)
    return figure


def _height(strip: _Strip) -> float:
    """Of a strip in inches, with its heading and the room below it."""
    return _HEADING + _inner_height(strip) + (_labels(strip.class_names)[2] if strip.class_names else _SPACE)


def _inner_height(strip: _Strip) -> float:
    if strip.limit is None:
        return _INPUT
    if strip.values.ndim == 1:
        return _BARS
    aspect = strip.values.shape[0] / strip.values.shape[1]
    return canvas.grid_height(*_grid(strip.values, strip.limit), aspect)


def _grid(volume: np.ndarray, limit: int) -> tuple[int, int, float]:
    """Number of maps shown, number of columns, and width of the whole in inches."""
    count = min(volume.shape[-1], limit)
    columns = min(count, _COLUMNS)
    tile = _WIDTH / (_COLUMNS * (1 + canvas.GAP) - canvas.GAP)
    return count, columns, tile * (columns * (1 + canvas.GAP) - canvas.GAP)


def _draw(figure: Figure, top: float, strip: _Strip) -> None:
    values, height, note = strip.values, _inner_height(strip), ""
    if strip.limit is None:
        axes = canvas.place(figure, canvas.MARGIN, top, height * values.shape[1] / values.shape[0], height)
        canvas.show_grid(axes, [canvas.as_picture(values)], 1, cmap="gray", vmin=0, vmax=1)
    elif values.ndim == 1:
        axes = canvas.place(figure, canvas.MARGIN, top, _WIDTH, height)
        _draw_bars(axes, values)
        if strip.class_names:
            _name_bars(axes, strip.winner, strip.class_names)
    else:
        count, columns, width = _grid(values, strip.limit)
        axes = canvas.place(figure, canvas.MARGIN, top, width, height)
        greatest = float(np.abs(values).max()) or 1.0
        tiles = list(np.moveaxis(values[..., :count], -1, 0))
        canvas.show_grid(axes, tiles, columns, cmap=canvas.DIVERGING, vmin=-greatest, vmax=greatest)
        note = f", the first {count} maps" if count < values.shape[-1] else ""
    size = "x".join(map(str, strip.shape))
    axes.set_title(f"{strip.name}  {size}{note}", loc="left", fontsize=canvas.LABEL, pad=3, parse_math=False)


def _draw_bars(axes: Axes, values: np.ndarray) -> None:
    places = np.arange(len(values))
    colours = np.where(values < 0, canvas.BLUE, canvas.VERMILION)
    # One collection of lines; as many rectangles take longer to draw than all the rest of the figure.
    thick = 0.6 * 72 * _WIDTH / max(len(values), 10)
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
    labels = canvas.labels(class_names)
    longest = canvas.room(labels, canvas.SMALL)
    upright = longest > _WIDTH / max(len(labels), 10)
    return labels, upright, longest + 0.06 if upright else 0.18


def _name_bars(axes: Axes, winner: int, class_names: Sequence[str]) -> None:
    labels, upright, _ = _labels(class_names)
    rotation = 90 if upright else 0
    axes.set_xticks(range(len(labels)), labels, fontsize=canvas.SMALL, rotation=rotation, parse_math=False)
    axes.tick_params(length=0, pad=2)
    axes.get_xticklabels()[winner].set_fontweight("bold")
    canvas.entitle(axes.get_xticklabels(), class_names)
