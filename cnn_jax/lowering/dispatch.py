"""The functions that `cnn_jax.functional` comes through: to a lowering that may be chosen, or to XLA's own."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from cnn_jax.lowering import biases, bilinear, choice, direct, extremes, sums
from cnn_jax.lowering.geometry import Geometry, Windows

_OPTIONS: Any = jax.config  # some versions of JAX declare its options to type checkers, some do not


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike,
    preferred_element_type: DTypeLike | None,
) -> jax.Array:
    """Convolution of x (N, *spatial, I) with kernel (*window, I / groups, O), to (N, *out, O).

    `padding` counts zeros before and after each dimension of the dilated input; a negative count crops. It and its
    gradients are each lowered as `choice` says. With `precision` None they have JAX's own, where that is set
    (`jax.default_matmul_precision`).
    """
    geometry = Geometry(
        size=x.shape[1:-1],
        window=kernel.shape[:-2],
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        groups=feature_group_count,
        precision=_resolved(precision),
        onednn=choice.current() == "onednn",
    )
    if preferred_element_type not in (None, x.dtype) or not _may_choose(x, kernel):
        return direct.conv(x, kernel, geometry, preferred_element_type)
    chosen = bilinear.transposed if geometry.transposed else bilinear.conv
    if len(strides) == 1:
        return chosen(x[:, None], kernel[None], geometry.as_row())[:, 0]
    return chosen(x, kernel, geometry)


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y (N, *spatial, C) with bias (C,), of the same dtype, added at every place."""
    chosen = _may_choose(y, bias) and not (choice.current() == "onednn" and choice.takes_bias(y.shape[-1]))
    return biases.add(y, bias) if chosen else y + lax.expand_dims(bias, range(y.ndim - 1))


def reduce_window(
    x: jax.Array,
    reducer: Literal["sum", "max", "min"],
    *,
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    divisor: int = 1,
) -> jax.Array:
    """As `direct.reduce_window`, a `divisor` being of sums only; of floats it and its derivatives are each lowered as
    `choice` says."""
    if not _may_choose(x):
        return direct.reduce_window(x, reducer, window=window, strides=strides, padding=padding, divisor=divisor)
    windows = Windows(x.shape[1:-1], window, strides, padding)
    if reducer == "sum":
        return sums.window_sum(x, sums.Sums(windows, divisor))
    return extremes.window_extreme(x, extremes.Extremes(windows, reducer))


def _resolved(precision: lax.PrecisionLike) -> lax.PrecisionLike:
    """The precision in one form where two say the same, so that a choice can go by it.

    JAX's own setting is read here, where a function is traced: it may be another one when its gradient is taken, or
    when it is lowered.
    """
    if precision is None:
        precision = _OPTIONS.jax_default_matmul_precision
    if isinstance(precision, lax.DotAlgorithm) or not isinstance(precision, (list, tuple)):
        return _named(precision)
    pair = tuple(map(_named, precision))
    return pair[0] if len(pair) == 2 and pair[0] == pair[1] else pair


def _named(precision: Any) -> Any:
    """What a name stands for; what is none, or none that is known, is left to XLA's own operation to take or refuse."""
    if not isinstance(precision, str):
        return precision
    if precision in lax.DotAlgorithmPreset.__members__:
        return lax.DotAlgorithmPreset[precision]
    try:
        return lax.Precision(precision)
    except ValueError:
        return precision


def _may_choose(*arrays: jax.Array) -> bool:
    """Whether there is a choice: real floats of known size, in an ordinary function of whole arrays.

    Where types carry a sharding (explicit axes of a mesh, `jax.shard_map`), XLA's own operations know what to do.
    """
    return choice.current() != "direct" and all(
        jnp.issubdtype(a.dtype, jnp.floating) and all(isinstance(d, int) for d in a.shape) and not _typed(jax.typeof(a))
        for a in arrays
    )


def _typed(aval: Any) -> bool:
    manual = aval.manual_axis_type
    return any(aval.sharding.spec) or bool(manual.varying or manual.unreduced or manual.reduced)
