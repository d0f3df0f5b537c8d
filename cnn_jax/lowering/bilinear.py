"""Convolution and its two gradients, as three operations of which each is lowered to XLA in its own way.

The sum over all outputs of cotangent times convolution, T(x, kernel, y), is linear in each of its three arrays. A
convolution, its input gradient and its weight gradient are the derivatives of T in y, x and kernel, and each is a
bilinear function of the other two arrays. The derivatives of any of the three are therefore again one of the three.
With that rule, and one for batches, each is a JAX primitive, which can be differentiated any number of times in either
mode, and mapped; in which way it is lowered is decided then, for the platform that it is lowered for.

In the primitives all arrays have one more leading dimension, R, of independent convolutions. `jax.vmap` over the
input or the cotangent alone makes a larger batch, over the kernel alone more channels, and over both a larger R.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from cnn_jax.lowering import banded, canonical, choice, direct, folded, grouped, shifted, taps, toeplitz, winograd
from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.primitive import adds_up, batch, define


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, *spatial, I) with kernel (*window, I / groups, O), to (N, *out, O)."""
    return conv_p.bind(x[None], kernel[None], geometry=geometry)[0]


def transposed(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """As `conv`, for a geometry that is `transposed`: as the input gradient which it is."""
    kernel = canonical.turned(kernel, geometry.groups)
    return input_gradient_p.bind(x[None], kernel[None], geometry=geometry.turned)[0]


def _direct_input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.size, kernel.shape[-2] * geometry.groups), y.dtype)
    return jax.linear_transpose(lambda x: direct.conv(x, kernel, geometry), x)(y)[0]


