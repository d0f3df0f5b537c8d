"""JAX primitives whose lowering depends on the platform that a program is lowered for."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir


def define(
    name: str, shape: Callable[..., tuple[int, ...]], stock: Callable[..., jax.Array], cpu: Callable[..., jax.Array]
) -> Primitive:
    """A primitive of arrays of one dtype with one parameter, `geometry`, which is hashable.

    Args:
      name: shown in jaxprs.
      shape: of the result, from the operands and `geometry=`.
      stock: computes the result on any platform, from the operands and `geometry=`.
      cpu: computes it on the CPU.
    """
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="geometry"))
    primitive.def_abstract_eval(lambda *a, geometry: ShapedArray(shape(*a, geometry=geometry), a[0].dtype))
    for platform, function in ((None, stock), ("cpu", cpu)):
        mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False), platform=platform)
    return primitive
