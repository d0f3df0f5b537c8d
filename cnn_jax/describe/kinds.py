"""The layers that are known: their windows, what they count, and what their units see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import layers
from cnn_jax.describe.primitives import contracted
from cnn_jax.describe.receptive import UNKNOWN, Axis
from cnn_jax.functional import convolution, geometry

# A stock Linen layer has the same fields and parameters as ours and is counted alike.
_CONVOLUTIONS = (layers.Conv, nn.Conv, layers.PartialConv)
_TRANSPOSED = (layers.ConvTranspose, nn.ConvTranspose)
_DENSE = (layers.Dense, nn.Dense)
_POOLS = (layers.MaxPool, layers.MinPool, layers.AvgPool, layers.Subsample)
_GLOBAL_POOLS = (layers.GlobalAvgPool, layers.GlobalMaxPool)
KNOWN = (*_CONVOLUTIONS, *_TRANSPOSED, *_DENSE, *_POOLS, *_GLOBAL_POOLS, layers.RadialBasis)

Shape = tuple[int, ...]
Pairs = geometry.Pairs


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window and how it goes over the spatial dimensions, with an entry for each of them.

    Attributes:
      kernel, stride, padding: as in `LayerRow`.
      taps: positions of the window's elements from its first, or None where what they see follows no simple rule.
    """

    kernel: Shape
    stride: Shape
    padding: Pairs
    taps: tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """`LayerRow`'s fields of these names."""

    connections: int = 0
    multiply_adds: int = 0
    dense_parameters: int | None = None


def window(module: nn.Module, inputs: Shape, own: Mapping[str, Any]) -> Window | None:
    """The window of a layer, for inputs of this shape and with these parameters; None if it has none."""
    if isinstance(module, _CONVOLUTIONS):
        return _conv_window(module, inputs, own)
    if isinstance(module, _TRANSPOSED):
        return _transposed_window(module, own)
    if isinstance(module, _POOLS):
        return _pool_window(module, inputs)
    return None


def counts(module: nn.Module, inputs: Shape, output: Shape, own: Mapping[str, Any]) -> Counts:
    """What a known layer counts between volumes of these shapes; any other counts nothing.

    The shapes have batch dimensions of size 1.
    """
    units = math.prod(output)
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, *_DENSE)):
        # Every weight is used once at each position of the output; of the input, where the layer is transposed.
        positions = math.prod((inputs if isinstance(module, _TRANSPOSED) else output)[:-1])
        biases = units if "bias" in own else 0
        mask = _mask(module)
        weights = own["kernel"].size if mask is None else np.count_nonzero(mask)
        return Counts(
            connections=positions * int(weights) + biases,
            multiply_adds=positions * own["kernel"].size,
            dense_parameters=None if isinstance(module, _DENSE) else math.prod(inputs) * units + biases,
        )
    if isinstance(module, layers.Subsample):
        return Counts(connections=units * (math.prod(module.window_shape) + 1), multiply_adds=units)
    if isinstance(module, _POOLS):
        return Counts(connections=units * math.prod(module.window_shape))
    if isinstance(module, _GLOBAL_POOLS):
        return Counts(connections=math.prod(inputs))
    if isinstance(module, layers.RadialBasis):
        return Counts(connections=units * inputs[-1], multiply_adds=units * inputs[-1])
    return Counts()


def sees(module: nn.Module, window: Window | None, axis: Axis, inputs: Shape) -> Axis:
    """How the output of a known layer sees an axis of the model's input that its own input sees like this."""
    channels = len(inputs) - 1
    if isinstance(module, _GLOBAL_POOLS):
        return contracted(axis, inputs, range(1, channels))
    if axis.dim == channels and not isinstance(module, _POOLS):
        return axis.together(inputs[-1])
    if window is None or axis.dim is None:
        return axis
    number = axis.dim - (channels - len(window.kernel))
    if not 0 <= number < len(window.kernel):
        return axis
    taps = window.taps[number]
    if taps is None:
        return UNKNOWN
    return axis.slid(inputs[axis.dim], taps, window.stride[number], window.padding[number][0])


