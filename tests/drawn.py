"""Variables of a model drawn by NumPy: nothing is compiled, and nothing is left at a value that hides mistakes."""

from __future__ import annotations

import math

import jax
import numpy as np


def draw_variables(model, shape, seed=0, dtype=np.float32):
    """For inputs of `shape`: kernels normal with variance 1 / inputs; variances positive; all else normal, smaller."""
    inputs = jax.ShapeDtypeStruct(shape, np.float32)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key == "var":
            return rng.uniform(0.5, 2, leaf.shape).astype(dtype)
        spread = 1 / math.sqrt(math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.3
        return (spread * rng.standard_normal(leaf.shape)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), inputs))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
