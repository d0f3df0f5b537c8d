"""Single layers by PyTorch, contiguous and channels-last; pools also by torch.compile.

torch.compile hands a lone convolution to the same kernel, so of convolutions it is not timed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cnn_jax.benchmark.shapes import COMPUTED, ConvDirection, ConvShape, PoolDirection, PoolShape
from cnn_jax.benchmark.timing import CHANNELS_LAST, COMPILED, CONTIGUOUS, Contender
from cnn_jax.benchmark.yardstick import Yardstick

_FORMATS = {CONTIGUOUS: torch.contiguous_format, CHANNELS_LAST: torch.channels_last}
_ops: Any = torch.ops.aten
Work = Callable[[], dict[str, torch.Tensor]]


def conv_contenders(shape: ConvShape, arrays: dict[str, np.ndarray], direction: ConvDirection) -> list[Contender]:
    """One for each memory format; channels-last is of two dimensions at least, one is given a height of 1."""
    found = []
    for name in _FORMATS:
        flat = shape.rank == 1 and name == CHANNELS_LAST
        memory_format = torch.channels_last_3d if shape.rank == 3 and name == CHANNELS_LAST else _FORMATS[name]
        tensors = {
            key: to_torch(np.expand_dims(array, 0 if key == "k" else 1) if flat else array, kernel=key == "k")
            for key, array in arrays.items()
        }
        tensors = {key: tensor.contiguous(memory_format=memory_format) for key, tensor in tensors.items()}
        found.append(_contender(name, _conv(_with_height(shape) if flat else shape, tensors, direction), flat))
    return found


def _with_height(shape: ConvShape) -> ConvShape:
    """The same convolution of images of a single row."""
    first = {"size": 1, "window": 1, "strides": 1, "padding": 0, "dilation": 1}
    both: dict[str, Any] = {name: (one, *shape.each(getattr(shape, name))) for name, one in first.items()}
    return dataclasses.replace(shape, **both)


def pool_contenders(
    shape: PoolShape, arrays: dict[str, np.ndarray], direction: PoolDirection, yardstick: Yardstick
) -> tuple[list[Contender], dict[str, str]]:
    """One for each memory format, and the faster one's compiled form; with the reason where there is none."""
    found, works = [], {}
    for name, memory_format in _FORMATS.items():
        tensors = {key: to_torch(array).contiguous(memory_format=memory_format) for key, array in arrays.items()}
        works[name] = _pool(shape, tensors, direction)
        found.append(_contender(name, works[name]))
    if yardstick.compile is not None:
        return found, {COMPILED: yardstick.compile}
    compiled = torch.compile(works[CHANNELS_LAST])
    reason = why_not(compiled)
    if reason is not None:
        return found, {COMPILED: reason}
    return [*found, _contender(COMPILED, compiled)], {}


def why_not(compiled: Callable[[], Any]) -> str | None:
    """Calls a compiled function for the first time; the reason, in one line, where it cannot be compiled."""
    try:
        torch.compiler.reset()  # else the functions of earlier cases, of the same source, count as its recompilations
        compiled()
    except Exception as error:  # of a compiler that is missing or fails, nearly anything
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return None


def to_torch(array: np.ndarray, kernel: bool = False) -> torch.Tensor:
    """Images (N, *spatial, C) as (N, C, *spatial), a kernel (*window, I, O) as (O, I, *window)."""
    moved = np.moveaxis(array, (-1, -2), (0, 1)) if kernel else np.moveaxis(array, -1, 1)
    return torch.tensor(np.ascontiguousarray(moved))


def from_torch(tensor: torch.Tensor, kernel: bool = False) -> np.ndarray:
    """The inverse of `to_torch`."""
    moved = tensor.detach().movedim((0, 1), (-1, -2)) if kernel else tensor.detach().movedim(1, -1)
    return moved.numpy()


def _conv(shape: ConvShape, tensors: dict[str, torch.Tensor], direction: ConvDirection) -> Work:
    x, k, y = (tensors[key] for key in "xky")
    strides, padding, dilation = (list(shape.each(s)) for s in (shape.strides, shape.padding, shape.dilation))
    where = (strides, padding, dilation, shape.transposed, [0] * shape.rank, shape.groups)
    wanted = [direction in ("input", "all"), direction in ("weight", "all"), False]

    def work() -> dict[str, torch.Tensor]:
        found = {}
        if direction in ("forward", "all"):
            found[COMPUTED["forward"]] = _ops.convolution(x, k, None, *where)
        if any(wanted):
            gradients = _ops.convolution_backward(y, x, k, None, *where, wanted)
            names = (COMPUTED["input"], COMPUTED["weight"])
            found |= {name: gradient for name, gradient in zip(names, gradients, strict=False) if gradient is not None}
        return found

    return work


def _pool(shape: PoolShape, tensors: dict[str, torch.Tensor], direction: PoolDirection) -> Work:
    x, y = tensors["x"], tensors["y"]
    where = [[shape.window] * 2, [shape.strides] * 2, [shape.padding] * 2]
    if shape.kind == "max":

        def forward() -> tuple[torch.Tensor, ...]:
            return _ops.max_pool2d_with_indices(x, *where)

        def backward(indices: torch.Tensor) -> torch.Tensor:
            return _ops.max_pool2d_with_indices_backward(y, x, *where, [1, 1], False, indices)

    else:

        def forward() -> tuple[torch.Tensor, ...]:
            return _ops.avg_pool2d(x, *where), x

        def backward(indices: torch.Tensor) -> torch.Tensor:
            return _ops.avg_pool2d_backward(y, x, *where, False, True, None)

    if direction == "forward":
        return lambda: {"output": forward()[0]}
    if direction == "backward":
        indices = forward()[1]
        return lambda: {"gradient": backward(indices)}

    def both() -> dict[str, torch.Tensor]:
        output, indices = forward()
        return {"output": output, "gradient": backward(indices)}

    return both


def _contender(name: str, work: Work, flat: bool = False) -> Contender:
    """`flat` images have one dimension, which comes after a height of 1 here."""

    def call() -> Any:
        with torch.no_grad():
            return work()

    def numbers() -> dict[str, np.ndarray]:
        found = {}
        for key, tensor in call().items():
            kernel = key == COMPUTED["weight"]
            array = from_torch(tensor, kernel)
            found[key] = array.squeeze(0 if kernel else 1) if flat else array
        return found

    return Contender(name=name, call=call, wait=lambda result: result, numbers=numbers)
