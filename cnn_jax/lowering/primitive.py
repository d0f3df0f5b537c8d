"""JAX primitives whose lowering depends on the platform that a program is lowered for."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Primitive, Var
from jax.interpreters import batching, mlir, partial_eval

_OPTIONS: Any = jax.config  # some versions of JAX declare its options to type checkers, some do not

# What only moves numbers about; no policy of `jax.checkpoint` is asked of it for the operation that it belongs to.
_MOVING = {
    lax.broadcast_in_dim_p,
    lax.convert_element_type_p,
    lax.reshape_p,
    lax.rev_p,
    lax.slice_p,
    lax.squeeze_p,
    lax.transpose_p,
}
# What a policy that knows more than True and False says of what is not to be saved: here of an exponential.
_RECOMPUTE = jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host")(lax.exp_p)


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
    primitive.def_impl(_evaluation(primitive))
    primitive.def_abstract_eval(lambda *a, geometry: ShapedArray(shape(*a, geometry=geometry), a[0].dtype))
    for platform, function in ((None, stock), ("cpu", cpu), ("cuda", cuda or stock)):
        mlir.register_lowering(primitive, _rule(function, stock), platform=platform)
    batching.primitive_batchers[primitive] = functools.partial(batch, primitive)
    partial_eval.partial_eval_jaxpr_custom_rules[primitive] = functools.partial(_rematerialize, stock)
    return primitive


def _rule(function: Callable[..., jax.Array], stock: Callable[..., jax.Array]) -> Callable[..., Any]:
    """How a primitive is lowered: as `function`, but as `stock` where XLA divides the program among devices."""
    chosen, plain = (mlir.lower_fun(_settled(way), multiple_results=False) for way in (function, stock))

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


def adds_up(primitive: Primitive) -> None:
    """Has `jax.experimental.checkify` look for NaN in what a primitive gives, as in XLA's own sums and products.

    JAX has no public way to tell it. Where this one is gone, NaN are found in the first operation of JAX's after it.
    """
    with contextlib.suppress(ImportError):
        from jax._src.checkify import error_checks, nan_error_check

        error_checks[primitive] = functools.partial(nan_error_check, primitive)


def _settled(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The same under JAX's own rules of promotion, whatever a user has set: those are for the user's code."""

    @functools.wraps(function)
    def settled(*operands: jax.Array, geometry: Any) -> jax.Array:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*operands, geometry=geometry)

    return settled


def _evaluation(primitive: Primitive) -> Callable[..., jax.Array]:
    """What computes a primitive outside of any other program: a program of its own.

    It is one also under `jax.disable_jit`, where `bind` would only come back here. Under `jax.debug_nans` and
    `jax.debug_infs` its result is looked at here, for JAX would do so by taking the program apart in the same way.
    """

    def bound(*operands: jax.Array, geometry: Any) -> jax.Array:
        return primitive.bind(*operands, geometry=geometry)

    bound.__name__ = bound.__qualname__ = primitive.name
    compiled = jax.jit(bound, static_argnames="geometry")

    def evaluated(*operands: jax.Array, geometry: Any) -> jax.Array:
        nans, infinities = _OPTIONS.jax_debug_nans, _OPTIONS.jax_debug_infs
        if not (nans or infinities or _OPTIONS.jax_disable_jit):
            return compiled(*operands, geometry=geometry)  # what follows takes several times as long
        with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
            result = compiled(*operands, geometry=geometry)
            for wanted, kind, there in ((nans, "nan", jnp.isnan), (infinities, "inf", jnp.isinf)):
                if wanted and there(result).any():
                    raise FloatingPointError(f"invalid value ({kind}) encountered in {primitive.name}")
        return result

    return evaluated


def batch(
    primitive: Primitive, operands: Sequence[jax.Array], mapped: Sequence[int | None], *, geometry: Any
) -> tuple[jax.Array, int]:
    """The rule of `jax.vmap`: a longer leading dimension."""
    size = next(a.shape[axis] for a, axis in zip(operands, mapped, strict=True) if axis is not None)
    whole = [batching.bdim_at_front(a, axis, size) for a, axis in zip(operands, mapped, strict=True)]
    result = primitive.bind(*(a.reshape(size * a.shape[1], *a.shape[2:]) for a in whole), geometry=geometry)
    return result.reshape(*whole[0].shape[:2], *result.shape[1:]), 0


def _rematerialize(
    stock: Callable[..., jax.Array],
    policy: Callable[..., Any],
    unknown: Sequence[bool],
    instantiated: Sequence[bool],
    eqn: JaxprEqn,
) -> tuple[JaxprEqn | None, JaxprEqn | None, list[bool], list[bool], list[Var]]:
    """The rule of `jax.checkpoint`: a result is saved where its policy would save that of XLA's own operation.

    Policies go by primitives, and JAX's own (`dots_saveable`) know its own only. What one would have offloaded to the
    host's memory is saved where it is.

    Returns:
      what is computed at first and what is once more, whether the result is unknown at first and whether known later,
      and what has to be saved for that.
    """
    missing = [a for a, there in zip(eqn.invars, instantiated, strict=True) if isinstance(a, Var) and not there]
    if any(unknown):
        return None, eqn, [True], [True], missing
    jaxpr = jax.make_jaxpr(functools.partial(stock, **eqn.params))(*(a.aval for a in eqn.invars))
    said = [
        policy(e.primitive, *(a.aval for a in e.invars), **e.params) for e in jaxpr.eqns if e.primitive not in _MOVING
    ]
    if any(answer and not isinstance(answer, type(_RECOMPUTE)) for answer in said):
        return eqn, None, [False], [False], []
    return eqn, eqn, [False], [True], missing
