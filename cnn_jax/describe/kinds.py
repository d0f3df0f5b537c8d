"""The known layers: their windows and what they count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnn_jax import layers
from cnn_jax.functional import arguments, convolution

# A stock Linen layer has the same fields and parameters as ours and is counted alike.
_CONVOLUTIONS = (layers.Conv, nn.Conv, layers.PartialConv)
_TRANSPOSED = (layers.ConvTranspose, nn.ConvTranspose)
_DENSE = (layers.Dense, nn.Dense)
_POOLS = (layers.MaxPool, layers.MinPool, layers.AvgPool, layers.Subsample)
_GLOBAL_POOLS = (layers.GlobalAvgPool, layers.GlobalMaxPool)
KNOWN = (*_CONVOLUTIONS, *_TRANSPOSED, *_DENSE, *_POOLS, *_GLOBAL_POOLS, layers.RadialBasis)

Shape = tuple[int, ...]
Pairs = arguments.Pairs


@dataclass(frozen=True, kw_only=True)
class Window:
    """`LayerRow`'s fields of these names."""

    kernel: Shape
    stride: Shape
    padding: Pairs


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
    """What a known layer counts, given volumes of these shapes; any other counts nothing.

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


def has_full_window(module: nn.Module) -> bool:
    """Whether no mask leaves out whole positions of a convolution's window."""
    if getattr(module, "mask", None) is None:
        return True
    mask = _mask(module)
    return mask is not None and bool(mask.any((-2, -1)).all())


def _conv_window(module: Any, inputs: Shape, own: Mapping[str, Any]) -> Window:
    kind = type(module).__name__
    kernel = own["kernel"].shape[: -1 if isinstance(module, layers.PartialConv) else -2]
    rank = len(kernel)
    stride = arguments.per_dimension(kind, "strides", module.strides, rank)
    spread = arguments.per_dimension(kind, "input_dilation", getattr(module, "input_dilation", 1), rank)
    steps = arguments.per_dimension(kind, "kernel_dilation", getattr(module, "kernel_dilation", 1), rank)
    sizes = tuple(map(arguments.dilate, inputs[-1 - rank : -1], spread))
    extents = tuple(map(arguments.dilate, kernel, steps))
    if isinstance(module.padding, str) and module.padding.upper() == "SAME_LOWER":  # Linen's alone.
        mode: str | Pairs = tuple(pair[::-1] for pair in convolution.conv_padding("SAME", sizes, extents, stride))
    else:
        mode = arguments.padding_mode(kind, module.padding, convolution.CONV_PADDINGS, rank)
    return Window(kernel=kernel, stride=stride, padding=convolution.conv_padding(mode, sizes, extents, stride))


def _transposed_window(module: Any, own: Mapping[str, Any]) -> Window:
    kind = type(module).__name__
    kernel = own["kernel"].shape[:-2]
    rank = len(kernel)
    stride = arguments.per_dimension(kind, "strides", module.strides, rank)
    steps = arguments.per_dimension(kind, "kernel_dilation", module.kernel_dilation, rank)
    mode = arguments.padding_mode(kind, module.padding, convolution.TRANSPOSE_PADDINGS, rank)
    extents = tuple(map(arguments.dilate, kernel, steps))
    return Window(kernel=kernel, stride=stride, padding=convolution.transpose_padding(mode, extents, stride))


def _pool_window(module: Any, inputs: Shape) -> Window:
    kind = type(module).__name__
    kernel = tuple(module.window_shape)
    rank = len(kernel)
    if isinstance(module, layers.Subsample):
        stride, padding = kernel, ((0, 0),) * rank
    else:
        stride = arguments.per_dimension(kind, "strides", module.strides, rank)
        mode = arguments.padding_mode(kind, module.padding, convolution.CONV_PADDINGS, rank)
        padding = convolution.conv_padding(mode, inputs[-1 - rank : -1], kernel, stride)
    return Window(kernel=kernel, stride=stride, padding=padding)


def _mask(module: nn.Module) -> np.ndarray | None:
    """A convolution's mask as far as it is known while nothing is computed."""
    mask = getattr(module, "mask", None)
    return None if mask is None or isinstance(mask, jax.core.Tracer) else np.asarray(mask)
