"""The padding of a convolution, taken from it and written down."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry


def padded(x: jax.Array, geometry: Geometry) -> jax.Array:
    """x (N, *spatial, C) with the zeros around and between its elements, or cropped where the padding is negative."""
    pads = [(*pair, step - 1) for pair, step in zip(geometry.padding, geometry.input_dilation, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])


def written(x: jax.Array, geometry: Geometry) -> tuple[jax.Array, Geometry]:
    """The same and a geometry without padding; a barrier keeps XLA from taking the zeros into what follows again."""
    ones = (1,) * len(geometry.size)
    if geometry.input_dilation == ones and not any(map(any, geometry.padding)):
        return x, geometry
    x = lax.optimization_barrier(padded(x, geometry))
    return x, dataclasses.replace(geometry, size=x.shape[1:-1], padding=((0, 0),) * len(ones), input_dilation=ones)
