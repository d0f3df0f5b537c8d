"""Convolutions of each channel alone as bands of columns, against NumPy in float64 a channel at a time."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.lowering import bilinear, choice, toeplitz
from tests import quick
from tests.geometries import ints, normal, seeds
from tests.test_lowerings import REFERENCE, TINY, UNIT, check_derivatives, make_geometry, operands


@st.composite
def geometries(draw):
    window, size, dilation = draw(ints(1, 6, 2)), draw(ints(1, 6, 2)), draw(ints(1, 2, 2))
    extents = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    padding = []
    for extent, n in zip(extents, size, strict=True):
        low = draw(st.integers(-min(n - 1, 2), 6))
        least = max(extent - n - low, 1 - n - min(low, 0))  # for one output and a column that is not cropped
        padding.append((low, draw(st.integers(least, least + 4))))
    geometry = make_geometry(size, window, draw(ints(1, 3, 2)), tuple(padding))
    return dataclasses.replace(geometry, kernel_dilation=dilation)


def reference(operation, a, b, geometry, channels):
    """An operation of `channels`, each alone, by its definition; a dilated kernel is one with zeros in it."""
    (down, right), window = geometry.kernel_dilation, geometry.window
    extents = ((window[0] - 1) * down + 1, (window[1] - 1) * right + 1)
    if operation != "weight_gradient":
        dilated = np.zeros((*extents, *b.shape[2:]))
        dilated[::down, ::right] = b
        b = dilated
    plain = dataclasses.replace(geometry, window=extents, kernel_dilation=(1, 1))
    split = [np.split(a, channels, -1), np.split(b, channels, -1)]
    results = [REFERENCE[operation](*pair, plain) for pair in zip(*split, strict=True)]
    result = np.concatenate(results, -1)
    return result[::down, ::right] if operation == "weight_gradient" else result


def check_within_rounding(geometry, counts, block, seed, dtype):
    n, channels, multiple = counts
    geometry = dataclasses.replace(geometry, groups=channels)
    outputs = channels * multiple
    shapes = (n, *geometry.size, channels), (*geometry.window, 1, outputs), (n, *geometry.out, outputs)
    arrays = [jnp.asarray(a, dtype) for a in normal(seed, *shapes)]
    exact = [np.asarray(a, np.float64) for a in arrays]
    taps = math.prod(geometry.window)
    terms = {"conv": taps, "input_gradient": taps * multiple, "weight_gradient": n * math.prod(geometry.out)}

    @quick.jit
    def everything(arrays):
        return {
            operation: ways["toeplitz"](*operands(operation, arrays), geometry=geometry, block=block)
            for operation, ways in bilinear.WAYS.items()
        }

    for operation, result in everything(arrays).items():
        assert result.dtype == dtype
        expected = reference(operation, *operands(operation, exact), geometry, channels)
        size = reference(operation, *operands(operation, [abs(a) for a in exact]), geometry, channels)
        error = terms[operation] * UNIT["float32"]  # Higham, section 3.1, as in test_lowerings.py
        bound = error / (1 - error) * size
        if dtype != "float32":
            bound += UNIT[dtype] * (abs(expected) + bound) + TINY[dtype]
        assert (abs(np.asarray(result, np.float64) - expected) <= bound).all(), operation


@settings(max_examples=12, deadline=None)
@given(geometries(), ints(1, 3, 3), st.integers(1, 6), seeds, st.sampled_from(["float32", "bfloat16", "float16"]))
def test_bands_are_within_rounding_of_the_definition(geometry, counts, block, seed, dtype):
    check_within_rounding(geometry, counts, block, seed, dtype)


@pytest.mark.parametrize(
    ("size", "window", "padding"),
    [
        ((20, 24), (13, 11), ((6, 6), (5, 5))),  # rows cut into blocks
        ((5, 4), (13, 12), ((6, 6), (6, 5))),  # a window larger than the image, of an even width
        ((9, 9), (7, 12), ((3, -1), (2, 1))),  # cropped, to outputs one column wide
        ((3, 2), (1, 2), ((2, 0), (5, 4))),  # a window that lies in padding alone
    ],
)
def test_large_windows_are(size, window, padding):
    check_within_rounding(make_geometry(size, window, (1, 1), padding), (2, 3, 2), 9, 0, "float32")


def test_derivatives_and_maps_of_bands_are_those_of_the_stock_convolution(monkeypatch):
    asked = set()

    def choose(operation, *_):
        asked.add(operation)
        return "toeplitz", {"block": 4}

    monkeypatch.setattr(choice, "choose", choose)
    rest = {"feature_group_count": 3, "kernel_dilation": (1, 2)}
    check_derivatives((7, 8), (5, 3), (1, 1), ((2, 2), (-1, 2)), (3, 6), rest)
    assert asked == set(bilinear.WAYS)


def test_memory_does_not_hold_the_bands_of_all_channels():
    geometry = make_geometry((32, 32), (31, 31), padding=((15, 15), (15, 15)), groups=256)
    x, kernel = jax.ShapeDtypeStruct((1, 32, 32, 256), "f4"), jax.ShapeDtypeStruct((31, 31, 1, 256), "f4")
    compiled = quick.jit(lambda x, k: toeplitz.conv(x, k, geometry, 32)).lower(x, kernel).compile()
    images, bands = 4 * 62 * 32 * 256, 4 * 31 * 32 * 32 * 256
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * images < bands / 2