def _conv_window(module: Any, inputs: Shape, own: Mapping[str, Any]) -> Window:
    kind = type(module).__name__
    kernel = own["kernel"].shape[: -1 if isinstance(module, layers.PartialConv) else -2]
    rank = len(kernel)
    stride = geometry.per_dimension(kind, "strides", module.strides, rank)
    spread = geometry.per_dimension(kind, "input_dilation", getattr(module, "input_dilation", 1), rank)
    steps = geometry.per_dimension(kind, "kernel_dilation", getattr(module, "kernel_dilation", 1), rank)
    sizes = tuple(map(geometry.dilate, inputs[-1 - rank : -1], spread))
    extents = tuple(map(geometry.dilate, kernel, steps))
    if isinstance(module.padding, str) and module.padding.upper() == "SAME_LOWER":  # Linen's alone.
        mode: str | Pairs = tuple(pair[::-1] for pair in convolution.conv_padding("SAME", sizes, extents, stride))
    else:
        mode = geometry.padding_mode(kind, module.padding, convolution.CONV_PADDINGS, rank)
    padding = convolution.conv_padding(mode, sizes, extents, stride)
    repeats = mode in convolution.REPEATING_PADDINGS
    return Window(
        kernel=kernel,
        stride=stride,
        padding=padding,
        taps=tuple(
            None if spread[axis] > 1 or (repeats and any(padding[axis])) else _taps(module, axis, kernel[axis], step)
            for axis, step in enumerate(steps)
        ),
    )


def _transposed_window(module: Any, own: Mapping[str, Any]) -> Window:
    kind = type(module).__name__
    kernel = own["kernel"].shape[:-2]
    rank = len(kernel)
    stride = geometry.per_dimension(kind, "strides", module.strides, rank)
    steps = geometry.per_dimension(kind, "kernel_dilation", module.kernel_dilation, rank)
    mode = geometry.padding_mode(kind, module.padding, convolution.TRANSPOSE_PADDINGS, rank)
    plain = mode not in convolution.REPEATING_PADDINGS and module.mask is None
    return Window(
        kernel=kernel,
        stride=stride,
        padding=convolution.transpose_padding(mode, tuple(map(geometry.dilate, kernel, steps)), stride),
        # With stride one it is a convolution; with another, units see by turns more and fewer inputs.
        taps=tuple(
            tuple(range(0, extent * step, step)) if plain and factor == 1 else None
            for extent, step, factor in zip(kernel, steps, stride, strict=True)
        ),
    )


def _pool_window(module: Any, inputs: Shape) -> Window:
    kind = type(module).__name__
    kernel = tuple(module.window_shape)
    rank = len(kernel)
    if isinstance(module, layers.Subsample):
        stride, padding = kernel, ((0, 0),) * rank
    else:
        stride = geometry.per_dimension(kind, "strides", module.strides, rank)
        mode = geometry.padding_mode(kind, module.padding, convolution.CONV_PADDINGS, rank)
        padding = convolution.conv_padding(mode, inputs[-1 - rank : -1], kernel, stride)
    return Window(kernel=kernel, stride=stride, padding=padding, taps=tuple(tuple(range(extent)) for extent in kernel))


def _mask(module: Any) -> np.ndarray | None:
    """A convolution's mask as far as it is known while nothing is computed."""
    mask = getattr(module, "mask", None)
    return None if mask is None or isinstance(mask, jax.core.Tracer) else np.asarray(mask)


def _taps(module: Any, axis: int, extent: int, step: int) -> tuple[int, ...]:
    """Positions along an axis at which a convolution's window has weights."""
    mask = _mask(module)
    if mask is None or not mask.any():
        return tuple(range(0, extent * step, step))
    used = mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))
    return tuple(int(tap) * step for tap in np.flatnonzero(used))
