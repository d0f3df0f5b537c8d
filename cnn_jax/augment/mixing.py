"""Mixup for some rows of a batch and CutMix for the others."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import BatchTransform, Context, is_share
from cnn_jax.augment.cutmix import Cutmix
from cnn_jax.augment.mixup import Mixup
from cnn_jax.parts import is_non_negative


@dataclass(frozen=True)
class MixupOrCutmix(BatchTransform):
    """One of both, as Wightman, Touvron and Jegou 2021, "ResNet strikes back", train: the choice is each row's own.

    Their program chooses once a batch; here it depends on the row's key alone.
    """

    mixup: float = 0.2
    """`alpha` of `Mixup`."""
    cutmix: float = 1.0
    """`alpha` of `Cutmix`."""
    switch: float = 0.5
    """The chance of a row to be cut rather than laid over."""

    def __post_init__(self) -> None:
        for field in ("mixup", "cutmix"):
            self.check(field, is_non_negative, "a number >= 0")
        self.check("switch", is_share, "a number from 0 to 1")

    def __call__(self, context: Context, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mixed batch: a row is cut where `jax.random.bernoulli(jax.random.fold_in(key, 2), switch)`."""
        cut = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2), self.switch))(context.key)
        mixed = Mixup(self.mixup)(context, images, targets)
        pasted = Cutmix(self.cutmix)(context, images, targets)

        def choose(one: jax.Array, other: jax.Array) -> jax.Array:
            return jnp.where(jnp.expand_dims(cut, tuple(range(1, one.ndim))), one, other)

        return choose(pasted[0], mixed[0]), choose(pasted[1], mixed[1])
