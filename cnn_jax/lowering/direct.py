"""One XLA operation per function: the plain lowering, right everywhere and the yardstick for any other."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.padding import written

_LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}

_REDUCERS = {"sum": lax.add, "max": lax.max, "min": lax.min}


def conv(
    x: jax.Array, kernel: jax.Array, geometry: Geometry, preferred_element_type: DTypeLike | None = None
) -> jax.Array:
    """Convolution of x (N, *spatial, I) with kernel (*window, I / groups, O), to (N, *out, O)."""
    if any(map(is_symbolic_dim, (*x.shape, *kernel.shape))):
        if any(is_symbolic_dim(count) for pair in geometry.padding for count in pair):  # refused by what is below
            x, geometry = written(x, geometry)
    else:
        if _is_misread(geometry):
            x, geometry = written(x, geometry)
        if geometry.onednn:
            x, kernel, geometry = _safe(x, kernel, geometry)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.strides,
        padding=geometry.padding,
        lhs_dilation=geometry.input_dilation,
        rhs_dilation=geometry.kernel_dilation,
        dimension_numbers=_LAYOUTS[len(geometry.strides)],
        feature_group_count=geometry.groups,
        precision=geometry.precision,
        preferred_element_type=preferred_element_type,
    )


def _is_misread(geometry: Geometry) -> bool:
    """Whether XLA:CPU errs in a convolution or in a gradient of it, unless padding and input dilation are written down.

    Where a dimension is cropped before and padded after, that of JAX 0.10 reads past the image. And where a dilated
    dimension looks like the groups of a batched product, but has not as many elements as the window, and the window is
    larger than the image in others, that of 0.10 and 0.12 exchanges image and kernel in all but this one, finds that
    its shapes do not fit and ends the process.
    """

    def grouped(g: Geometry) -> bool:
        dimensions = zip(g.size, g.window, g.strides, g.padding, g.input_dilation, g.kernel_dilation, strict=True)
        return any(
            size != window == before == stride + 1 and padding == (0, 0) and between == 1
            for size, window, stride, padding, before, between in dimensions
        )

    cropped = any(low < 0 < high for low, high in geometry.padding)
    return cropped or (geometry.groups == 1 and any(map(grouped, (geometry, geometry.turned, geometry.correlation))))


def _safe(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> tuple[jax.Array, jax.Array, Geometry]:
    """The same convolution in a form that oneDNN 3.12, as XLA calls it, computes rightly.

    Where a window is wider than the image or can lie in padding alone its numbers are wrong in float32, and in bfloat16
    it ends the process: there padding is written down. A single input channel, strides and an output one place wide
    give wrong numbers too: there a channel of zeros is added.
    """
    if geometry.narrow:
        x, geometry = written(x, geometry)
    if x.shape[-1] == 1 and any(stride > 1 for stride in geometry.strides) and 1 in geometry.out:
        x = jnp.concatenate([x, jnp.zeros_like(x)], -1)
        kernel = jnp.concatenate([kernel, jnp.zeros_like(kernel)], -2)
    return x, kernel, geometry


def reduce_window(
    x: jax.Array,
    reducer: Literal["sum", "max", "min"],
    *,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    divisor: int = 1,
) -> jax.Array:
    """Sum, maximum or minimum of x (N, *spatial, C) over each window, to (N, *out, C), then `divided`.

    Padding holds the reducer's identity, so it never wins a maximum and adds nothing to a sum.
    """
    y = lax.reduce_window(
        x,
        _identity(reducer, x.dtype),
        _REDUCERS[reducer],
        window_dimensions=(1, *window, 1),
        window_strides=(1, *strides, 1),
        padding=((0, 0), *padding, (0, 0)),
    )
    return divided(y, divisor)


def divided(x: jax.Array, divisor: int) -> jax.Array:
    """x over `divisor`, in its own dtype."""
    return x if divisor == 1 else x / jnp.asarray(divisor, x.dtype)


def dot(x: jax.Array, kernel: jax.Array, *, precision: lax.PrecisionLike) -> jax.Array:
    """Product of x (..., I) with kernel (I, O), to (..., O)."""
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), precision=precision)


def _identity(reducer: str, dtype: jnp.dtype) -> np.generic:
    """The value that leaves the reducer's other operand as it is, as a scalar of `dtype`.

    JAX recognises the reduction, and hence its gradient, by exactly this value.
    """
    if reducer == "sum":
        return dtype.type(0)
    if jnp.issubdtype(dtype, jnp.floating):
        return dtype.type(-jnp.inf if reducer == "max" else jnp.inf)
    limits = jnp.iinfo(dtype)
    return dtype.type(limits.min if reducer == "max" else limits.max)
