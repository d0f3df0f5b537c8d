"""Convolutions of channels alone, or of few in a group, as shifted images multiplied and added up: no matrix product.

With one input channel, or with as many groups as input channels (depthwise), a tap of the window meets one number of
the input for each output. XLA:CPU's own convolution then has no product to run fast, and takes one element at a time;
with few channels in a group it has many small ones. Sums of shifted images are loops along the channels, with vectors,
in any number of dimensions. Where a group has several channels, the first of all groups, the second, and so on are
images of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering import taps
from cnn_jax.lowering.canonical import turned
from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.padding import written
from cnn_jax.lowering.products import wide
from cnn_jax.lowering.tiles import added

# Taps of which each may look for the padding itself: XLA's loops over more such terms have no vectors.
_MOST_PADDED = 9
# Sums that are added to in turn: a processor waits for one addition before it adds to the same sum again.
_SUMS = 4
# Products that are added up before they are written down.
_TERMS = 8


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, *size, I) with kernel (*window, I / groups, O): a multiply-add of images per tap."""
    dtype, images, numbers = wide(x.dtype), _images(x, geometry.groups), _numbers(kernel, geometry.groups)
    plain = geometry.strides == (1,) * len(geometry.size) and x.shape[-1] == kernel.shape[-1] and len(images) == 1
    if plain and len(numbers) <= _MOST_PADDED:
        places = itertools.product(*map(range, geometry.window))
        terms = [_shift(x.astype(dtype) * n[0][0], geometry, tap) for n, tap in zip(numbers, places, strict=True)]
        row = geometry.window[-1]
        rows = [functools.reduce(lax.add, terms[n : n + row]) for n in range(0, len(terms), row)]
        totals = [functools.reduce(lax.add, rows)]
    else:
        padded = [written(image, geometry) for image in images]  # or XLA looks for padding in every term
        met = [[tap.astype(dtype) for tap in taps.seen(*pair)] for pair in padded]
        totals = [
            _total([tap * n[i][o] for i, seen in enumerate(met) for tap, n in zip(seen, numbers, strict=True)])
            for o in range(len(numbers[0][0]))
        ]
    # Without the barrier XLA computes the sum again for every use of each output, in whatever follows.
    return _side_by_side([lax.optimization_barrier(total.astype(x.dtype)) for total in totals])


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, *out, O): multiples of y, added up where the taps lie.

    At strides the input's places are taken by their distance from the last stride ("phases"), each of which is met by
    its own taps of the window, and then laid side by side.
    """
    rank, dtype = len(geometry.size), wide(y.dtype)
    if geometry.strides == (1,) * rank:
        return conv(y, turned(kernel, geometry.groups), geometry.turned)
    counts = [-(-size // stride) for size, stride in zip(geometry.size, geometry.strides, strict=True)]
    config, within = [(0, 0, 0)], []
    for axis, (count, stride, step, (low, _), out) in enumerate(
        zip(counts, geometry.strides, geometry.kernel_dilation, geometry.padding, geometry.out, strict=True)
    ):
        # A tap lies so many places, and whole strides, after the input's place of the same number as the output.
        distances = [divmod(tap * step - low, stride) for tap in range(geometry.window[axis])]
        first, last = (pick(far for far, _ in distances) for pick in (min, max))
        config.append((last, count - first - out, 0))
        within.append([[(t, last - far) for t, (far, at) in enumerate(distances) if at == n] for n in range(stride)])
    images = [
        lax.optimization_barrier(lax.pad(image.astype(dtype), jnp.zeros((), dtype), [*config, (0, 0, 0)]))
        for image in _images(y, geometry.groups)
    ]
    numbers = dict(zip(itertools.product(*map(range, geometry.window)), _numbers(kernel, geometry.groups), strict=True))

    def phase(met: tuple[list[tuple[int, int]], ...], i: int) -> jax.Array:
        terms = []
        for tap in itertools.product(*met):
            place = tuple(slice(start, start + count) for (_, start), count in zip(tap, counts, strict=True))
            n = numbers[tuple(at for at, _ in tap)][i]
            terms += [image[:, *place] * n[o] for o, image in enumerate(images)]
        total = _total(terms) if terms else jnp.zeros((len(y), *counts, geometry.groups), dtype)
        return lax.optimization_barrier(total.astype(y.dtype))

    phases = [_side_by_side([phase(met, i) for i in range(kernel.shape[-2])]) for met in itertools.product(*within)]
    return _interleaved(phases, geometry.strides)[:, *map(slice, geometry.size)]


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, *size, I) and the cotangent y (N, *out, O): sums of products per tap.

    What a tap multiplies in a tile is added up block of places by block, which are vector loops along the channels, and
    so are the tiles. Only what is left of them, a block a tap, is added up over its places, of which XLA takes one
    number at a time.
    """
    dtype, groups = wide(x.dtype), geometry.groups
    blocks = _blocks(geometry.out, len(x) // tiles)
    whole = tuple(-(-out // count) * count for out, count in zip(geometry.out, blocks, strict=True))
    over = _reaching(geometry, whole)
    extents = [n // count for n, count in zip(whole, blocks, strict=True)]
    starts = list(itertools.product(*(range(0, n, extent) for n, extent in zip(whole, extents, strict=True))))
    config = [(0, 0, 0), *((0, n - out, 0) for n, out in zip(whole, geometry.out, strict=True)), (0, 0, 0)]

    def of(a: jax.Array, n: int, start: tuple[int, ...]) -> jax.Array:
        return a[n, *(slice(at, at + extent) for at, extent in zip(start, extents, strict=True))]

    def sums(xs: list[jax.Array], ys: list[jax.Array]) -> list[jax.Array]:
        # All are written down, for within a loop XLA looks up anew for each number where its tile begins.
        padded = [written(x.astype(dtype), over) for x in xs]
        cotangents = [lax.pad(y.astype(dtype), jnp.zeros((), dtype), config) for y in ys]
        seen = [taps.seen(lax.optimization_barrier(x), left) for x, left in padded]
        return [
            _total([of(tap, n, start) * of(y, n, start) for n in range(len(y)) for start in starts])
            for met in zip(*seen, strict=True)
            for tap in met
            for y in lax.optimization_barrier(cotangents)
        ]

    each = added(sums, (_images(x, groups), _images(y, groups)), tiles)
    totals = jnp.stack([block.sum(range(block.ndim - 1)) for block in each])
    inputs, outputs = x.shape[-1] // groups, y.shape[-1] // groups
    if groups > 1:  # (taps, inputs, outputs, groups)
        totals = totals.reshape(-1, inputs, outputs, groups).swapaxes(2, 3)
    return totals.reshape(*geometry.window, inputs, y.shape[-1]).astype(x.dtype)


def _blocks(out: tuple[int, ...], images: int) -> list[int]:
    """Into how many blocks, in each dimension, the places of so many images are taken apart, which are added up."""
    left, counts = max(1, _TERMS // images), []
    for extent in out:
        count = min(left, extent)
        counts.append(count)
        left //= count
    return counts


def _reaching(geometry: Geometry, out: tuple[int, ...]) -> Geometry:
    """The same with zeros after the input, so many that its output has the extents `out`."""
    more = [(n - m) * stride for n, m, stride in zip(out, geometry.out, geometry.strides, strict=True)]
    padding = tuple((low, high + extra) for (low, high), extra in zip(geometry.padding, more, strict=True))
    return dataclasses.replace(geometry, padding=padding)


def _total(terms: list[jax.Array]) -> jax.Array:
    """The sum of some arrays, which are added to a few sums in turn."""
    sums = [functools.reduce(lax.add, terms[n::_SUMS]) for n in range(min(_SUMS, len(terms)))]
    return functools.reduce(lax.add, sums)


def _numbers(kernel: jax.Array, groups: int) -> list[list[list[jax.Array]]]:
    """Of each tap, the last dimension first, of each input and each output of a group: the kernel's numbers, (groups,).

    Without groups the outputs stay together, (O,).
    """
    kernel = kernel.astype(wide(kernel.dtype)).reshape(-1, *kernel.shape[-2:])
    outputs = _images(kernel, groups)
    return [[[part[tap, i] for part in outputs] for i in range(kernel.shape[1])] for tap in range(len(kernel))]


def _images(a: jax.Array, groups: int) -> list[jax.Array]:
    """Of an array (..., C) the first channel of each group, (..., groups), the second, ...; without groups all."""
    each = a.shape[-1] // groups
    if groups == 1 or each == 1:
        return [a]
    images = jnp.moveaxis(a.reshape(*a.shape[:-1], groups, each), -1, 0)
    # As one row of numbers they have to be written down; else XLA calls them another order of those that are there.
    return list(lax.optimization_barrier(images.reshape(-1)).reshape(images.shape))


def _side_by_side(images: list[jax.Array]) -> jax.Array:
    """The inverse of `_images`."""
    return images[0] if len(images) == 1 else jnp.stack(images, -1).reshape(*images[0].shape[:-1], -1)


def _interleaved(phases: list[jax.Array], strides: tuple[int, ...]) -> jax.Array:
    """Arrays (N, *counts, C), one a phase, laid side by side: (N, *(counts * strides), C)."""
    for axis in range(len(strides), 0, -1):
        stride = strides[axis - 1]
        groups = [phases[n : n + stride] for n in range(0, len(phases), stride)]
        shape = phases[0].shape
        whole = (*shape[:axis], shape[axis] * stride, *shape[axis + 1 :])
        phases = [jnp.stack(group, axis + 1).reshape(whole) for group in groups]
    return phases[0]


def _shift(x: jax.Array, geometry: Geometry, tap: tuple[int, ...]) -> jax.Array:
    """What a tap meets of x (N, *size, C) at stride 1, (N, *out, C)."""
    config = [(0, 0, 0)]
    for at, step, (low, _), size, out in zip(
        tap, geometry.kernel_dilation, geometry.padding, geometry.size, geometry.out, strict=True
    ):
        config.append((low - at * step, out + at * step - low - size, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
