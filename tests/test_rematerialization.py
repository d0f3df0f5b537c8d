"""Policies of `jax.checkpoint` treat our convolutions, pools and biases as they treat XLA's own."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering
from tests.geometries import normal

X, *KERNELS = (jnp.asarray(a, jnp.float32) for a in normal(0, (2, 6, 6, 3), (3, 3, 3, 4), (3, 3, 4, 4), (2, 2, 4, 2)))
BIAS = jnp.ones(2)
KIND = {
    "cnn_conv": "convolution", "cnn_input_gradient": "convolution", "cnn_weight_gradient": "convolution",
    "conv_general_dilated": "convolution", "cnn_window_extreme": "pool", "reduce_window_max": "pool",
}  # fmt: skip
JAX = jax.checkpoint_policies
POLICIES = {
    "none": None,
    "nothing": JAX.nothing_saveable,
    "everything": JAX.everything_saveable,
    "products": JAX.dots_saveable,
    "products without batches": JAX.dots_with_no_batch_dims_saveable,
    "either": JAX.save_from_both_policies(JAX.dots_saveable, JAX.dots_with_no_batch_dims_saveable),
    "offloaded": JAX.offload_dot_with_no_batch_dims("device", "pinned_host"),
    "names": JAX.save_only_these_names("none"),
    "convolutions at a stride": lambda prim, *_, **params: (
        prim is lax.conv_general_dilated_p and params["window_strides"] == (2, 2)
    ),
    "pools": lambda prim, *_, **__: prim.name.startswith("reduce_window"),
    "all but convolutions": lambda prim, *_, **__: prim is not lax.conv_general_dilated_p,
}


def loss(kernels):
    x = jnp.sin(F.conv(X, kernels[0]))
    x = jnp.sin(F.max_pool(jnp.sin(x), (2, 2), 1))
    x = jnp.sin(F.conv(x, kernels[1], strides=2))
    return (jnp.sin(F.conv(x, kernels[2], BIAS)) ** 2).sum()


def counted(jaxpr):
    """How many convolutions and pools there are in a program, whichever primitives they are."""
    count = collections.Counter()
    for equation in jaxpr.eqns:
        count[KIND.get(equation.primitive.name)] += 1
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                count += counted(inner)
    del count[None]
    return count


@pytest.mark.parametrize("policy", POLICIES)
def test_as_much_is_computed_again_as_of_xlas_own(policy):
    def traced():
        return counted(jax.make_jaxpr(jax.grad(jax.checkpoint(loss, policy=POLICIES[policy])))(KERNELS).jaxpr)

    ours = traced()
    with lowering.use("direct"):
        assert ours == traced()
    assert ours["convolution"] in range(3 + 3 + 2, 3 + 3 + 2 + 3 + 1)


def test_values_are_those_without_a_policy():
    def scanned(kernels, saved):
        block = jax.checkpoint(lambda x, kernel: (jnp.sin(F.conv(x, kernel)), None), policy=saved)
        return (jax.lax.scan(block, F.conv(X, kernels[0]), jnp.stack([kernels[1]] * 2))[0] ** 2).sum()

    def everything(saved):
        whole = jax.checkpoint(loss, policy=saved)
        return {
            "gradient": jax.grad(whole)(KERNELS),
            "mapped": jax.vmap(jax.grad(whole))([jnp.stack([k, 2 * k]) for k in KERNELS]),
            "scanned": jax.grad(scanned)(KERNELS, saved),
        }

    expected, found = (jax.jit(everything, static_argnums=0)(p) for p in (JAX.everything_saveable, JAX.dots_saveable))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
