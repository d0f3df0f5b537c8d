"""Augmentations: what is done to the images of a batch, on the device inside the train step."""

from cnn_jax.augment.affine import Affine, affine, warp
from cnn_jax.augment.base import Augmentation, BatchTransform, Context, ImageTransform, apply, needs_targets
from cnn_jax.augment.crop import Crop
from cnn_jax.augment.cutout import Cutout
from cnn_jax.augment.flip import Flip
from cnn_jax.augment.mixup import Mixup

__all__ = [
    "Affine",
    "Augmentation",
    "BatchTransform",
    "Context",
    "Crop",
    "Cutout",
    "Flip",
    "ImageTransform",
    "Mixup",
    "affine",
    "apply",
    "needs_targets",
    "warp",
]
