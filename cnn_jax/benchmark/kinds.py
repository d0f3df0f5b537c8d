"""Kinds of layers that users report as slow in JAX: a layer of each, and others of the same kind drawn at random."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from cnn_jax.benchmark.shapes import ConvShape, Sizes


@dataclass(frozen=True, kw_only=True)
class LayerKind:
    """A kind of layer.

    Attributes:
      shape: the layer that stands for the kind; the padding is window // 2 times the dilation, of transposed ones none.
      milliseconds: what stock took for it, in all directions on two cores, to know by how long others may take.
      strides, dilations: those that layers of this kind are drawn with, in all dimensions; () means the shape's alone.
    """

    shape: ConvShape
    milliseconds: float
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()


def _same(window: Sizes, dilation: int = 1) -> Sizes:
    return window // 2 * dilation if isinstance(window, int) else tuple(k // 2 * dilation for k in window)


def _kind(
    milliseconds: float,
    batch: int,
    size: Sizes,
    inputs: int,
    outputs: int,
    window: Sizes,
    drawn: tuple[int, ...] = (),
    *,
    strides: int = 1,
    dilation: int = 1,
    groups: int = 1,
    transposed: bool = False,
) -> LayerKind:
    """`drawn` are dilations where the layer is dilated, else strides."""
    shape = ConvShape(
        batch=batch, size=size, window=window, inputs=inputs, outputs=outputs, strides=strides,
        padding=0 if transposed else _same(window, dilation), dilation=dilation, groups=groups, transposed=transposed,
    )  # fmt: skip
    if dilation > 1:
        return LayerKind(shape=shape, milliseconds=milliseconds, dilations=drawn)
    return LayerKind(shape=shape, milliseconds=milliseconds, strides=drawn)


KINDS = {
    "depthwise-3x3": _kind(297, 32, 56, 64, 64, 3, (1, 2), groups=64),
    "depthwise-7x7": _kind(389, 32, 28, 96, 96, 7, groups=96),  # ConvNeXt
    "depthwise-5x5-strided": _kind(750, 32, 56, 72, 72, 5, (2, 3), strides=2, groups=72),
    "depthwise-31x31": _kind(1035, 8, 32, 64, 64, 31, groups=64),  # RepLKNet
    "grouped-3x3": _kind(3880, 16, 28, 128, 128, 3, (1, 2), groups=32),  # ResNeXt
    "dilated-3x3": _kind(21.6, 16, 32, 64, 64, 3, (2, 3, 4), dilation=2),
    "dilated-depthwise-3x3": _kind(41.4, 16, 32, 64, 64, 3, (2, 3, 4), dilation=2, groups=64),
    "stem-7x7": _kind(47.9, 16, 112, 3, 64, 7, (2, 3, 4), strides=2),
    "patchify-4x4": _kind(8.4, 16, 128, 3, 96, 4, strides=4),
    "dense-16x16": _kind(30.8, 8, 32, 16, 16, 16),
    "1d-9": _kind(44.6, 32, (1024,), 64, 64, 9, (1, 2)),
    "1d-dilated-3": _kind(5.5, 16, (2048,), 32, 32, 3, (2, 4, 8, 16), dilation=8),
    "1d-transposed-16": _kind(79.8, 8, (512,), 64, 32, 16, (4, 8, 16), strides=8, transposed=True),
    "1d-depthwise-31": _kind(140, 16, (512,), 144, 144, 31, groups=144),  # Conformer
    "transposed-4x4": _kind(784, 16, 32, 64, 64, 4, (2, 3, 4), strides=2, transposed=True),
    "3d-3x3x3": _kind(125, 2, (16, 32, 32), 16, 32, 3, (1, 2)),
    "3d-transposed-2x2x2": _kind(146, 2, (16, 16, 16), 32, 16, 2, strides=2, transposed=True),  # U-Net
    "3d-depthwise-3x3x3": _kind(663, 2, (16, 32, 32), 32, 32, 3, (1, 2), groups=32),
}

# Milliseconds that stock may take for a layer that is drawn, as far as the one that stands for its kind tells; at other
# strides and on a busy machine it took up to seven times as long.
_SHORTEST, _LONGEST = 20, 250
# Fewer outputs are not drawn, and no single input: stock's gradient of some strided convolutions to one channel ends
# the process.
_FEWEST = 8
# Outputs in each dimension, fewer of which are not drawn.
_LEAST_OUT = 4


def draw(name: str, seed: int) -> ConvShape:
    """Another layer of a kind, the same for the same seed: of other sizes, channels, strides, padding and dilation."""
    kind = KINDS[name]
    choose = random.Random(f"{name} {seed}")  # a text, so that kinds do not draw alike
    while True:
        shape = _draw_any(kind, choose)
        if min(shape.out) < _LEAST_OUT:
            continue
        if _SHORTEST <= kind.milliseconds * _work(shape) / _work(kind.shape) <= _LONGEST:
            return shape


def _work(shape: ConvShape) -> float:
    """Multiplications and additions of stock in all directions, the zeros between the elements of an image included."""
    small, large = sorted((math.prod(shape.each(shape.size)), math.prod(shape.out)))
    return shape.flops * (2 + large / small)


def _draw_any(kind: LayerKind, choose: random.Random) -> ConvShape:
    shape = kind.shape

    def near(number: int, step: int, least: int) -> int:
        return max(least, round(number * choose.uniform(0.5, 1.75) / step) * step)

    window, groups = shape.each(shape.window), shape.groups
    strides = choose.choice(kind.strides) if kind.strides else shape.strides
    dilation = choose.choice(kind.dilations) if kind.dilations else shape.dilation
    assert isinstance(strides, int)
    assert isinstance(dilation, int)
    if groups == shape.inputs:
        groups = inputs = outputs = near(shape.inputs, 4, _FEWEST)
    elif groups > 1:
        groups = choose.choice((8, 16, 32, 64))
        inputs = outputs = groups * choose.choice((2, 4, 8))
    else:
        inputs = near(shape.inputs, 4, _FEWEST) if shape.inputs > 4 else choose.randint(2, 4)
        outputs = near(shape.outputs, 4, _FEWEST)
    if shape.transposed:
        paddings = {0, *((k - strides) // 2 for k in window)}
    else:
        paddings = {0, *(k // 2 * dilation for k in window)}
    return ConvShape(
        batch=max(1, round(shape.batch * 2 ** choose.uniform(-3, 2))),
        size=tuple(near(n, 1, 1) for n in shape.each(shape.size)),
        window=shape.window,
        inputs=inputs,
        outputs=outputs,
        strides=strides,
        padding=choose.choice(sorted(paddings)),
        dilation=dilation,
        groups=groups,
        transposed=shape.transposed,
    )
