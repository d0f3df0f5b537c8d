"""The running statistics of norms, estimated for averaged weights, which have never been trained with any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.training.averaging import Average
from cnn_jax.training.precision import Precision, apply
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Batch, Preprocess


def make_estimate(
    model: nn.Module, preprocess: Preprocess, precision: Precision, take: Callable[[Any, jax.Array], Batch]
) -> Callable[[TrainState, Any, int], TrainState]:
    """The estimation as a pure function, not yet compiled: the mean over some batches of what norms find in each.

    So does Izmailov et al. 2018, section 3.2. The images are not augmented. A norm moves its running statistics by a
    share 1 - m of the way to those of the batch, and reveals neither: m is found by running it from zeros and ones.

    Returns:
        `estimate(state, chunk, count) -> state`, of the first `count` batches of a chunk, with the statistics of the
        average in their place if anything has been averaged yet.
    """

    def moved(params: Any, batch_stats: Any, batch: Batch) -> Any:
        variables, images = {"params": params, "batch_stats": batch_stats}, preprocess(batch["image"])
        rngs = {"dropout": jax.random.key(0)}
        return apply(model, variables, images, precision, train=True, mutable=["batch_stats"], rngs=rngs)[1][
            "batch_stats"
        ]

    def estimate(state: TrainState, chunk: Any, count: int) -> TrainState:
        average = state.average
        assert isinstance(average, Average)
        zeros = jax.tree.map(jnp.zeros_like, average.batch_stats)
        ones = jax.tree.map(jnp.ones_like, average.batch_stats)
        first = take(chunk, jnp.int32(0))
        from_zeros, from_ones = (moved(average.params, begun, first) for begun in (zeros, ones))

        def add(k: jax.Array, total: Any) -> Any:
            return jax.tree.map(jnp.add, total, moved(average.params, zeros, take(chunk, k)))

        total = jax.lax.fori_loop(1, count, add, from_zeros)

        def settled(old: jax.Array, total: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            share = 1.0 - (high - low)
            found = total / (count * jnp.where(share > 0, share, 1.0))
            return jnp.where((average.count > 0) & (share > 0), found, old)

        found = jax.tree.map(settled, average.batch_stats, total, from_zeros, from_ones)
        return state.replace(average=average.replace(batch_stats=found))

    return estimate
