"""Single layers, ours and stock: forward, the input gradient and the weight gradient, alone or in one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn_jax import functional as F  # noqa: N812
from cnn_jax.benchmark import agreement
from cnn_jax.benchmark.shapes import COMPUTED, ConvDirection, ConvShape, PoolDirection, PoolShape
from cnn_jax.benchmark.timing import OURS, PLAIN, STOCK, Contender
from cnn_jax.benchmark.yardstick import Field, Yardstick

Function = Callable[..., jax.Array]


def build_conv(name: str, shape: ConvShape, direction: ConvDirection, yardstick: Yardstick) -> Field:
    """The contenders of one direction of a convolution, or of all in one program, all found to compute the same.

    With all directions ours is there without oneDNN too, where it is compiled with it.

    Raises:
        DisagreementError: they do not.
    """
    arrays = shape.arrays()
    ours, stock = (_conv_direction(conv, arrays, direction) for conv in (_our_conv(shape), _stock_conv(shape)))
    contenders = [_contender(OURS, ours, yardstick.jit), _contender(STOCK, stock)]
    if direction == "all" and yardstick.has_onednn:
        contenders.append(_contender(PLAIN, ours))
    # Each direction is linear in both of its arrays: on their magnitudes it adds up the terms' magnitudes.
    sums = _contender("", (stock[0], tuple(map(np.abs, stock[1])))).numbers()
    skipped: dict[str, str] = {}
    if yardstick.torch is None:
        from cnn_jax.benchmark.torch_layers import conv_contenders

        contenders += conv_contenders(shape, arrays, direction)
    tolerance = {
        key: agreement.rounding(sums[key], shape.terms(alone)) for alone, key in COMPUTED.items() if key in sums
    }
    _check(name, contenders, tolerance)
    return Field(contenders, skipped)


def build_pool(name: str, shape: PoolShape, direction: PoolDirection, yardstick: Yardstick) -> Field:
    """The contenders of one direction of a pool, or of both in one program, all found to compute the same.

    Raises:
        DisagreementError: they do not.
    """
    arrays = shape.arrays()
    contenders = [
        _contender(OURS, _pool_direction(_our_pool(shape), arrays, direction), yardstick.jit),
        _contender(STOCK, _pool_direction(_stock_pool(shape), arrays, direction)),
    ]
    # A maximum is one of its inputs, without rounding; all else is linear in the input or in the cotangent.
    rounded = {key: np.abs(array) if key == "y" or shape.kind == "avg" else array for key, array in arrays.items()}
    sums = _contender("", _pool_direction(_stock_pool(shape), rounded, direction)).numbers()
    skipped: dict[str, str] = {}
    if yardstick.torch is None:
        from cnn_jax.benchmark.torch_layers import pool_contenders

        found, skipped = pool_contenders(shape, arrays, direction, yardstick)
        contenders += found
    tolerance = {
        key: agreement.rounding(total, 0 if key == "output" and shape.kind == "max" else shape.terms)
        for key, total in sums.items()
    }
    _check(name, contenders, tolerance)
    return Field(contenders, skipped)


def _our_conv(shape: ConvShape) -> Function:
    strides, dilation = shape.strides, shape.dilation
    if shape.transposed:
        return lambda x, k: F.conv_transpose(
            x, k, strides=strides, padding=_around(shape), kernel_dilation=dilation, transpose_kernel=True
        )
    return lambda x, k: F.conv(
        x, k, strides=strides, padding=shape.padding, kernel_dilation=dilation, feature_group_count=shape.groups
    )


def _stock_conv(shape: ConvShape) -> Function:
    strides, dilation = shape.each(shape.strides), shape.each(shape.dilation)
    axes = "DHW"[-shape.rank :]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    if shape.transposed:
        return lambda x, k: lax.conv_transpose(
            x, k, strides, _around(shape), dilation, dimension_numbers=layout, transpose_kernel=True
        )
    padding = [(pad, pad) for pad in shape.each(shape.padding)]
    return lambda x, k: lax.conv_general_dilated(
        x, k, strides, padding, (1,) * shape.rank, dilation, layout, shape.groups
    )


def _around(shape: ConvShape) -> list[tuple[int, int]]:
    """The zeros around the spread-out input of a transposed convolution, which is then one with padding."""
    pads = [extent - 1 - pad for extent, pad in zip(shape.extent, shape.each(shape.padding), strict=True)]
    return [(pad, pad) for pad in pads]


def _our_pool(shape: PoolShape) -> Function:
    pool = F.max_pool if shape.kind == "max" else F.avg_pool
    return lambda x: pool(x, (shape.window,) * 2, shape.strides, shape.padding)


def _stock_pool(shape: PoolShape) -> Function:
    pool = nn.max_pool if shape.kind == "max" else nn.avg_pool
    return lambda x: pool(x, (shape.window,) * 2, (shape.strides,) * 2, ((shape.padding,) * 2,) * 2)


Work = tuple[Callable[..., dict[str, jax.Array]], tuple[np.ndarray, ...]]
"""A function and its arguments."""


def _conv_direction(function: Function, arrays: dict[str, np.ndarray], direction: ConvDirection) -> Work:
    x, k, y = (arrays[key] for key in "xky")

    def everything(x: jax.Array, k: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        output, pull = jax.vjp(function, x, k)
        return dict(zip(COMPUTED.values(), (output, *pull(y)), strict=True))

    if direction == "forward":
        return (lambda x, k: {COMPUTED["forward"]: function(x, k)}), (x, k)
    if direction == "input":
        return (lambda k, y: {COMPUTED["input"]: jax.linear_transpose(lambda x: function(x, k), x)(y)[0]}), (k, y)
    if direction == "weight":
        return (lambda x, y: {COMPUTED["weight"]: jax.linear_transpose(lambda k: function(x, k), k)(y)[0]}), (x, y)
    return everything, (x, k, y)


def _pool_direction(function: Function, arrays: dict[str, np.ndarray], direction: PoolDirection) -> Work:
    def both(x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        output, pull = jax.vjp(function, x)
        return {"output": output, "gradient": pull(y)[0]}

    if direction == "forward":
        return (lambda x: {"output": function(x)}), (arrays["x"],)
    if direction == "backward":  # XLA leaves out the output, which nobody asks for.
        return (lambda x, y: {"gradient": both(x, y)["gradient"]}), (arrays["x"], arrays["y"])
    return both, (arrays["x"], arrays["y"])


def _contender(name: str, work: Work, jit: Callable[..., Any] = jax.jit) -> Contender:
    function, arguments = jit(work[0]), tuple(map(jnp.asarray, work[1]))

    def call() -> Any:
        return function(*arguments)

    return Contender(name=name, call=call, wait=jax.block_until_ready, numbers=lambda: jax.tree.map(np.asarray, call()))


def _check(name: str, contenders: list[Contender], tolerance: dict[str, np.ndarray]) -> None:
    expected = next(contender for contender in contenders if contender.name == STOCK).numbers()
    for contender in contenders:
        if contender.name != STOCK:
            agreement.check_elements(name, contender.name, contender.numbers(), expected, tolerance)
