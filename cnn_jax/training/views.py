"""Views: what else of an image a model is shown when it is measured and used, its scores being averaged."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cnn_jax.augment import resampled
from cnn_jax.parts import Part


class View(Part, abc.ABC):
    """Ways to see an image, each with a weight: the base of all test-time augmentations. A pure function."""

    @abc.abstractmethod
    def __call__(self, images: jax.Array) -> list[tuple[float, jax.Array]]:
        """The views of images.

        Args:
            images: float32 (N, H, W, C), normalised as the model takes them.

        Returns:
            Weights, whose sum is 1, and views (N, H, W, C), the images themselves among them if they count; height and
            width may be others, the same for all views.
        """


@dataclass(frozen=True)
class Mirror(View):
    """The image and its mirror image, left and right exchanged, equally."""

    def __call__(self, images: jax.Array) -> list[tuple[float, jax.Array]]:
        return [(0.5, images), (0.5, images[:, :, ::-1])]


@dataclass(frozen=True)
class Shift(View):
    """The image, and half as much each it moved up and to the left, and down and to the right; edges are reflected."""

    pixels: int = 1
    """How far it is moved in both directions."""

    def __post_init__(self) -> None:
        self.check("pixels", lambda pixels: pixels >= 1, "a whole number >= 1")

    def __call__(self, images: jax.Array) -> list[tuple[float, jax.Array]]:
        height, width = images.shape[1:3]
        padded = jnp.pad(images, ((0, 0), *((self.pixels, self.pixels),) * 2, (0, 0)), mode="reflect")
        moved = [padded[:, at : at + height, at : at + width] for at in (2 * self.pixels, 0)]
        return [(0.5, images), *((0.25, view) for view in moved)]


@dataclass(frozen=True)
class Centre(View):
    """The square in the middle of the image alone, without the edges, at a size of its own."""

    size: int = 224
    """Side of the square that the model is shown, in pixels; it is brought to it as `augment.resampled` does."""
    share: float = 0.875
    """Side of the square in the image, as a share of the image's shorter side, to whole pixels. With 224 / 256, a
    shorter side of 256 has 224 cut out of it."""

    def __post_init__(self) -> None:
        self.check("size", lambda size: isinstance(size, int) and size >= 1, "a whole number >= 1")
        self.check("share", lambda share: 0 < share <= 1, "a share above 0, at most 1")

    def __call__(self, images: jax.Array) -> list[tuple[float, jax.Array]]:
        height, width = images.shape[1:3]
        side = max(round(self.share * min(height, width)), 1)
        top, left = (height - side) // 2, (width - side) // 2
        square = images[:, top : top + side, left : left + side]
        if side != self.size:
            square = jax.vmap(lambda image: resampled(image, (0, 0), (side, side), self.size))(square)
        return [(1.0, square)]


def averaged(score: Callable[[jax.Array], jax.Array], views: Sequence[View], images: jax.Array) -> jax.Array:
    """The mean of the scores of all views, by their weights; of several kinds each sees what the one before it gives.

    Args:
        score: of images (N, H, W, C), scores (N, classes). It is called once, with all views as one batch.
        views: the kinds; with none it is the images themselves that count.
        images: float32 (N, H, W, C).

    Returns:
        Scores (N, classes).
    """
    seen = [(1.0, images)]
    for view in views:
        seen = [(weight * share, moved) for weight, image in seen for share, moved in view(image)]
    if len(seen) == 1:  # whose weight is 1
        return score(seen[0][1])
    # All views of an image next to each other: where images are divided over devices, so is each one's every view.
    scores = score(jax.lax.collapse(jnp.stack([view for _, view in seen], axis=1), 0, 2))
    scores = scores.reshape(-1, len(seen), scores.shape[-1])
    # A sum and no product, which an accelerator would round.
    each = ((weight, scores[:, k]) for k, (weight, _) in enumerate(seen))
    return sum((weight * own for weight, own in each), start=jnp.zeros_like(scores[:, 0]))
