"""Which lowering is taken for which operation: the one place to read it, and `use` to override it.

A choice is a function of the operation, its shapes and, on the CPU, the number of cores, made when a function is
lowered for the CPU or for an NVIDIA GPU; nothing is timed. On other platforms everything is `direct`. The rules are
those measured (README.md beside this file), with two cores and with sixteen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from cnn_jax.lowering.cores import cores
from cnn_jax.lowering.folded import is_whole
from cnn_jax.lowering.geometry import Geometry, Windows
from cnn_jax.lowering.products import wide
from cnn_jax.lowering.tiles import equal_tiles

Operation = Literal["conv", "input_gradient", "weight_gradient"]
Choice = tuple[str, dict[str, Any]]
"""The name of a lowering and its further arguments."""
Choose = Callable[[Operation, Geometry, tuple[int, ...], DTypeLike], Choice]
"""As `choose`."""

_used = jax.make_user_context("auto")

DIRECT: Choice = ("direct", {})
# Direct, written so that it keeps its speed in a loop; a convolution itself is written so by anyone.
CANONICAL: Choice = ("canonical", {})

# Channels that are too few for XLA's loops along them.
_FEW = 16
# Input channels that are too few for XLA's own convolution, where its patches are copied in as short runs.
_FEWER = 6
# A window so large that even a strided one's input gradient is worth a band.
_LARGE = 16
# Places that a product should add up at least, where images are multiplied in runs.
_LONG = 2**14
# Places in a window, each of which is a term of its own in the program.
_MOST_TAPS = 49
# And where each is a sum of images, without a product; beyond, and in images, rows are multiplied by bands.
_MOST_SHIFTED = 128
_MOST_ROWS = {"conv": 100, "input_gradient": 100, "weight_gradient": 80}
# And how many there may be in groups, of at least so many, with few channels: taps times inputs times outputs.
_FEW_GROUPS, _MOST_WITHIN = 8, 150
# Images multiplied and added up in one loop, and the numbers that should be at hand for it.
_UNROLLED, _WHOLE = 4, 2**17
# Elements of the patches of one image that `banded` picks by a table, which is part of the program.
_MOST_PICKED = 2**20
# Bytes to be gone through or written (XLA's own weight gradient, also that of few channels; patches; Winograd's
# transforms) to take all images at once: more leave the caches, and from 32 MB on the C library asks the system for
# them at every call. So it is with two cores, each of which brings its caches and is to have its share of a run.
_CACHED = {
    "canonical": 4e6, "few": 1e6, "patches": 5e6, "conv": 24e6, "input_gradient": 24e6, "weight_gradient": 10e6,
}  # fmt: skip
# And those of stacked taps, which gain nothing by caches but have to fit in memory.
_STACKED = 128e6
# And those of a window's taps, beyond which a weight gradient is left to XLA.
_CACHED_TAPS = 12e6
# Rows that Winograd's products should have at least, where that is to be decided.
_FILLED = {"conv": 256, "input_gradient": 256, "weight_gradient": 512}
# What Winograd's filtering saves and costs, in multiplications of a matrix product, of which two cores of an AMD EPYC
# (Zen 4) do 90 in a nanosecond: how much longer one takes in XLA's own convolution, and again in its weight gradient;
# in a product with its left operand transposed; and how many the time of writing and reading a number is worth, and of
# a weight gradient's: with sixteen cores, which multiply more than they can write, twice as many.
_DIRECT, _DIRECT_WEIGHT, _TRANSPOSED, _NUMBER, _NUMBER_WEIGHT = 1.1, 1.3, 1.6, 75, 60
# And how much longer one takes in oneDNN's convolution.
_ONEDNN = 0.95
# Cores of which each has little to do in a pool.
_MANY = 8
# Bytes of patches that a GPU was seen to gain by.
_MOST_WRITTEN = 2**29
# The XLA of JAX 0.10 fuses across barriers: what comes before a pool is computed anew for every place of its windows.
_BARRIERS = jax.__version_info__ >= (0, 11)


def use(lowering: Literal["auto", "direct", "onednn"]) -> AbstractContextManager[None]:
    """`with lowering.use("direct"):` gives XLA's own operations, forward and backward, to all that is traced inside.

    "auto", the default, takes what `choose` says; "onednn", which `lowering.jit` sets for what it compiles, takes
    what `choose_onednn` says on the CPU. A function under `jax.jit` is traced anew for each.
    """
    if lowering not in ("auto", "direct", "onednn"):
        raise ValueError(f"use: lowering must be 'auto', 'direct' or 'onednn', got {lowering!r}")
    return _used(lowering)


def current() -> str:
    """The lowering in use: "auto", "direct" or "onednn"."""
    return _used.value


def choose(operation: Operation, geometry: Geometry, sizes: tuple[int, ...], dtype: DTypeLike) -> Choice:
    """The lowering of an operation on the CPU, for `sizes` (R, N, inputs, outputs) and operands of `dtype`."""
    images, inputs, outputs = sizes[1:]
    taps, places = math.prod(geometry.window), math.prod(geometry.out)
    ones = (1,) * len(geometry.size)
    if 0 in (*sizes, *geometry.size, *geometry.out):
        return DIRECT
    plain = DIRECT if operation == "conv" else CANONICAL
    if geometry.input_dilation != ones:
        return plain
    alone, images_only = geometry.groups == inputs > 1, len(geometry.size) == 2
    if alone and images_only and taps > _MOST_ROWS[operation]:
        extent, columns = geometry.window[1], geometry.out[1]
        return "toeplitz", {"block": columns if columns <= 2 * extent else -(-columns // (columns // extent))}
    if operation == "conv" and inputs == 1 and images_only:
        alone = outputs <= 64 and taps <= _MOST_TAPS
    if alone and taps <= _MOST_SHIFTED:
        return _shifting(operation, images, places * outputs)
    within = (inputs // geometry.groups) * (outputs // geometry.groups)
    # At strides XLA multiplies by zeros as well.
    most = 4 * _MOST_WITHIN if operation == "input_gradient" and geometry.strides != ones else _MOST_WITHIN
    if geometry.groups >= _FEW_GROUPS and taps * within <= most and images_only:
        return _shifting(operation, images, places * geometry.groups)
    strideless = _strideless(geometry) if operation == "input_gradient" else None
    if strideless and (geometry.groups > 1 or len(geometry.size) == 3):
        return strideless
    if geometry.groups > 1:
        return ("grouped", {}) if inputs > geometry.groups else plain
    axes = _foldable(geometry)
    if axes:
        return "folded", {"axes": axes}
    if geometry.kernel_dilation != ones:
        return ("taps", {}) if operation == "weight_gradient" and taps <= _MOST_TAPS else plain
    itemsize, strided = wide(dtype).itemsize, geometry.strides != ones
    if operation == "weight_gradient":
        size = places * outputs * images * jnp.dtype(dtype).itemsize
        cached, most = (_cached("canonical"), 8) if inputs > _FEW else (_cached("few"), 16)
        plain = "canonical", {"tiles": _tiles(size, cached, images, most)}
    if operation == "weight_gradient" and _stacks(geometry, inputs, outputs):
        tiles = _tiles(places * taps * inputs * images * itemsize, _STACKED, images, images)
        return "stacked", {"tiles": tiles, "runs": _equal_runs(images // tiles, places)}
    found = _banding(operation, geometry, images, inputs, outputs, itemsize)
    if found:
        return found
    if (
        operation == "weight_gradient"
        and taps > _MOST_TAPS
        and _columns(geometry, images, inputs) * itemsize <= _STACKED
    ):
        return "folded", {"axes": (1,)}
    if taps > _MOST_TAPS:
        return plain
    found = _filtering(operation, geometry, images, inputs, outputs, itemsize)
    if found:
        return found
    if strideless and taps >= _LARGE:
        return strideless
    few = {
        "conv": places <= 16 or 2 * taps * inputs <= min(outputs, 2 * _FEW),
        "input_gradient": strided and taps < _LARGE,
        "weight_gradient": inputs > _FEW
        and (
            geometry.window[1] == 1
            or (16 < places <= 64 and places * taps * inputs * images * itemsize <= _CACHED_TAPS)
        ),
    }
    # At a stride a 1x1 convolution meets a slice, and XLA's own does not write that down.
    one = taps == 1 and not (strided and operation == "conv")
    return ("taps", {}) if one or few[operation] else plain


def _shifting(operation: Operation, images: int, numbers: int) -> Choice:
    """How images of so many numbers each are shifted and added up."""
    most = max(1, min(_UNROLLED, _WHOLE // numbers))
    return "shifted", {"tiles": _runs(images, most)} if operation == "weight_gradient" else {}


def _columns(geometry: Geometry, images: int, inputs: int) -> int:
    """Numbers to write down where what each column of a window meets becomes channels of its own."""
    return images * geometry.size[0] * geometry.out[1] * geometry.window[1] * inputs


def _foldable(geometry: Geometry) -> tuple[int, ...]:
    """The dimensions that become channels: those in which the window is whole strides, or the first of volumes."""
    rank, volumes = len(geometry.size), len(geometry.size) == 3
    axes = tuple(axis for axis in range(rank) if is_whole(geometry, axis))
    if axes and (volumes or geometry.row or all(geometry.window[axis] == geometry.strides[axis] for axis in axes)):
        return axes
    return (0,) if volumes else ()


def choose_cpu(operation: Operation, geometry: Geometry, sizes: tuple[int, ...], dtype: DTypeLike) -> Choice:
    """`choose` or `choose_onednn`, as the program is compiled."""
    return (choose_onednn if geometry.onednn else choose)(operation, geometry, sizes, dtype)


def choose_onednn(operation: Operation, geometry: Geometry, sizes: tuple[int, ...], dtype: DTypeLike) -> Choice:
    """The same in a program whose convolutions are oneDNN's, which has a fast one for few channels too.

    Its convolution of bfloat16 is twice as fast as that of float32, and faster than any filtering.
    """
    found = choose(operation, geometry, sizes, dtype)
    inputs = sizes[2]
    taps, half, strided = math.prod(geometry.window), dtype == jnp.bfloat16, any(n > 1 for n in geometry.strides)
    own = DIRECT if operation == "conv" else CANONICAL
    if found[0] == "shifted" and 1 < geometry.groups < inputs:
        return found  # as fast alone, and together they share how the images are taken apart
    if operation == "weight_gradient":
        dilated = found[0] == "taps" and any(n > 1 for n in geometry.kernel_dilation) and not geometry.row
        large = taps > _MOST_TAPS and found[0] != "banded"
        return own if geometry.groups < inputs and (dilated or large or geometry.groups > 1) else found
    if found[0] == "folded" or geometry.groups > 1:
        return found if operation == "input_gradient" and strided else own
    if taps == 1 or math.prod(geometry.out) == 1:
        return found
    if found[0] == "winograd":
        return own if half else found
    if operation == "conv":
        return own if half or inputs > 1 else found
    return found if strided or (found[0] == "banded" and taps > 4) else own


def takes_bias(channels: int) -> bool:
    """Whether oneDNN's convolution to so many channels is taken, which adds a bias and takes an activation too."""
    return channels > _FEWER


