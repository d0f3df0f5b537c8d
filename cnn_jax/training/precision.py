"""Precision: in which floating-point numbers a model computes."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Precision = Literal["float32", "bfloat16"]


def apply(model: nn.Module, variables: Any, images: jax.Array, precision: Precision, **options: Any) -> Any:
    """`model.apply`, computed in a precision. Whatever is kept stays in float32.

    With "bfloat16" the model is given its parameters and the images in that dtype, so that its convolutions and
    products are taken in it (on CPU some forms of `cnn_jax.lowering` widen what they multiply); norms add up their
    statistics in float32 all the same, and the running ones stay so.

    Args:
        model: a Linen module whose layers compute in the common dtype of parameters and inputs, as Flax's and those
            of `cnn_jax.layers` do unless they are given a `dtype`.
        variables: float32 "params", and "batch_stats" where there are any.
        images: float32 (N, H, W, C).
        precision: "float32" or "bfloat16".
        options: of `model.apply`.

    Returns:
        What `model.apply` returns, the scores in float32.
    """
    if precision == "float32":
        return model.apply(variables, images, **options)
    dtype = jnp.dtype(precision)
    lowered = jax.tree.map(lambda leaf: leaf.astype(dtype), variables["params"])
    returned = model.apply({**variables, "params": lowered}, images.astype(dtype), **options)
    if isinstance(returned, tuple):
        scores, updated = returned
        return scores.astype(jnp.float32), updated
    return returned.astype(jnp.float32)
