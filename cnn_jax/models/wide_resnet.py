"""Wide residual networks, for small images.

Zagoruyko and Komodakis, "Wide residual networks" (2016), arXiv:1605.07146, and where the paper is silent their program,
szagoruyko/wide-residual-networks.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import flax.linen as nn
import jax

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.models import checks
from cnn_jax.models.resnet import batch_norm, he_conv


class _WideBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions, the first with the stride, and the sum with the input."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / strides), ceil(W / strides), features)."""
        norm = functools.partial(batch_norm, not train)
        y = nn.relu(norm(name="norm_1")(x))
        if x.shape[-1] != self.features:
            x = he_conv(self.features, (1, 1), self.strides, padding=0, name="shortcut")(y)
        y = he_conv(self.features, (3, 3), self.strides, padding=1, name="conv_1")(y)
        y = nn.relu(norm(name="norm_2")(y))
        return x + he_conv(self.features, (3, 3), padding=1, name="conv_2")(y)


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of wide residual blocks, norm and ReLU, the mean over all places, and scores.

    Norm and ReLU stand before each convolution of a block, and the sum is left as it is. Each stage but the first
    halves the image, in its first block, and has twice the filters. Where a block changes the number of maps, a 1x1
    convolution without a norm, of what its first 3x3 convolution takes too, is the shortcut. There is no dropout. Of
    32x32x3 with depth 16 and width 8, which is WRN-16-8 with 10,961,370 parameters:

    | layer              | what                                     | 32x32x3 becomes | parameters |
    |--------------------|------------------------------------------|-----------------|------------|
    | stem               | 16 filters 3x3                           | 32x32x16        | 432        |
    | block_1, block_2   | residual blocks of 128 filters           | 32x32x128       | 463,648    |
    | block_3, block_4   | residual blocks of 256 filters           | 16x16x256       | 2,098,944  |
    | block_5, block_6   | residual blocks of 512 filters           | 8x8x512         | 8,392,192  |
    | norm               | norm, ReLU                               | 8x8x512         | 1,024      |
    | mean               | mean over the places                     | 512             |            |
    | output             | scores                                   | 10              | 5,130      |

    Convolutions begin normal with variance 2 / inputs, the output with variance 1 / inputs, biases at zero, scales at
    one. (The authors' PyTorch program draws scales between zero and one, their Lua program does not.)

    Attributes:
      depth: number of convolutions, the 1x1 ones of three shortcuts included: 6 n + 4 for n blocks a stage.
      width: how many times 16 filters the first stage has; the paper's widening factor k.
      num_classes: number of scores.
    """

    depth: int = 16
    width: int = 8
    num_classes: int = 10

    # The image height and width, and the channels, of the data that the network was made for.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    input_channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for field in ("depth", "width", "num_classes"):
            checks.positive_int(kind, field, getattr(self, field))
        if self.depth < 10 or self.depth % 6 != 4:
            blocks = "4 more than 6 times the blocks of a stage"
            raise InputError(f"{kind}: depth must be 10, 16, 22, ..., {blocks}, got {self.depth}")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) of any size, normalised floats, to scores (N, num_classes).

        With `train` the norms are by the statistics of the batch, and the collection "batch_stats", which has to be
        mutable, moves on; without, they are by the statistics collected so far. Parameters fix C.
        Raises InputError for images of another rank or without pixels.
        """
        checks.images(type(self).__name__, images, (1, 1))
        x = he_conv(16, (3, 3), padding=1, name="stem")(images)
        blocks = self.depth // 6
        for number in range(3 * blocks):
            stage, before = divmod(number, blocks)
            features, strides = 16 * self.width * 2**stage, 2 if stage and not before else 1
            x = _WideBlock(features, strides, name=f"block_{number + 1}")(x, train)
        x = nn.relu(batch_norm(not train, name="norm")(x))
        x = layers.GlobalAvgPool(name="mean")(x)
        return layers.Dense(self.num_classes, name="output")(x)


class WRN16x8(WideResNet):
    """`WideResNet` of depth 16 and width 8, WRN-16-8: 10,961,370 parameters for three channels and ten classes."""


class WRN28x10(WideResNet):
    """`WideResNet` of depth 28 and width 10, WRN-28-10: 36,479,194 parameters for three channels and ten classes."""

    depth: int = 28
    width: int = 10
