"""Brightness, contrast and saturation changed at random."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.augment import operations
from cnn_jax.augment.base import Context, PixelTransform, check_channels
from cnn_jax.parts import is_non_negative

_ORDERS = np.array(list(itertools.permutations(range(3))))


@dataclass(frozen=True)
class ColorJitter(PixelTransform):
    """Brightness, contrast and saturation of the image changed, in random order: Howard 2013, "Some Improvements on
    Deep Convolutional Neural Network Based Image Classification", section 2, whose factors are from 0.5 to 1.5.

    Images are grey or have three colours; grey ones have no saturation to change.
    """

    brightness: float = 0.5
    """Largest change of the factor on each value: 0.5 multiplies by 0.5 to 1.5, and no factor is below 0."""
    contrast: float = 0.5
    """Largest change of the factor on the difference from the mean grey."""
    saturation: float = 0.5
    """Largest change of the factor on the difference from the same picture in grey."""

    def __post_init__(self) -> None:
        for field in ("brightness", "contrast", "saturation"):
            self.check(field, is_non_negative, "a number >= 0")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The changed image.

        With `factors, order = jax.random.split(key)`: the three factors are
        `jax.random.uniform(factors, (3,), minval=max(1 - change, 0), maxval=1 + change)`, and the order is that one of
        the six permutations of (brightness, contrast, saturation), sorted, that `jax.random.randint(order, (), 0, 6)`
        says.
        """
        check_channels(self, image)
        factors, order = jax.random.split(context.key)
        changes = jnp.stack([jnp.asarray(change) for change in (self.brightness, self.contrast, self.saturation)])
        drawn = jax.random.uniform(factors, (3,), minval=jnp.maximum(1.0 - changes, 0.0), maxval=1.0 + changes)
        made: tuple[Callable[[jax.Array, jax.Array], jax.Array], ...]
        made = operations.brightness, operations.contrast, operations.saturation
        for kind in jnp.asarray(_ORDERS)[jax.random.randint(order, (), 0, len(_ORDERS))]:
            image = jax.lax.switch(kind, made, image, drawn[kind])
        return image
