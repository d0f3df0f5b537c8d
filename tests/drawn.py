"""Variables of a model drawn by NumPy: nothing is compiled, and nothing is left at a value that hides mistakes."""

from __future__ import annotations

import math

import jax
import numpy as np


def draw_variables(model, shape, seed=0, dtype=np.float32):
    """For inputs of `shape`: kernels normal with variance 1 / inputs; biases and coefficients normal, smaller."""
    inputs = jax.ShapeDtypeStruct(shape, np.float32)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        spread = 1 / math.sqrt(math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.3
        return (spread * rng.standard_normal(leaf.shape)).astype(dtype)

    return jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0), inputs))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
