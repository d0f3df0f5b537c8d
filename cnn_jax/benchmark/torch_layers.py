"""Single layers by PyTorch, contiguous and channels-last; pools also by torch.compile.

torch.compile hands a lone convolution to the same kernel, so of convolutions it is not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cnn_jax.benchmark.shapes import ConvDirection, ConvShape, PoolDirection, PoolShape
from cnn_jax.benchmark.timing import CHANNELS_LAST, COMPILED, CONTIGUOUS, Contender
from cnn_jax.benchmark.yardstick import Yardstick

_FORMATS = {CONTIGUOUS: torch.contiguous_format, CHANNELS_LAST: torch.channels_last}
_ops: Any = torch.ops.aten
Work = Callable[[], dict[str, torch.Tensor]]


def conv_contenders(shape: ConvShape, arrays: dict[str, np.ndarray], direction: ConvDirection) -> list[Contender]:
    """One for each memory format."""
    found = []
    for name, memory_format in _FORMATS.items():
        tensors = {
            key: to_torch(array, kernel=key == "k").contiguous(memory_format=memory_format)
            for key, array in arrays.items()
        }
        found.append(_contender(name, _conv(shape, tensors, direction), kernel=direction == "weight"))
    return found


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
    """Images (N, H, W, C) as (N, C, H, W), a kernel (h, w, I, O) as (O, I, h, w)."""
    return torch.tensor(np.ascontiguousarray(array.transpose((3, 2, 0, 1) if kernel else (0, 3, 1, 2))))


def from_torch(tensor: torch.Tensor, kernel: bool = False) -> np.ndarray:
    """The inverse of `to_torch`."""
    return tensor.detach().permute((2, 3, 1, 0) if kernel else (0, 2, 3, 1)).numpy()


def _conv(shape: ConvShape, tensors: dict[str, torch.Tensor], direction: ConvDirection) -> Work:
    x, k, y = (tensors[key] for key in "xky")
    if shape.transposed and direction == "forward":
        return lambda: {"output": torch.nn.functional.conv_transpose2d(x, k, None, shape.strides, shape.padding)}
    if direction == "forward":
        return lambda: {"output": torch.nn.functional.conv2d(x, k, None, shape.strides, shape.padding, 1, shape.groups)}
    strides, padding = [shape.strides] * 2, [shape.padding] * 2
    wanted = [direction == "input", direction == "weight", False]

    def backward() -> dict[str, torch.Tensor]:
        gradients = _ops.convolution_backward(
            y, x, k, None, strides, padding, [1, 1], shape.transposed, [0, 0], shape.groups, wanted
        )
        return {"gradient": gradients[wanted.index(True)]}

    return backward


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


def _contender(name: str, work: Work, kernel: bool = False) -> Contender:
    def call() -> Any:
        with torch.no_grad():
            return work()

    def numbers() -> dict[str, np.ndarray]:
        return {key: from_torch(tensor, kernel) for key, tensor in call().items()}

    return Contender(name=name, call=call, wait=lambda result: result, numbers=numbers)
