"""A rectangle erased from an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from cnn_jax.augment.base import Context, ImageTransform, is_share
from cnn_jax.augment.rectangles import check_range, draw_rectangle

Fill = Literal["zeros", "noise"]


@dataclass(frozen=True)
class RandomErasing(ImageTransform):
    """A rectangle of the image replaced: Zhong et al. 2020, "Random Erasing Data Augmentation", algorithm 1.

    The paper draws place, size and aspect until the rectangle lies in the image. Here, as in torchvision, size and
    aspect are drawn until it fits, at most ten times, and the place from those where it does; the logarithm of the
    aspect is uniform, so that high and wide ones are equally likely.
    """

    probability: float = 0.5
    """How often something is erased, from 0 to 1."""
    smallest: float = 0.02
    """Least area of the rectangle, as a share of the image's."""
    largest: float = 0.33
    """Greatest area of it, as a share of the image's."""
    aspect: float = 3.3
    """Greatest ratio of its longer to its shorter side."""
    fill: Fill = "zeros"
    """What is there instead: zeros of the normalised image; or noise, of mean 0 and variance 1 in each value."""

    def __post_init__(self) -> None:
        self.check("probability", is_share, "a number from 0 to 1")
        check_range(self)
        self.check("fill", lambda value: value in get_args(Fill), f"one of {', '.join(get_args(Fill))}")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image with `draw_rectangle(key, ...)` erased, where there is one.

        That is done if `jax.random.bernoulli(jax.random.fold_in(key, 1), probability)`; noise is
        `jax.random.normal(jax.random.fold_in(key, 2), (H, W, C))`.
        """
        key, (high, wide) = context.key, image.shape[:2]
        chosen = jax.random.bernoulli(jax.random.fold_in(key, 1), self.probability)
        box = draw_rectangle(key, (high, wide), self.smallest, self.largest, self.aspect)
        rows = (jnp.arange(high) >= box.top) & (jnp.arange(high) < box.top + box.height)
        columns = (jnp.arange(wide) >= box.left) & (jnp.arange(wide) < box.left + box.width)
        noisy = self.fill == "noise"
        filling = jax.random.normal(jax.random.fold_in(key, 2), image.shape, image.dtype) if noisy else 0.0
        return jnp.where((rows[:, None] & columns & chosen & box.found)[..., None], filling, image)
