"""Colours moved along the directions in which those of photographs vary."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.augment.base import Context, PixelTransform
from cnn_jax.errors import InputError
from cnn_jax.parts import is_non_negative

# Of the colours of ImageNet's training pixels, from 0 to 1: eigenvalues, and in columns the eigenvectors (red, green,
# blue), as in fb.resnet.torch.
_VALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32)


@dataclass(frozen=True)
class Lighting(PixelTransform):
    """The same added to every pixel of a colour image: multiples of the principal components of ImageNet's colours.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks", section
    4.1: each component comes in times its eigenvalue times a normal number of their standard deviation, 0.1.
    """

    std: float = 0.1
    """Standard deviation of those numbers."""

    def __post_init__(self) -> None:
        self.check("std", is_non_negative, "a number >= 0")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image with 255 times vectors @ (values * std * `jax.random.normal(key, (3,))`) added, cut off, rounded.

        Raises:
          InputError: for an image that has not three channels.
        """
        if image.shape[-1] != 3:
            raise InputError(f"lighting: expected images of 3 channels, got {image.shape[-1]}; leave it out")
        drawn = self.std * jax.random.normal(context.key, (3,))
        moved = image.astype(jnp.float32) + 255.0 * jnp.sum(_VECTORS * (_VALUES * drawn), axis=1)
        return jnp.round(jnp.clip(moved, 0.0, 255.0)).astype(jnp.uint8)
