"""Residual networks for small images.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016). The paper's networks for CIFAR-10
(section 4.2) are narrow, with 16 to 64 filters; the usual one is its ResNet-18 for ImageNet (Table 1) with the stem of
those: one 3x3 convolution, at the full size of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
from flax.linen import initializers

from cnn_jax import layers
from cnn_jax.models import checks

# He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015), equation 10: variance 2 / inputs.
_conv = functools.partial(layers.Conv, use_bias=False, kernel_init=initializers.he_normal())
# PyTorch's momentum of 0.1 is the share of the new statistics, Linen's of the old ones.
_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


class ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks of two 3x3 convolutions, the mean over all places, and scores.

    Every convolution is followed by a batch norm, `stem` and all but the last of a block by a ReLU too, and the sum of
    a block and its input again by a ReLU. Each stage but the first halves the image, in its first block, and has twice
    the filters. Where a block changes the shape, its input is brought to the new one by a 1x1 convolution and a norm
    (the paper's option B). Of 32x32x3 with `stage_sizes` (2, 2, 2, 2), which is ResNet-18:

    | layer              | what                                 | 32x32x3 becomes | parameters |
    |--------------------|--------------------------------------|-----------------|------------|
    | stem               | 64 filters 3x3, norm, ReLU           | 32x32x64        | 1,856      |
    | block_1, block_2   | residual blocks of 64 filters        | 32x32x64        | 147,968    |
    | block_3, block_4   | residual blocks of 128 filters       | 16x16x128       | 525,568    |
    | block_5, block_6   | residual blocks of 256 filters       | 8x8x256         | 2,099,712  |
    | block_7, block_8   | residual blocks of 512 filters       | 4x4x512         | 8,393,728  |
    | mean               | mean over the places                 | 512             |            |
    | output             | scores                               | 10              | 5,130      |

    Convolutions begin normal with variance 2 / inputs, the output with variance 1 / inputs, biases at zero, scales at
    one.

    Attributes:
      stage_sizes: number of blocks of each stage.
      num_classes: number of scores.
      features: number of filters of the stem and of the first stage.
    """

    stage_sizes: Sequence[int]
    num_classes: int = 10
    features: int = 64

    # The image height and width, and the channels, of the data that the network was made for.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    input_channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        kind = type(self).__name__
        checks.positive_ints(kind, "stage_sizes", self.stage_sizes)
        checks.positive_int(kind, "num_classes", self.num_classes)
        checks.positive_int(kind, "features", self.features)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) of any size, normalised floats, to scores (N, num_classes).

        With `train` the norms are by the statistics of the batch, and the collection "batch_stats", which has to be
        mutable, moves on; without, they are by the statistics collected so far. Parameters fix C.
        Raises InputError for images of another rank or without pixels.
        """
        checks.images(type(self).__name__, images, (1, 1))
        x = _conv(self.features, (3, 3), padding=1, name="stem")(images)
        x = nn.relu(_norm(not train, name="stem_norm")(x))
        strides = [
            2 if stage and not block else 1 for stage, size in enumerate(self.stage_sizes) for block in range(size)
        ]
        features = self.features
        for number, stride in enumerate(strides, start=1):
            features *= stride
            x = _Block(features, stride, name=f"block_{number}")(x, train)
        x = layers.GlobalAvgPool(name="mean")(x)
        return layers.Dense(self.num_classes, name="output")(x)


class ResNet18(ResNet):
    """`ResNet` with two blocks in each of four stages: 11,173,962 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (2, 2, 2, 2)


class _Block(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and what they are added to."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / strides), ceil(W / strides), features)."""
        norm = functools.partial(_norm, not train)
        y = _conv(self.features, (3, 3), self.strides, padding=1, name="conv_1")(x)
        y = nn.relu(norm(name="norm_1")(y))
        y = norm(name="norm_2")(_conv(self.features, (3, 3), padding=1, name="conv_2")(y))
        if x.shape != y.shape:
            x = norm(name="shortcut_norm")(_conv(self.features, (1, 1), self.strides, padding=0, name="shortcut")(x))
        return nn.relu(x + y)
