"""What every augmentation is: a part that is called with a context, inside the train step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import flax.struct
import jax

from cnn_jax.errors import InputError
from cnn_jax.parts import Part, snake


class Context(flax.struct.PyTreeNode):
    """What an augmentation may know about one row of a batch. For a whole batch every leaf has a leading axis, (N,)."""

    key: jax.Array
    """A typed random key, of the run's seed, the step and the row's place in the global batch alone."""
    run: jax.Array
    """A typed random key, of the run's seed alone: what is drawn from it with an image's index stays for the run."""
    index: jax.Array
    """int32: which image of its set this is."""
    epoch: jax.Array
    """int32, from 0."""
    progress: jax.Array
    """float32: the share of the run that is done, from 0 to 1."""


class Augmentation(Part):
    """The base of both kinds: derive from `ImageTransform` or from `BatchTransform`."""

    @property
    def changes(self) -> tuple[float, ...]:
        """Shares of a run's epochs at which the size of what it gives changes; for nearly all there are none.

        Shapes are part of a compiled program, so a run has a program for each size.
        """
        return ()

    def after(self, share: float) -> Augmentation:
        """What it is once that share of the epochs is over, with one size of what it gives."""
        return self


class ImageTransform(Augmentation, abc.ABC):
    """What changes an image on its own. A pure function, which `apply` maps over the rows of a batch."""

    @property
    def takes_pixels(self) -> bool:
        """Whether it may also be given an image before it is normalised, uint8, and then returns such a one.

        What only moves whole pixels may; it then may stand before what works on pixels.
        """
        return False

    @abc.abstractmethod
    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The changed image.

        Args:
          context: that of the image's row; whatever is random is drawn from its key.
          image: float32 (H, W, C), normalised as the model takes it.

        Returns:
          float32 (H, W, C); height and width may be others, the same for all images.
        """


class PixelTransform(ImageTransform):
    """What changes an image before it is normalised: colours have their meaning there, and levels can be counted."""

    @property
    def takes_pixels(self) -> bool:
        return True

    @abc.abstractmethod
    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The changed image.

        Args:
          context: that of the image's row; whatever is random is drawn from its key.
          image: uint8 (H, W, C).

        Returns:
          uint8 (H, W, C); height and width may be others, the same for all images.
        """


class BatchTransform(Augmentation, abc.ABC):
    """What mixes the images of a batch, and their targets. A pure function.

    Row i is mixed with row i + 1, the last with the first: so a row needs only its neighbour, however many devices
    the batch is spread over. The order of examples is random already.
    """

    @abc.abstractmethod
    def __call__(self, context: Context, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mixed batch.

        Args:
          context: those of the rows, every leaf (N,).
          images: float32 (N, H, W, C), normalised as the model takes them.
          targets: float32 (N, classes), each row a distribution.

        Returns:
          Images and targets, of the same shapes and dtypes.
        """


def needs_targets(transforms: Sequence[Augmentation]) -> bool:
    """Whether any of the transforms changes the targets too."""
    return any(isinstance(transform, BatchTransform) for transform in transforms)


def count_on_pixels(transforms: Sequence[Augmentation]) -> int:
    """How many of a chain, its first ones, are given images before they are normalised: up to the last that must be.

    Raises:
      InputError: one that must be comes after one that cannot be.
    """
    must = [k for k, transform in enumerate(transforms) if isinstance(transform, PixelTransform)]
    count = max(must, default=-1) + 1
    for transform in transforms[:count]:
        if not (isinstance(transform, ImageTransform) and transform.takes_pixels):
            names = [snake(type(each).__name__) for each in transforms]
            raise InputError(
                f"augment: expected {names[count - 1]}, which works on pixels before they are normalised, before "
                f"{snake(type(transform).__name__)}, which works on normalised images; got {' | '.join(names)}"
            )
    return count


def _same(images: jax.Array) -> jax.Array:
    return images


def apply(
    transforms: Sequence[Augmentation],
    context: Context,
    images: jax.Array,
    targets: jax.Array | None = None,
    normalise: Callable[[jax.Array], jax.Array] = _same,
) -> tuple[jax.Array, jax.Array | None]:
    """A batch after all transforms, in order.

    The first draws from the key of each row, the k-th after it from that key with k folded in, k = 1, 2, ...

    Images are normalised right before the first transform that is after all that work on pixels: where there are none,
    before the first. (On a CPU, moving bytes and not floats saves nothing that can be measured.)

    Args:
      transforms: the chain; an empty one only normalises.
      context: those of the rows, every leaf (N,).
      images: (N, H, W, C), uint8 as `normalise` takes them; or, if that is left out, normalised float32.
      targets: float32 (N, classes), each row a distribution; may be None unless `needs_targets(transforms)`.
      normalise: turns uint8 images into float32 images as the model takes them, of the same shape.

    Returns:
      Images, float32 (N, H, W, C), of the size that the chain brings them to, and targets as they came, or mixed.

    Raises:
      InputError: if something in the chain is neither kind, or the order is one that `count_on_pixels` refuses.
    """
    on_pixels = count_on_pixels(transforms)
    if not on_pixels:
        images = normalise(images)
    keys = context.key
    for k, transform in enumerate(transforms):
        if k:
            context = context.replace(key=jax.vmap(jax.random.fold_in, (0, None))(keys, k))
        if isinstance(transform, BatchTransform):
            assert targets is not None
            images, targets = transform(context, images, targets)
        elif isinstance(transform, ImageTransform):
            images = jax.vmap(transform)(context, images)
        else:
            raise InputError(f"augment: expected parts that are ImageTransform or BatchTransform, got {transform!r}")
        if k + 1 == on_pixels:
            images = normalise(images)
    return images, targets


def is_pixels(value: object) -> bool:
    """Whether a value is a whole number of pixels, 0 or more, no larger than a picture could have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**16


def is_side(value: object) -> bool:
    """Whether a value is a whole number of pixels that a picture could have as its height or width."""
    return is_pixels(value) and value != 0


def is_share(value: float) -> bool:
    """Whether a number is from 0 to 1."""
    return 0 <= value <= 1


def check_channels(transform: Part, image: jax.Array) -> None:
    """Raises `InputError` unless an image (H, W, C) is grey or has three colours."""
    if image.shape[-1] not in (1, 3):
        name = snake(type(transform).__name__)
        raise InputError(f"{name}: expected images of 1 channel or 3, got {image.shape[-1]}; leave it out")
