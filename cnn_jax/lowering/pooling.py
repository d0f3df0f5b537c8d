"""Sums over windows and their gradient, two linear operations of which each is put to XLA in its own way.

Each is a JAX primitive and the transpose of the other, so that they can be differentiated any number of times in
either mode; how they are put to XLA is decided when they are lowered, for the platform that they are lowered for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cnn_jax.lowering import direct


@dataclass(frozen=True)
class Windows:
    """Windows over volumes (N, *size, C).

    Attributes:
      size: of the volume, in each spatial dimension.
      window, strides: extent and step of the windows.
      padding: zeros before and after each dimension.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def out(self) -> tuple[int, ...]:
        """How many windows there are in each spatial dimension."""
        each = zip(self.size, self.window, self.strides, self.padding, strict=True)
        return tuple((size + sum(pair) - window) // stride + 1 for size, window, stride, pair in each)


def window_sum(x: jax.Array, windows: Windows) -> jax.Array:
    """Sum of x (N, *size, C) over each window, to (N, *out, C)."""
    return window_sum_p.bind(x, windows=windows)


def _direct_sum(x: jax.Array, *, windows: Windows) -> jax.Array:
    return direct.reduce_window(x, "sum", window=windows.window, strides=windows.strides, padding=windows.padding)


def _direct_spread(y: jax.Array, *, windows: Windows) -> jax.Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *windows.size, y.shape[-1]), y.dtype)
    return jax.linear_transpose(functools.partial(_direct_sum, windows=windows), x)(y)[0]


def _sliced_sum(x: jax.Array, *, windows: Windows) -> jax.Array:
    """Strided slices added up, one dimension after the other.

    The barriers are what makes it fast: without them XLA computes what comes before (an activation, say) again for
    every term, and the sums again for every use.
    """
    total = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis in range(1, x.ndim - 1):
        extent, stride = windows.window[axis - 1], windows.strides[axis - 1]
        total = lax.optimization_barrier(total) if axis > 1 else total
        config = [(*windows.padding[axis - 1], 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
        total = lax.pad(total, jnp.zeros((), total.dtype), config)
        last = (windows.out[axis - 1] - 1) * stride + 1
        total = functools.reduce(lax.add, [lax.slice_in_dim(total, i, i + last, stride, axis) for i in range(extent)])
    return lax.optimization_barrier(total.astype(x.dtype))


def _repeated(y: jax.Array, *, windows: Windows) -> jax.Array:
    """The transpose, where windows lie side by side: each cotangent repeated over its window."""
    n, *out, c = y.shape
    split = tuple(s for pair in zip(out, windows.window, strict=True) for s in pair)
    y = lax.broadcast_in_dim(y, (n, *split, c), (0, *range(1, len(split), 2), len(split) + 1))
    covered = [o * w for o, w in zip(out, windows.window, strict=True)]
    config = [(0, 0, 0), *((0, size - c, 0) for size, c in zip(windows.size, covered, strict=True)), (0, 0, 0)]
    return lax.pad(y.reshape(n, *covered, c), jnp.zeros((), y.dtype), config)


def _chosen_sum(x: jax.Array, *, windows: Windows) -> jax.Array:
    sliced = 0 not in x.shape and math.prod(windows.window) <= 16
    return (_sliced_sum if sliced else _direct_sum)(x, windows=windows)


def _chosen_spread(y: jax.Array, *, windows: Windows) -> jax.Array:
    side_by_side = windows.window == windows.strides and not any(map(any, windows.padding)) and 0 not in y.shape
    return (_repeated if side_by_side else _direct_spread)(y, windows=windows)


def _primitive(
    name: str,
    shape: Callable[[Windows], tuple[int, ...]],
    stock: Callable[..., jax.Array],
    cpu: Callable[..., jax.Array],
) -> Primitive:
    primitive = Primitive(name)

    def batch(operands: Sequence[jax.Array], mapped: Sequence[int], *, windows: Windows) -> tuple[jax.Array, int]:
        a = jnp.moveaxis(operands[0], mapped[0], 0)
        result = primitive.bind(a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), windows=windows)
        return result.reshape(*a.shape[:2], *result.shape[1:]), 0

    primitive.def_impl(jax.jit(primitive.bind, static_argnames="windows"))
    primitive.def_abstract_eval(lambda a, *, windows: ShapedArray((a.shape[0], *shape(windows), a.shape[-1]), a.dtype))
    batching.primitive_batchers[primitive] = batch
    for platform, function in ((None, stock), ("cpu", cpu)):
        mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False), platform=platform)
    return primitive


window_sum_p = _primitive("cnn_window_sum", lambda windows: windows.out, _direct_sum, _chosen_sum)
spread_p = _primitive("cnn_spread", lambda windows: windows.size, _direct_spread, _chosen_spread)
ad.deflinear2(window_sum_p, lambda y, _, *, windows: [spread_p.bind(y, windows=windows)])
ad.deflinear2(spread_p, lambda x, _, *, windows: [window_sum_p.bind(x, windows=windows)])
