"""How each of JAX's primitive operations passes receptive fields on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import JaxprEqn

from cnn_jax.describe.receptive import UNKNOWN, Axis, join


class Weights:
    """Stands for parameters as they are, of which none is zero."""


# How an array sees each spatial axis of the input. Of one that does not depend on the input it matters whether it holds
# weights as they are, or else (None) may be full of zeros.
Seen = tuple[Axis, ...] | Weights | None

_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not", "or", "pow",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sharding_constraint", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub",
    "tan", "tanh", "xor",
))  # fmt: skip


_KEEPING_WEIGHTS = ("convert_element_type", "copy", "name", "neg", "reshape", "squeeze", "transpose")


def passed_on(eqn: JaxprEqn, operands: Sequence[Seen]) -> list[Seen]:
    """What the results of an operation, other than a call of further operations, see if its operands see this."""
    name = eqn.primitive.name
    if name == "optimization_barrier":
        return list(operands)
    seeing = [seen for seen in operands if isinstance(seen, tuple)]
    if not seeing:
        kept = operands[0] if operands and name in _KEEPING_WEIGHTS else None
        return [kept] * len(eqn.outvars)
    rule = _elementwise if name in _ELEMENTWISE else _RULES.get(name, _unknown)
    if name == "dot_general" and None in operands:
        rule = _sparse_dot
    # By axes of the input: which dimension of an operand one lies along differs from array to array.
    axes = [
        rule(eqn, [seen[index] if isinstance(seen, tuple) else None for seen in operands])
        for index in range(len(seeing[0]))
    ]
    results = [axis if isinstance(axis, list) else [axis] * len(eqn.outvars) for axis in axes]
    return [tuple(result[number] for result in results) for number in range(len(eqn.outvars))]


def shape_of(variable: Any) -> tuple[int, ...]:
    """The shape of an operation's operand or result."""
    return variable.aval.shape


def contracted(axis: Axis, shape: Sequence[int], dims: Sequence[int]) -> Axis:
    """An axis after these dimensions of an array of this shape have been summed over and are gone."""
    if axis.dim is None:
        return axis
    if axis.dim in dims:
        return axis.together(shape[axis.dim])
    return axis.at(axis.dim - sum(dim < axis.dim for dim in dims))


Rule = Callable[[JaxprEqn, Sequence[Axis | None]], Axis | list[Axis]]


def _joined(axes: Sequence[Axis | None], shape: Sequence[int]) -> Axis:
    first, *others = (axis for axis in axes if axis is not None)
    for other in others:
        first = join(first, other, shape)
    return first


