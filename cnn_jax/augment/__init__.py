"""Augmentations: what is done to the images of a batch, on the device inside the train step."""

from cnn_jax.augment.affine import Affine, affine, warp
from cnn_jax.augment.base import (
    Augmentation,
    BatchTransform,
    Context,
    ImageTransform,
    PixelTransform,
    apply,
    count_on_pixels,
    needs_targets,
)
from cnn_jax.augment.crop import Crop
from cnn_jax.augment.cutmix import Cutmix
from cnn_jax.augment.cutout import Cutout
from cnn_jax.augment.erasing import RandomErasing
from cnn_jax.augment.flip import AlternatingFlip, Flip
from cnn_jax.augment.growing_crop import GrowingCrop
from cnn_jax.augment.jitter import ColorJitter
from cnn_jax.augment.lighting import Lighting
from cnn_jax.augment.mixing import MixupOrCutmix
from cnn_jax.augment.mixup import Mixup
from cnn_jax.augment.policies import RandAugment, TrivialAugment
from cnn_jax.augment.resized_crop import RandomResizedCrop, resampled
from cnn_jax.augment.scale_crop import ScaleCrop

__all__ = [
    "Affine",
    "AlternatingFlip",
    "Augmentation",
    "BatchTransform",
    "ColorJitter",
    "Context",
    "Crop",
    "Cutmix",
    "Cutout",
    "Flip",
    "GrowingCrop",
    "ImageTransform",
    "Lighting",
    "Mixup",
    "MixupOrCutmix",
    "PixelTransform",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "ScaleCrop",
    "TrivialAugment",
    "affine",
    "apply",
    "count_on_pixels",
    "needs_targets",
    "resampled",
    "warp",
]
