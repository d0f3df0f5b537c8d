"""A rectangle of one image put over another, and the targets mixed by its area."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import BatchTransform, Context
from cnn_jax.augment.mixup import draw_weights, mix
from cnn_jax.parts import is_non_negative


@dataclass(frozen=True)
class Cutmix(BatchTransform):
    """A rectangle of each image replaced by that of its neighbour: Yun et al. 2019, "CutMix", section 3 and appendix A.

    Row i gets the rectangle of row i + 1, the last row that of the first, and its target is mixed by the areas that the
    two images have in the end. The paper draws one rectangle a batch; here each row has its own, which depends on the
    row's key alone.
    """

    alpha: float = 1.0
    """Both parameters of the beta distribution of the share that a row keeps: with 1 all shares are equally likely; the
    larger, the closer to 1/2; 0 mixes nothing."""

    def __post_init__(self) -> None:
        self.check("alpha", is_non_negative, "a number >= 0")

    def __call__(self, context: Context, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mixed batch.

        The share `s` to keep is `draw_weights(key, alpha)`; the centre, (row, column), is
        `jax.random.randint(jax.random.fold_in(key, 1), (2,), 0, (H, W))`. The rectangle reaches from centre - half to
        centre + half - 1, as far as that is in the image, where half is 1/2 sqrt(1 - s) (H, W), rounded down.
        """
        sides = images.shape[1:3]
        kept = draw_weights(context.key, self.alpha)
        masks = jax.vmap(lambda key, share: _rectangle(jax.random.fold_in(key, 1), share, sides))(context.key, kept)
        mixed = jnp.where(masks[..., None], jnp.roll(images, -1, axis=0), images)
        return mixed, mix(1.0 - jnp.mean(masks, axis=(1, 2), keepdims=True)[..., 0], targets)


def _rectangle(key: jax.Array, share: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Where an image is replaced: bool (H, W)."""
    centre = jax.random.randint(key, (2,), 0, jnp.array(sides))
    halves = (0.5 * jnp.sqrt(1.0 - share) * jnp.array(sides)).astype(jnp.int32)
    rows, columns = (
        (jnp.arange(side) >= centre[n] - halves[n]) & (jnp.arange(side) < centre[n] + halves[n])
        for n, side in enumerate(sides)
    )
    return rows[:, None] & columns
