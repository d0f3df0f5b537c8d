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
        """The mixed batch: a row's weight is `jax.random.beta(key, alpha, alpha)`, or 1 where alpha is 0."""
        weights = draw_weights(context.key, self.alpha)
        return mix(weights[:, None, None, None], images), mix(weights[:, None], targets)


def draw_weights(keys: jax.Array, alpha: float) -> jax.Array:
    """The share of its own that each row keeps, float32 (N,): `jax.random.beta(key, alpha, alpha)`, or 1 if alpha is 0.

    Args:
      keys: typed random keys (N,).
      alpha: 0 or more; it may be traced.
    """
    given = jnp.asarray(alpha, jnp.float32)
    # Below 1e-30 the sampler's logarithms overflow; the weights are 0 or 1 to float32 long before.
    held = jnp.maximum(given, 1e-30)
    drawn = jax.vmap(lambda key: jax.random.beta(key, held, held, dtype=jnp.float32))(keys)
    # The limit at 0 would be weights of 0 or 1, but mixing nothing should not exchange whole images either.
    return jnp.where(given > 0, drawn, 1.0)


def mix(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Each row weighted, and the next by what is missing to 1; the last row's next is the first."""
    return weights * rows + (1.0 - weights) * jnp.roll(rows, -1, axis=0)
