"""The filters of a convolution, each weight a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.pictures import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 8
_MOST = 16  # channels and filters shown of a layer with more than three channels
_HEADING, _SCALE, _WIDEST = 0.22, 0.32, 0.75  # inches


def filters(kernel: Any, *, limit: int = 64) -> Figure:
    """Draws the filters of a layer.

    All weights share one scale: blue below zero, white at zero, red above. Filters over three channels are drawn in
    those channels' colours instead, grey standing for zero. A filter over two channels, or more than three, is a
    column of as many pictures, one a channel; of such layers the first 16 channels of the first 16 filters are shown.

    Args:
      kernel: (height, width, channels, filters), as the parameter `kernel` of a convolution.
      limit: most filters to show of a layer with one or three channels.

    Returns:
      A figure whose tiles hold the weights.

    Raises:
      ValueError: the kernel has another number of dimensions.
    """
    kernel = _checked("filters", kernel)
    kernel, note = _first(kernel, limit)
    height = _height(kernel)
    figure = canvas.new_figure(_HEADING + height + _SCALE + 2 * canvas.MARGIN)
    _draw(figure, canvas.MARGIN, kernel, f"filters {_size(kernel)}{note}", _greatest(kernel))
    _end(figure, kernel, _greatest(kernel))
    return figure


def filters_before_after(before: Any, after: Any, *, limit: int = 24) -> Figure:
    """Draws the same filters before and after training, on one scale, so that growth shows as well as shape.

    In a first layer look for edges (one side unlike the other), bars and corners: before training there are none.

    Args:
      before: (height, width, channels, filters), of the state that training began from.
      after: the same, of a trained state.
      limit: most filters to show of a layer with one or three channels.

    Returns:
      A figure with one group of tiles for each.

    Raises:
      ValueError: a kernel has another number of dimensions, or the two differ in shape.
    """
    kernels = [_checked("filters_before_after", kernel) for kernel in (before, after)]
    if kernels[0].shape != kernels[1].shape:
        shapes = " and ".join(str(kernel.shape) for kernel in kernels)
        raise ValueError(f"filters_before_after: expected two kernels of one shape, got {shapes}")
    kernels, notes = zip(*(_first(kernel, limit) for kernel in kernels), strict=True)
    limit_of_both = max(map(_greatest, kernels))
    height = _HEADING + _height(kernels[0])
    figure = canvas.new_figure(2 * height + _SCALE + 3 * canvas.MARGIN)
    for index, (kernel, heading) in enumerate(zip(kernels, ("before training", "after training"), strict=True)):
        top = canvas.MARGIN + index * (height + canvas.MARGIN)
        _draw(figure, top, kernel, f"{heading}{notes[index]}", limit_of_both)
    _end(figure, kernels[0], limit_of_both)
    return figure


def _checked(caller: str, kernel: Any) -> np.ndarray:
    kernel = np.asarray(kernel)
    if kernel.ndim != 4:
        raise ValueError(f"{caller}: expected a kernel (height, width, channels, filters), got shape {kernel.shape}")
    return kernel


def _first(kernel: np.ndarray, limit: int) -> tuple[np.ndarray, str]:
    """As much of the kernel as is shown, and how much that is where it is not all."""
    channels, count = kernel.shape[2:]
    if channels in (1, 3):
        return kernel[..., :limit], f", {limit} of {count} filters" if count > limit else ""
    note = f", {min(count, _MOST)} of {count} filters" if count > _MOST else ""
    note += f", {_MOST} of {channels} channels" if channels > _MOST else ""
    return kernel[:, :, :_MOST, :_MOST], note


def _greatest(kernel: np.ndarray) -> float:
    return float(np.abs(kernel).max()) or 1.0


def _size(kernel: np.ndarray) -> str:
    return "x".join(map(str, kernel.shape[:3]))


def _grid(kernel: np.ndarray) -> tuple[int, int, float]:
    """Number of tiles, number of columns, and width of the whole in inches."""
    channels, count = kernel.shape[2:]
    # Rows of about the same length: a last row with one filter in it looks like a mistake.
    columns = -(-count // -(-count // _COLUMNS)) if channels in (1, 3) else count
    tiles = count if channels in (1, 3) else channels * count
    return tiles, columns, min(canvas.WIDTH - 2 * canvas.MARGIN, columns * _WIDEST)


def _height(kernel: np.ndarray) -> float:
    return canvas.grid_height(*_grid(kernel), kernel.shape[0] / kernel.shape[1])


def _draw(figure: Figure, top: float, kernel: np.ndarray, heading: str, greatest: float) -> Axes:
    _, columns, width = _grid(kernel)
    axes = canvas.place(figure, canvas.MARGIN, top + _HEADING, width, _height(kernel))
    axes.set_title(heading, loc="left", fontsize=canvas.LABEL, pad=3)
    if kernel.shape[2] == 3:
        tiles = list(np.moveaxis(0.5 + kernel / (2 * greatest), -1, 0))
    else:
        tiles = list(kernel.reshape(*kernel.shape[:2], -1).transpose(2, 0, 1))
    canvas.show_grid(axes, tiles, columns, cmap=canvas.DIVERGING, vmin=-greatest, vmax=greatest)
    return axes


def _end(figure: Figure, kernel: np.ndarray, greatest: float) -> None:
    height = figure.get_size_inches()[1]
    if kernel.shape[2] == 3:
        text = f"grey is 0; black and full colour are \N{MINUS SIGN}{greatest:.2g} and {greatest:.2g}"
        figure.text(0.5, 0.08 / height, text, ha="center", fontsize=canvas.SMALL)
    else:
        canvas.show_scale(figure, 1.0, height - 0.26, canvas.WIDTH - 2.0, greatest)
