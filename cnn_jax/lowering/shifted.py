"""Convolutions of each input channel alone, as shifted images multiplied and added up, with no matrix product.

With one input channel, or with as many groups as input channels (depthwise), a tap of the window meets one number of
the input for each output. XLA:CPU's own convolution then has no product to run fast, and takes one element at a time.
Sums of shifted images are loops along the channels, with vectors, in any number of dimensions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering import taps
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
    """Convolution of x (N, *size, I) with kernel (*window, 1, O) in I groups: a multiply-add of images per tap."""
    dtype, multiple = wide(x.dtype), kernel.shape[-1] // geometry.groups
    if geometry.groups > 1 < multiple:  # The outputs of a channel one after the other, and then side by side.
        return jnp.stack([conv(x, part, geometry) for part in _parts(kernel, multiple)], -1).reshape(
            len(x), *geometry.out, -1
        )
    numbers, ones = _numbers(kernel, dtype), (1,) * len(geometry.size)
    if geometry.strides == ones and x.shape[-1] == kernel.shape[-1] and len(numbers) <= _MOST_PADDED:
        places = itertools.product(*map(range, geometry.window))
        terms = [_shift(x.astype(dtype) * n, geometry, tap) for n, tap in zip(numbers, places, strict=True)]
        row = geometry.window[-1]
        rows = [functools.reduce(lax.add, terms[n : n + row]) for n in range(0, len(terms), row)]
        total = functools.reduce(lax.add, rows)
    else:
        x, geometry = written(x, geometry)  # or XLA looks for padding in every term
        total = _total([t.astype(dtype) * n for t, n in zip(taps.seen(x, geometry), numbers, strict=True)])
    # Without the barrier XLA computes the sum again for every use of each output, in whatever follows.
    return lax.optimization_barrier(total.astype(x.dtype))


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, *out, O): multiples of y, added up where the taps lie.

    At strides the input's places are taken by their distance from the last stride ("phases"), each of which is met by
    its own taps of the window, and then laid side by side.
    """
    multiple, rank = y.shape[-1] // geometry.groups, len(geometry.size)
    if multiple > 1:
        pairs = zip(_parts(y, multiple), _parts(kernel, multiple), strict=True)
        return functools.reduce(lax.add, [input_gradient(*pair, geometry) for pair in pairs])
    if geometry.strides == (1,) * rank:
        return conv(y, jnp.flip(kernel, range(rank)), geometry.turned)
    counts = [-(-size // stride) for size, stride in zip(geometry.size, geometry.strides, strict=True)]
    config, within = [(0, 0, 0)], []
    for k, (count, stride, step, (low, _), out) in enumerate(
        zip(counts, geometry.strides, geometry.kernel_dilation, geometry.padding, geometry.out, strict=True)
    ):
        # A tap lies so many places, and whole strides, after the input's place of the same number as the output.
        distances = [divmod(tap * step - low, stride) for tap in range(geometry.window[k])]
        first, last = (pick(far for far, _ in distances) for pick in (min, max))
        config.append((last, count - first - out, 0))
        within.append([[(t, last - far) for t, (far, at) in enumerate(distances) if at == n] for n in range(stride)])
    padded = lax.pad(y.astype(wide(y.dtype)), jnp.zeros((), wide(y.dtype)), [*config, (0, 0, 0)])
    padded = lax.optimization_barrier(padded)
    phases = []
    for phase in itertools.product(*within):
        terms = []
        for tap in itertools.product(*phase):
            place = tuple(slice(start, start + count) for (_, start), count in zip(tap, counts, strict=True))
            terms.append(padded[:, *place] * kernel[*(at for at, _ in tap), 0].astype(padded.dtype))
        total = _total(terms) if terms else jnp.zeros((len(y), *counts, y.shape[-1]), padded.dtype)
        phases.append(lax.optimization_barrier(total.astype(y.dtype)))
    return _interleaved(phases, geometry.strides)[:, *map(slice, geometry.size)]


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int) -> jax.Array:
    """Gradient to the kernel, from x (N, *size, I) and the cotangent y (N, *out, O): sums of products per tap.

    What a tap multiplies in a tile is added up block of places by block, which are vector loops along the channels, and
    so are the tiles. Only what is left of them, a block a tap, is added up over its places, of which XLA takes one
    number at a time.
    """
    multiple = y.shape[-1] // geometry.groups
    if geometry.groups > 1 < multiple:
        parts = [weight_gradient(x, part, geometry, tiles) for part in _parts(y, multiple)]
        return jnp.stack(parts, -1).reshape(*geometry.window, 1, -1)
    dtype = wide(x.dtype)
    blocks = _blocks(geometry.out, len(x) // tiles)
    whole = tuple(-(-out // count) * count for out, count in zip(geometry.out, blocks, strict=True))
    over = _reaching(geometry, whole)

    def sums(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        x, padded = written(x.astype(dtype), over)
        config = [(0, 0, 0), *((0, n - out, 0) for n, out in zip(whole, geometry.out, strict=True)), (0, 0, 0)]
        # Both are written down, for within a loop XLA looks up anew for each number where its tile begins.
        x, y = lax.optimization_barrier((x, lax.pad(y.astype(dtype), jnp.zeros((), dtype), config)))
        extents = [n // count for n, count in zip(whole, blocks, strict=True)]
        starts = list(itertools.product(*(range(0, n, extent) for n, extent in zip(whole, extents, strict=True))))

        def of(a: jax.Array, n: int, start: tuple[int, ...]) -> jax.Array:
            return a[n, *(slice(at, at + extent) for at, extent in zip(start, extents, strict=True))]

        return [
            _total([of(tap, n, start) * of(y, n, start) for n in range(len(y)) for start in starts])
            for tap in taps.seen(x, padded)
        ]

    each = [block.sum(range(block.ndim - 1)) for block in added(sums, (x, y), tiles)]
    return jnp.stack(each).reshape(*geometry.window, 1, y.shape[-1]).astype(x.dtype)


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


def _numbers(kernel: jax.Array, dtype: jnp.dtype) -> list[jax.Array]:
    """The kernel's numbers at each tap, the last dimension first, (O,)."""
    return list(kernel.reshape(-1, kernel.shape[-1]).astype(dtype))


def _parts(a: jax.Array, multiple: int) -> list[jax.Array]:
    """Of an array (..., I * multiple) the first output of each channel, (..., I), the second, and so on."""
    parts = jnp.moveaxis(a.reshape(*a.shape[:-1], -1, multiple), -1, 0)
    return list(lax.optimization_barrier(parts))


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