def _elementwise(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis:
    shape = shape_of(eqn.outvars[0])
    stretched = [
        axis.together(1) if axis and axis.dim is not None and shape_of(var)[axis.dim] != shape[axis.dim] else axis
        for axis, var in zip(axes, eqn.invars, strict=True)
    ]
    return _joined(stretched, shape)


def _unknown(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis:
    # Where all elements see the same, they may be mixed in any way.
    same = all(axis is None or axis.dim is None for axis in axes)
    return _joined(axes, ()) if same else UNKNOWN


def _one_array(rule: Callable[[JaxprEqn, Axis, int, tuple[int, ...]], Axis | list[Axis]]) -> Rule:
    """A rule for an operation on one array, from what it does with an axis along a dimension of that array."""

    def full(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis | list[Axis]:
        axis = axes[0]
        if axis is None or any(other is not None for other in axes[1:]):
            return _unknown(eqn, axes)
        return axis if axis.dim is None else rule(eqn, axis, axis.dim, shape_of(eqn.invars[0]))

    return full


def _broadcast(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    to = eqn.params["broadcast_dimensions"][dim]
    return axis.at(to) if shape[dim] == eqn.params["shape"][to] else axis.together(1)


def _transpose(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    return axis.at(eqn.params["permutation"].index(dim))


def _squeeze(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    return contracted(axis, shape, eqn.params["dimensions"])


def _reduce(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    return contracted(axis, shape, eqn.params["axes"])


def _reshape(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    """An axis goes where its dimension goes, alone or merged with neighbours; not where it is split."""
    if eqn.params["dimensions"] is not None or 0 in shape:
        return UNKNOWN
    count = shape[dim]
    if count == 1:
        return axis.together(1)
    outer = math.prod(shape[:dim])
    for to, size in enumerate(eqn.params["new_sizes"]):
        before = math.prod(eqn.params["new_sizes"][:to])
        if before == outer and size == count:
            return axis.at(to)
        if outer % before == 0 and before * size % (outer * count) == 0:
            return axis.as_parts(to, count)
    return UNKNOWN


def _concatenate(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis:
    shape, dim = shape_of(eqn.outvars[0]), eqn.params["dimension"]
    if any(axis is not None and axis.dim == dim for axis in axes):
        sizes = [shape_of(var)[dim] for var in eqn.invars]
        axes = [
            axis and (axis.as_parts(dim, size) if axis.dim in (None, dim) else UNKNOWN)
            for axis, size in zip(axes, sizes, strict=True)
        ]
    return _joined(axes, shape)


def _pad(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    low, high, between = eqn.params["padding_config"][dim]
    if low == high == between == 0:
        return axis
    return axis.slid(shape[dim], (0,), 1, low) if between == 0 else UNKNOWN


def _slice(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    if shape_of(eqn.outvars[0])[dim] == shape[dim]:
        return axis
    strides = eqn.params["strides"]
    return axis.slid(shape[dim], (0,), strides[dim] if strides else 1, -eqn.params["start_indices"][dim])


def _split(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> list[Axis]:
    sizes = eqn.params["sizes"]
    if dim != eqn.params["axis"]:
        return [axis] * len(sizes)
    return [axis.slid(shape[dim], (0,), 1, -sum(sizes[:number])) for number in range(len(sizes))]


def _reduce_window(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    params = eqn.params
    if params["base_dilation"][dim] != 1:
        return UNKNOWN
    taps = [tap * params["window_dilation"][dim] for tap in range(params["window_dimensions"][dim])]
    return axis.slid(shape[dim], taps, params["window_strides"][dim], params["padding"][dim][0])


def _conv(eqn: JaxprEqn, axis: Axis, dim: int, shape: tuple[int, ...]) -> Axis:
    params = eqn.params
    numbers = params["dimension_numbers"]
    number = numbers.lhs_spec.index(dim) - 2
    if number < 0 or params["lhs_dilation"][number] != 1:
        return UNKNOWN
    extent = shape_of(eqn.invars[1])[numbers.rhs_spec[number + 2]]
    taps = [tap * params["rhs_dilation"][number] for tap in range(extent)]
    low, _ = params["padding"][number]
    return axis.slid(shape[dim], taps, params["window_strides"][number], low).at(numbers.out_spec[number + 2])


def _dot(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis:
    contracting, batch = eqn.params["dimension_numbers"]
    free = 0
    results = []
    for axis, var, sums, batches in zip(axes, eqn.invars, contracting, batch, strict=True):
        shape = shape_of(var)
        if axis is not None and axis.dim in batches:
            axis = axis.at(batches.index(axis.dim))
        elif axis is not None:
            axis = contracted(axis, shape, (*sums, *batches))
            if axis.dim is not None:
                axis = axis.at(axis.dim + len(batches) + free)
        results.append(axis)
        free += len(shape) - len(sums) - len(batches)
    return _joined(results, shape_of(eqn.outvars[0]))


def _sparse_dot(eqn: JaxprEqn, axes: Sequence[Axis | None]) -> Axis:
    # Computed numbers, such as those by which an image is resized, may leave out most of what is summed over.
    sums, _ = eqn.params["dimension_numbers"]
    left_out = any(axis is not None and axis.dim in dims for axis, dims in zip(axes, sums, strict=True))
    return UNKNOWN if left_out else _dot(eqn, axes)


_RULES: dict[str, Rule] = {
    "broadcast_in_dim": _one_array(_broadcast),
    "concatenate": _concatenate,
    "conv_general_dilated": _one_array(_conv),
    "dot_general": _dot,
    "pad": _one_array(_pad),
    "reshape": _one_array(_reshape),
    "slice": _one_array(_slice),
    "split": _one_array(_split),
    "squeeze": _one_array(_squeeze),
    "transpose": _one_array(_transpose),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min"), _one_array(_reduce_window)),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor", "argmax",
         "argmin"),
        _one_array(_reduce),
    ),
}  # fmt: skip
