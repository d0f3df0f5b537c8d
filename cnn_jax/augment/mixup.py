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
        weights = jax.vmap(self._weight)(context.key)
        return _mix(weights[:, None, None, None], images), _mix(weights[:, None], targets)

    def _weight(self, key: jax.Array) -> jax.Array:
        alpha = jnp.asarray(self.alpha, jnp.float32)
        # Below 1e-30 the sampler's logarithms overflow; the weights are 0 or 1 to float32 long before.
        held = jnp.maximum(alpha, 1e-30)
        # The limit at 0 would be weights of 0 or 1, but mixing nothing should not exchange whole images either.
        return jnp.where(alpha > 0, jax.random.beta(key, held, held, dtype=jnp.float32), 1.0)


def _mix(weights: jax.Array, rows: jax.Array) -> jax.Array:
    return weights * rows + (1.0 - weights) * jnp.roll(rows, -1, axis=0)
