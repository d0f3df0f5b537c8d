"""Random parts of images in a size that grows over a run."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from cnn_jax.augment.base import Context, PixelTransform, is_side
from cnn_jax.augment.rectangles import check_range
from cnn_jax.augment.resized_crop import RandomResizedCrop


@dataclass(frozen=True)
class GrowingCrop(PixelTransform):
    """`RandomResizedCrop` to a square that changes its size between epochs: small images first save time.

    Howard, "Training ImageNet in 3 hours for 25 minutes" (fast.ai, 2018), where it is called progressive resizing.
    """

    sizes: tuple[int, ...] = (160, 192)
    """Sides of the square in pixels, one after the other."""
    at: tuple[float, ...] = (0.75,)
    """Shares of the run's epochs after which the next size is taken, one fewer than sizes."""
    smallest: float = 0.08
    """Least area of the rectangle, as a share of the image's."""
    largest: float = 1.0
    """Greatest area of it, as a share of the image's."""
    aspect: float = 4 / 3
    """Greatest ratio of its longer to its shorter side."""

    def __post_init__(self) -> None:
        check_range(self)
        self.check("sizes", lambda sizes: sizes and all(map(is_side, sizes)), "whole numbers of pixels, 1 or more")
        self.check(
            "at", lambda at: len(at) == len(self.sizes) - 1, f"{len(self.sizes) - 1} shares, one fewer than sizes"
        )
        self.check("at", _is_ascending, "ascending shares between 0 and 1")

    @property
    def changes(self) -> tuple[float, ...]:
        return self.at

    def after(self, share: float) -> RandomResizedCrop:
        size = self.sizes[sum(share >= at for at in self.at)]
        return RandomResizedCrop(self.smallest, self.largest, self.aspect, size)

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """As `RandomResizedCrop`, in the last size."""
        return self.after(1.0)(context, image)


def _is_ascending(shares: tuple[float, ...]) -> bool:
    return all(0 < share < 1 for share in shares) and list(shares) == sorted(set(shares))
