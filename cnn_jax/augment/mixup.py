"""Two images laid over each other, and their targets with them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import BatchTransform, Context
from cnn_jax.parts import is_non_negative


@dataclass(frozen=True)
class Mixup(BatchTransform):
    """Weighted means of neighbouring images, and of their targets: Zhang, Cisse, Dauphin and Lopez-Paz 2018, "mixup".

    Row i becomes weight * (row i) + (1 - weight) * (row i + 1), the last row taking the first. Figure 1 there draws
    one weight a batch; here each row has its own, which depends on the row's key alone.
    """

    alpha: float = 0.2
    """Both parameters of the beta distribution of the weights: the larger, the closer to 1/2; 0 mixes nothing."""

    def __post_init__(self) -> None:
        self.check("alpha", is_non_negative, "a number >= 0")

    def __call__(self, context: Context, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mixed batch: a row's weight is `draw_weights(key, alpha)`."""
        weights = draw_weights(context.key, self.alpha)
        return mix(weights[:, None, None, None], images), mix(weights[:, None], targets)


def draw_weights(keys: jax.Array, alpha: float) -> jax.Array:
    """The share of its own that each row keeps, float32 (N,): of a beta distribution, or 1 if alpha is 0.

    Four uniform numbers, `jax.random.uniform(key, (4,))`, make one of Beta(alpha, alpha), without the loop that rejects
    candidates of `jax.random.beta`: a GPU waits for each round of it. By Ulrich's formula (Devroye 1996, "Random
    variate generation in one line of code") the first two give one of Beta(alpha + 1, alpha + 1), which is the ratio of
    a gamma variate of alpha + 1 to the sum of two; each times a uniform number to the power of 1 / alpha is of alpha.

    Args:
      keys: typed random keys (N,).
      alpha: 0 or more; it may be traced.
    """
    given = jnp.asarray(alpha, jnp.float32)
    # By smaller ones nothing can be divided in float32; the weights are 0 or 1 long before.
    held = jnp.maximum(given, 1e-30)
    smallest = jnp.finfo(jnp.float32).tiny
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (4,), jnp.float32, smallest), out_axes=1)(keys)
    apart = jnp.sqrt(-jnp.expm1(2.0 / (2.0 * held + 1.0) * jnp.log(drawn[0]))) * jnp.cos(2.0 * jnp.pi * drawn[1])
    odds = 2.0 * jnp.arctanh(jnp.clip(apart, -1.0 + 1e-6, 1.0 - 1e-6)) + (jnp.log(drawn[2]) - jnp.log(drawn[3])) / held
    # The limit at 0 would be weights of 0 or 1, but mixing nothing should not exchange whole images either.
    return jnp.where(given > 0, jax.nn.sigmoid(odds), 1.0)


def mix(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Each row weighted, and the next by what is missing to 1; the last row's next is the first."""
    return weights * rows + (1.0 - weights) * jnp.roll(rows, -1, axis=0)