def choose_cuda(operation: Operation, geometry: Geometry, sizes: tuple[int, ...], dtype: DTypeLike) -> Choice:
    """The same on an NVIDIA GPU: XLA's own, but for the independent convolutions of a `vmap` over inputs and kernels.

    XLA has only grouped convolutions for these; products of their patches are one batch of matrix products.
    """
    ones, taps = (1, 1), math.prod(geometry.window)
    plain = len(geometry.size) == 2 and geometry.strides == geometry.input_dilation == geometry.kernel_dilation == ones
    written = math.prod((*sizes[:3], *geometry.out, taps)) * jnp.dtype(dtype).itemsize
    measured = plain and geometry.groups == 1 and taps <= _MOST_TAPS and jnp.dtype(dtype) == jnp.float32
    if sizes[0] == 1 or not measured or not 0 < written <= _MOST_WRITTEN:
        return DIRECT
    return ("together" if operation == "weight_gradient" else "taps"), {}


def _strideless(geometry: Geometry) -> Choice | None:
    """How a gradient to the input is freed of strides, if there are any and the window is not dilated there."""
    axes = tuple(axis for axis, stride in enumerate(geometry.strides) if stride > 1)
    if not axes or any(geometry.kernel_dilation[axis] > 1 for axis in axes):
        return None
    return "folded" if all(is_whole(geometry, axis) for axis in axes) else "completed", {"axes": axes}


