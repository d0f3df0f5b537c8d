"""Convolutions and pools as NumPy loops written from their definitions, in the dtype of what they are given."""

from __future__ import annotations

import itertools
import math

import numpy as np


def dilated(size, dilation):
    return (size - 1) * dilation + 1


def zeros_around(padding, size, extent, stride):
    """The (low, high) zeros of one dimension: `size` and `extent` are those after dilation."""
    if padding == "SAME":
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        return total // 2, math.ceil(total / 2)
    if padding == "CAUSAL":
        return extent - 1, 0
    if padding in ("CIRCULAR", "REFLECT"):
        return (extent - 1) // 2, extent // 2
    return (0, 0) if padding == "VALID" else padding


def source(position, size, dilation, padding):
    """Which element of a dimension lies at `position` of its dilated, endlessly padded form; None for a zero."""
    if padding == "CIRCULAR":
        return position % size
    if padding == "REFLECT":
        if size == 1:
            return 0
        position %= 2 * (size - 1)
        return position if position < size else 2 * (size - 1) - position
    index, between = divmod(position, dilation)
    return index if between == 0 and 0 <= index < size else None


def conv(x, kernel, bias, strides, padding, input_dilation, kernel_dilation, groups):
    """`padding` is one entry per dimension: a mode or a pair."""
    rank = kernel.ndim - 2
    sizes, window = x.shape[-rank - 1 : -1], kernel.shape[:rank]
    spread = [dilated(n, d) for n, d in zip(sizes, input_dilation, strict=True)]
    extents = [dilated(w, d) for w, d in zip(window, kernel_dilation, strict=True)]
    around = [zeros_around(*a) for a in zip(padding, spread, extents, strides, strict=True)]
    out = [(n + low + high - e) // s + 1 for n, (low, high), e, s in zip(spread, around, extents, strides, strict=True)]
    if any(n < 1 for n in out):
        return None
    ins, outs = kernel.shape[-2], kernel.shape[-1] // groups
    y = np.zeros((*x.shape[: -rank - 1], *out, kernel.shape[-1]), x.dtype)
    for to, tap in itertools.product(np.ndindex(*out), np.ndindex(*window)):
        at = [
            source(o * s + t * d - low, n, i, p)
            for o, s, t, d, (low, _), n, i, p in zip(
                to, strides, tap, kernel_dilation, around, sizes, input_dilation, padding, strict=True
            )
        ]
        if None in at:
            continue
        for g in range(groups):
            seen = x[(..., *at, slice(g * ins, (g + 1) * ins))]
            y[(..., *to, slice(g * outs, (g + 1) * outs))] += seen @ kernel[tap][:, g * outs : (g + 1) * outs]
    return y + bias


def conv_transpose(x, kernel, bias, strides, padding, kernel_dilation, transpose_kernel):
    """Every input element adds its multiple of the kernel to the outputs it reaches."""
    rank = kernel.ndim - 2
    sizes, window = x.shape[-rank - 1 : -1], kernel.shape[:rank]
    extents = [dilated(w, d) for w, d in zip(window, kernel_dilation, strict=True)]
    periods = [n * s for n, s in zip(sizes, strides, strict=True)]
    before, out = [], []  # how many of the reached outputs are cut before the first; how many are kept
    for n, e, s, p in zip(sizes, extents, strides, padding, strict=True):
        excess = max(e - s, 0)
        if p == "SAME":  # the zeros before the first input of the strided convolution this transposes
            before.append(excess // 2)
            out.append(n * s)
        elif p == "VALID":
            before.append(0)
            out.append(n * s + excess)
        elif p == "CIRCULAR":
            before.append(math.ceil(excess / 2) if transpose_kernel else excess // 2)
            out.append(n * s)
        else:
            before.append(e - 1 - p[0])
            out.append(dilated(n, s) + sum(p) - e + 1)
    if any(n < 1 for n in out):
        return None
    y = np.zeros((*x.shape[: -rank - 1], *out, len(bias)), x.dtype)
    for at, tap in itertools.product(np.ndindex(*sizes), np.ndindex(*window)):
        weights = kernel[tap].T if transpose_kernel else kernel[tap]
        to = []
        for i, s, t, w, d, cut, n, period, p in zip(
            at, strides, tap, window, kernel_dilation, before, out, periods, padding, strict=True
        ):
            j = i * s + (t if transpose_kernel else w - 1 - t) * d - cut
            j = j % period if p == "CIRCULAR" else j
            to.append(j if 0 <= j < n else None)
        if None not in to:
            y[(..., *to, slice(None))] += x[(..., *at, slice(None))] @ weights
    return y + bias


def pool(kind, x, window, strides, padding, count_include_pad=True):
    """`kind` is max, min, avg or sum; `padding` one entry per dimension: a mode or a pair."""
    rank = len(window)
    sizes = x.shape[-rank - 1 : -1]
    around = [zeros_around(*a) for a in zip(padding, sizes, window, strides, strict=True)]
    out = [(n + low + high - w) // s + 1 for n, (low, high), w, s in zip(sizes, around, window, strides, strict=True)]
    if any(n < 1 for n in out):
        return None
    y = np.zeros((*x.shape[: -rank - 1], *out, x.shape[-1]), x.dtype)
    for to in np.ndindex(*out):
        seen = []
        for tap in np.ndindex(*window):
            at = [o * s + t - low for o, s, t, (low, _) in zip(to, strides, tap, around, strict=True)]
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                seen.append(x[(..., *at, slice(None))])
        if kind == "avg":
            y[(..., *to, slice(None))] = sum(seen) / (math.prod(window) if count_include_pad else len(seen))
        else:
            y[(..., *to, slice(None))] = {"max": np.max, "min": np.min, "sum": np.sum}[kind](seen, axis=0)
    return y
