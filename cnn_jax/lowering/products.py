"""Matrix products of operands of any float dtype, with no more rounding than float32 has."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike
from jax.typing import DTypeLike

# An extent of a matrix below which a product of bfloat16 is widened.
_TINY = 16


def wide(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which to add up numbers of `dtype`: at least float32."""
    # Not `jnp.promote_types`, which refuses float8, and all of them under `jax.numpy_dtype_promotion("strict")`.
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def product(a: jax.Array, b: jax.Array, axes: tuple[int, int], precision: PrecisionLike, dtype: DTypeLike) -> jax.Array:
    """Product of two matrices over one axis of each, in `dtype`: that of the operands, or `wide` of it.

    bfloat16 with a result in bfloat16 is left to XLA, whose products of it are the faster ones where the CPU has them,
    and add up in float32. All other half precision is widened first: XLA:CPU has no kernels for every such product,
    and some of its ways with the smallest ones add up in bfloat16.
    """
    tiny = min(*a.shape, *b.shape) < _TINY
    if jnp.dtype(dtype) != a.dtype or a.dtype == jnp.float16 or (a.dtype == jnp.bfloat16 and tiny):
        a, b = a.astype(wide(a.dtype)), b.astype(wide(b.dtype))
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), precision=precision).astype(dtype)


def wide_products(a: jax.Array, b: jax.Array, axes: tuple[int, int], precision: PrecisionLike) -> jax.Array:
    """The products of pairs of matrices, stacked in a (n, *, *) and b (n, *, *), both of a dtype that is `wide`."""
    return lax.dot_general(a, b, (((axes[0] + 1,), (axes[1] + 1,)), ((0,), (0,))), precision=precision)
