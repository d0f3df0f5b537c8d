"""JAX primitives whose lowering depends on the platform that a program is lowered for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def define(
    name: str,
    shape: Callable[..., tuple[int, ...]],
    stock: Callable[..., jax.Array],
    cpu: Callable[..., jax.Array],
    cuda: Callable[..., jax.Array] | None = None,
) -> Primitive:
    """A primitive of arrays of one dtype with one parameter, `geometry`, which is hashable.

    What it computes is independent along the leading dimension of all its arrays, which `jax.vmap` makes longer.

    Args:
      name: shown in jaxprs.
      shape: of the result, from the operands and `geometry=`.
      stock: computes the result on any platform, from the operands and `geometry=`.
      cpu, cuda: compute it there; None leaves it to `stock`.
    """
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="geometry"))
    primitive.def_abstract_eval(lambda *a, geometry: ShapedArray(shape(*a, geometry=geometry), a[0].dtype))
    for platform, function in ((None, stock), ("cpu", cpu), ("cuda", cuda or stock)):
        mlir.register_lowering(primitive, _rule(function, stock), platform=platform)
    batching.primitive_batchers[primitive] = functools.partial(batch, primitive)
    return primitive


def _rule(function: Callable[..., jax.Array], stock: Callable[..., jax.Array]) -> Callable[..., Any]:
    """How a primitive is lowered: as `function`, but as `stock` where XLA divides the program among devices."""
    chosen, plain = (mlir.lower_fun(way, multiple_results=False) for way in (function, stock))

    def rule(context: mlir.LoweringRuleContext, *operands: Any, geometry: Any) -> Any:
        return (plain if _divided(context) else chosen)(context, *operands, geometry=geometry)

    return rule


def _divided(context: mlir.LoweringRuleContext) -> bool:
    """Whether XLA is to divide the arrays of a program among devices, rather than `jax.shard_map` before it.

    It knows how to for its own operations; of what other forms of them are made of it gathers whole arrays everywhere.
    """
    axes: Any = context.module_context.axis_context
    mesh = getattr(axes, "mesh", None)
    if mesh is not None:
        return mesh.size > 1 and set(axes.manual_axes) != set(mesh.axis_names)
    return getattr(axes, "num_devices", 1) > 1


def batch(
    primitive: Primitive, operands: Sequence[jax.Array], mapped: Sequence[int | None], *, geometry: Any
) -> tuple[jax.Array, int]:
    """The rule of `jax.vmap`: a longer leading dimension."""
    size = next(a.shape[axis] for a, axis in zip(operands, mapped, strict=True) if axis is not None)
    whole = [batching.bdim_at_front(a, axis, size) for a, axis in zip(operands, mapped, strict=True)]
    result = primitive.bind(*(a.reshape(size * a.shape[1], *a.shape[2:]) for a in whole), geometry=geometry)
    return result.reshape(*whole[0].shape[:2], *result.shape[1:]), 0