def _direct_weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((*geometry.window, x.shape[-1] // geometry.groups, y.shape[-1]), y.dtype)
    return jax.linear_transpose(lambda kernel: direct.conv(x, kernel, geometry), kernel)(y)[0]


WAYS: dict[choice.Operation, dict[str, Callable[..., jax.Array]]] = {
    "conv": {
        "direct": direct.conv,
        "banded": banded.conv,
        "folded": folded.conv,
        "grouped": grouped.one_by_one,
        "shifted": shifted.conv,
        "taps": taps.conv,
        "toeplitz": toeplitz.conv,
        "winograd": winograd.conv,
    },
    "input_gradient": {
        "direct": _direct_input_gradient,
        "canonical": canonical.input_gradient,
        "banded": banded.input_gradient,
        "folded": folded.input_gradient,
        "completed": folded.input_gradient_completed,
        "grouped": grouped.one_by_one,
        "shifted": shifted.input_gradient,
        "taps": taps.input_gradient,
        "toeplitz": toeplitz.input_gradient,
        "winograd": winograd.input_gradient,
    },
    "weight_gradient": {
        "direct": _direct_weight_gradient,
        "canonical": canonical.weight_gradient,
        "banded": banded.weight_gradient,
        "folded": folded.weight_gradient,
        "grouped": grouped.one_by_one,
        "shifted": shifted.weight_gradient,
        "taps": taps.weight_gradient,
        "stacked": taps.weight_gradient_stacked,
        "together": taps.weight_gradient_together,
        "toeplitz": toeplitz.weight_gradient,
        "winograd": winograd.weight_gradient,
    },
}


def _shape(operation: choice.Operation, a: Any, b: Any, *, geometry: Geometry) -> tuple[int, ...]:
    """Of the result, from operands with the leading dimension R."""
    if operation == "conv":
        return (*a.shape[:2], *geometry.out, b.shape[-1])
    if operation == "input_gradient":
        return (*a.shape[:2], *geometry.size, b.shape[-2] * geometry.groups)
    return (a.shape[0], *geometry.window, a.shape[-1] // geometry.groups, b.shape[-1])


def _channels(operation: choice.Operation, a: Any, b: Any, geometry: Geometry) -> tuple[int, int]:
    """Of input and output."""
    if operation == "conv":
        return a.shape[-1], b.shape[-1]
    if operation == "input_gradient":
        return b.shape[-2] * geometry.groups, a.shape[-1]
    return a.shape[-1], b.shape[-1]


def _chosen(
    choose: choice.Choose, operation: choice.Operation, a: jax.Array, b: jax.Array, *, geometry: Geometry
) -> jax.Array:
    sizes = (*a.shape[:2], *_channels(operation, a, b, geometry))
    way, arguments = choose(operation, geometry, sizes, a.dtype)
    if way in ("folded", "grouped", "completed"):

        def inner(a: jax.Array, b: jax.Array, geometry: Geometry) -> jax.Array:
            return _chosen(choose, operation, a[None], b[None], geometry=geometry)[0]

        arguments = arguments | {"inner": inner}
    if way in ("direct", "canonical") and geometry.row and not geometry.onednn:
        return _each(functools.partial(_as_row, operation, way, geometry, **arguments), a, b)
    return _each(functools.partial(WAYS[operation][way], geometry=geometry, **arguments), a, b)


def _as_row(
    operation: choice.Operation, way: str, geometry: Geometry, a: jax.Array, b: jax.Array, **arguments: Any
) -> jax.Array:
    """An operation on images of one row, in one dimension, in which XLA's own is up to three times as fast."""
    function, weighs = WAYS[operation][way], operation == "weight_gradient"
    result = function(a[:, 0], b[:, 0] if weighs else b[0], geometry=geometry.without(0), **arguments)
    return result[None] if weighs else result[:, None]


def _stock(operation: choice.Operation, a: jax.Array, b: jax.Array, *, geometry: Geometry) -> jax.Array:
    return _each(functools.partial(WAYS[operation]["direct"], geometry=geometry), a, b)


def _each(function: Callable[..., jax.Array], a: jax.Array, b: jax.Array) -> jax.Array:
    return function(a[0], b[0])[None] if a.shape[0] == 1 else jax.vmap(function)(a, b)


# Where the dimension of a `vmap` goes to if only one operand is mapped: its axis in that operand and in the result.
_FOLDED = {
    ("conv", 0): (1, 1),
    ("conv", 1): (-1, -1),
    ("input_gradient", 0): (1, 1),
    ("input_gradient", 1): (-2, -1),
    ("weight_gradient", 0): (-1, -2),
    ("weight_gradient", 1): (-1, -1),
}


def _batch(
    primitive: Primitive,
    operation: choice.Operation,
    operands: Sequence[jax.Array],
    mapped: Sequence[int | None],
    *,
    geometry: Geometry,
) -> tuple[jax.Array, int]:
    """The rule of `jax.vmap`: one operand mapped is a larger batch or more channels, two are a larger R."""
    one, axis = next((i, axis) for i, axis in enumerate(mapped) if axis is not None)
    size = operands[one].shape[axis]
    if None in mapped:
        rank = len(geometry.size) + 3
        into, out = (axis % rank for axis in _FOLDED[operation, one])
        if geometry.groups == 1 or into == 1:
            folded = list(operands)
            moved = jnp.moveaxis(operands[one], axis, into)
            folded[one] = moved.reshape(*moved.shape[:into], size * moved.shape[into + 1], *moved.shape[into + 2 :])
            result = primitive.bind(*folded, geometry=geometry)
            each = moved.shape[into + 1]  # images or channels, as many in the result
            return result.reshape(*result.shape[:out], size, each, *result.shape[out + 1 :]), out
    return batch(primitive, operands, mapped, geometry=geometry)


def _primitive(operation: choice.Operation) -> Primitive:
    primitive = define(
        f"cnn_{operation}",
        functools.partial(_shape, operation),
        stock=functools.partial(_stock, operation),
        cpu=functools.partial(_chosen, choice.choose_cpu, operation),
        cuda=functools.partial(_chosen, choice.choose_cuda, operation),
    )
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive, operation)
    adds_up(primitive)
    return primitive


conv_p = _primitive("conv")
input_gradient_p = _primitive("input_gradient")
weight_gradient_p = _primitive("weight_gradient")
ad.defbilinear(
    conv_p,
    lambda y, _, kernel, *, geometry: input_gradient_p.bind(y, kernel, geometry=geometry),
    lambda y, x, _, *, geometry: weight_gradient_p.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    input_gradient_p,
    lambda x, _, kernel, *, geometry: conv_p.bind(x, kernel, geometry=geometry),
    lambda x, y, _, *, geometry: weight_gradient_p.bind(x, y, geometry=geometry),
)
ad.defbilinear(
    weight_gradient_p,
    lambda kernel, _, y, *, geometry: input_gradient_p.bind(y, kernel, geometry=geometry),
    lambda kernel, x, _, *, geometry: conv_p.bind(x, kernel, geometry=geometry),
)