def _stacks(geometry: Geometry, inputs: int, outputs: int) -> bool:
    """Whether a weight gradient has so few input channels, and so many outputs for them, that taps are stacked."""
    taps, places = math.prod(geometry.window), math.prod(geometry.out)
    if not 1 < taps <= _MOST_TAPS or places == 1:
        return False
    if inputs == 1:
        return taps < _LARGE or outputs >= 2 * _FEW
    return inputs <= _FEWER and outputs > _FEW and (taps < _LARGE or geometry.strides != (1, 1))


def _equal_runs(images: int, places: int) -> int:
    """How many runs of images to multiply side by side: as many as have rows enough each, but two where possible."""
    most = max(2, images * places // _LONG)
    return images // _runs(images, most)


def _banding(
    operation: Operation, geometry: Geometry, images: int, inputs: int, outputs: int, itemsize: int
) -> Choice | None:
    """How patches are multiplied by a band; None where it is impossible or not faster."""
    taps, places = math.prod(geometry.window), math.prod(geometry.out)
    if places == 1 and taps > 1 and not any(map(any, geometry.padding)):  # The window is the image.
        return "banded", {"block": 1, "tiles": 1}
    strided = geometry.strides != (1, 1)
    few = {
        "conv": inputs <= _FEWER and outputs <= _FEW and not strided,
        "input_gradient": inputs <= _FEWER and (taps >= _LARGE or not strided),
        "weight_gradient": inputs == 1 and not strided,
    }
    if taps == 1 or not few[operation] or places * taps * inputs > _MOST_PICKED:
        return None
    block = 4 if inputs <= 2 and taps >= _LARGE else 2
    patch = geometry.window[0] * ((block - 1) * geometry.strides[1] + geometry.window[1]) * inputs
    written = geometry.out[0] * -(-geometry.out[1] // block) * patch * images * itemsize
    cached = _cached("patches") / (2 if operation == "weight_gradient" else 1)  # y is read along with them
    return "banded", {"block": block, "tiles": _tiles(written, cached, images, images)}


def _filtering(
    operation: Operation, geometry: Geometry, images: int, inputs: int, outputs: int, itemsize: int
) -> Choice | None:
    """How Winograd's filtering is taken; None where it is impossible or not faster.

    F(4x4) mixes what an output does not see (`winograd`), and is for weight gradients only. Compared are
    multiplications, and numbers that are written and read again: those of the transformed tiles, of their products and
    of the windows, twice in a weight gradient, and the outputs where some of them are cut off.
    """
    possible = geometry.window == (3, 3) and geometry.strides == (1, 1)
    if not possible or min(inputs, outputs) <= _FEW or geometry.precision not in (None, lax.Precision.DEFAULT):
        return None
    extents = geometry.size if operation == "input_gradient" else geometry.out
    pairs, weighs = inputs * outputs, operation == "weight_gradient"
    own = _DIRECT * _DIRECT_WEIGHT if weighs else _ONEDNN if geometry.onednn else _DIRECT
    best = own * images * math.prod(extents) * 9 * pairs
    found: Choice | None = None
    for side in (2, 4) if weighs else (2,):
        rows, components = images * math.prod(-(-n // side) for n in extents), (side + 2) ** 2
        products, transformed = components * rows * pairs, components * rows * (inputs + outputs)
        if weighs:
            written = _NUMBER_WEIGHT * _pairs_of_cores() ** (1 / 3)
            cost = _TRANSPOSED * products + written * (transformed + 2 * components * pairs)
        else:
            cut = rows * side**2 * outputs if any(n % side for n in extents) else 0
            cost = products + _NUMBER * (transformed + components * pairs + cut)
        if cost < best:
            tiles = _tiles(transformed * itemsize, _cached(operation), images, rows // _FILLED[operation])
            best, found = cost, ("winograd", {"side": side, "tiles": tiles} if weighs else {"tiles": tiles})
    return found


def _cached(what: str) -> float:
    """Of `_CACHED`, with all cores."""
    return _CACHED[what] * _pairs_of_cores()


def _pairs_of_cores() -> float:
    return max(1.0, cores() / 2)


def _tiles(size: float, cached: float, images: int, most: int) -> int:
    """How many runs of images to take one after the other: equal ones, of about `cached` bytes each."""
    return equal_tiles(images, max(min(math.ceil(size / cached), most, images), 1))


def _runs(images: int, most: int) -> int:
    """The fewest equal runs of images of at most so many each."""
    return next(n for n in range(-(-images // most), images + 1) if images % n == 0)


def compares_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether an extreme of an array of `shape` is taken from one strided slice per place of a window.

    Where windows overlap, what comes before has to be kept from being computed anew for every slice. Where they do not,
    XLA's own is as fast with many cores as it is slow with two.
    """
    return picks_slices(windows, shape) and (_BARRIERS if windows.overlap else cores() < _MANY)


def picks_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether its derivatives are: where a window has few enough places. XLA's own select one window after another."""
    return 0 not in shape and math.prod(windows.window) <= 16


def adds_slices(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether a sum over windows is: of many channels side by side XLA's own takes as long, and less in a loop."""
    few = shape[-1] <= 2 * _FEW
    return picks_slices(windows, shape) and (_BARRIERS if windows.overlap else few)


def adds_rows(places: tuple[int, ...], channels: int) -> bool:
    """Whether a bias at so many places (R, N, *spatial) is added, and its gradient taken, by rows of places."""
    return 0 not in (*places, channels) and places[-1] > 1 and channels <= _FEW


def repeats(windows: Windows, shape: tuple[int, ...]) -> bool:
    """Whether the gradient of a sum repeats the cotangents, of `shape`: where windows lie side by side."""
    return 0 not in shape and windows.window == windows.strides and not any(map(any, windows.padding))
