"""What every augmentation is: a part that is called with a context, inside the train step."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import flax.struct
import jax

from cnn_jax.errors import InputError
from cnn_jax.parts import Part


class Context(flax.struct.PyTreeNode):
    """What an augmentation may know about one row of a batch. For a whole batch every leaf has a leading axis, (N,)."""

    key: jax.Array
    """A typed random key, of the run's seed, the step and the row's place in the global batch alone."""
    index: jax.Array
    """int32: which image of its set this is."""
    epoch: jax.Array
    """int32, from 0."""
    progress: jax.Array
    """float32: the share of the run that is done, from 0 to 1."""


class Augmentation(Part):
    """The base of both kinds: derive from `ImageTransform` or from `BatchTransform`."""


class ImageTransform(Augmentation, abc.ABC):
    """What changes an image on its own. A pure function, which `apply` maps over the rows of a batch."""

    @abc.abstractmethod
    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The changed image.

        Args:
          context: that of the image's row; whatever is random is drawn from its key.
          image: float32 (H, W, C), normalised as the model takes it.

        Returns:
          float32 (H, W, C).
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


def apply(
    transforms: Sequence[Augmentation], context: Context, images: jax.Array, targets: jax.Array | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """A batch after all transforms, in order.

    The first draws from the key of each row, the k-th after it from that key with k folded in, k = 1, 2, ...

    Args:
      transforms: the chain; an empty one changes nothing.
      context: those of the rows, every leaf (N,).
      images: float32 (N, H, W, C), normalised as the model takes them.
      targets: float32 (N, classes), each row a distribution; may be None unless `needs_targets(transforms)`.

    Returns:
      Images and targets, of the same shapes and dtypes.

    Raises:
      InputError: if something in the chain is neither kind.
    """
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
    return images, targets


def is_pixels(value: object) -> bool:
    """Whether a value is a whole number of pixels, 0 or more, no larger than a picture could have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**16
