"""Residual networks, for small images and for those of ImageNet.

He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016). Those for ImageNet are the paper's (Table
1), and so are the narrow ones for CIFAR-10 (section 4.2), with 16 to 64 filters. The usual one for small images is the
ResNet-18 for ImageNet with the stem of those: one 3x3 convolution, at the full size of the image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.typing import Initializer

from cnn_jax import layers
from cnn_jax.models import checks

# He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015), equation 10: variance 2 / inputs.
he_conv = functools.partial(layers.Conv, use_bias=False, kernel_init=initializers.he_normal())
# PyTorch's momentum of 0.1 is the share of the new statistics, Linen's of the old ones.
batch_norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


def _blurred(x: jax.Array) -> jax.Array:
    """Maps (N, H, W, C) smoothed by 1/4, 1/2, 1/4 in both directions, zeros around them."""
    for axis in (1, 2):
        before, after = ([(0, 0)] * axis + [pad] + [(0, 0)] * (3 - axis) for pad in ((1, 0), (0, 1)))
        size = x.shape[axis]
        up = jax.lax.slice_in_dim(jnp.pad(x, before), 0, size, axis=axis)
        down = jax.lax.slice_in_dim(jnp.pad(x, after), 1, size + 1, axis=axis)
        x = 0.25 * (up + down) + 0.5 * x
    return x


def _project_and_add(x: jax.Array, y: jax.Array, strides: int, norm: Callable[..., nn.BatchNorm]) -> jax.Array:
    """The end of a block: its input x, brought to the shape of y where that is another, and y, added up."""
    if x.shape != y.shape:
        x = norm(name="shortcut_norm")(he_conv(y.shape[-1], (1, 1), strides, padding=0, name="shortcut")(x))
    return nn.relu(x + y)


class _Block(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and what they are added to; fields as those of `ResNet`."""

    features: int
    strides: int
    zero_init: bool = False
    blur: bool = False

    # How the input is brought to the shape of what it is added to, and added.
    _add = staticmethod(_project_and_add)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / strides), ceil(W / strides), features)."""
        norm = functools.partial(batch_norm, not train)
        x = self._smoothed(x)
        y = he_conv(self.features, (3, 3), self.strides, padding=1, name="conv_1")(x)
        y = nn.relu(norm(name="norm_1")(y))
        y = he_conv(self.features, (3, 3), padding=1, name="conv_2")(y)
        return self._add(x, norm(name="norm_2", scale_init=self._last_scale())(y), self.strides, norm)

    def _smoothed(self, x: jax.Array) -> jax.Array:
        """What a convolution with the stride is given of x."""
        return _blurred(x) if self.blur and self.strides > 1 else x

    def _last_scale(self) -> Initializer:
        return initializers.zeros if self.zero_init else initializers.ones


class _PaddedBlock(_Block):
    """A block without parameters in its shortcut."""

    @staticmethod
    def _add(x: jax.Array, y: jax.Array, strides: int, norm: Callable[..., nn.BatchNorm]) -> jax.Array:
        """Every so many pixels of x, with maps of zeros, half of them before its own; and y, added up."""
        more = y.shape[-1] - x.shape[-1]
        x = jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        return nn.relu(x + y)


class _Bottleneck(_Block):
    """A 1x1 convolution to few maps, a 3x3 one with the stride, a 1x1 one to four times as many, and the sum."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, ceil(H / strides), ceil(W / strides), 4 * features)."""
        norm = functools.partial(batch_norm, not train)
        y = nn.relu(norm(name="norm_1")(he_conv(self.features, (1, 1), padding=0, name="conv_1")(x)))
        y = he_conv(self.features, (3, 3), self.strides, padding=1, name="conv_2")(self._smoothed(y))
        y = he_conv(4 * self.features, (1, 1), padding=0, name="conv_3")(nn.relu(norm(name="norm_2")(y)))
        y = norm(name="norm_3", scale_init=self._last_scale())(y)
        return self._add(self._smoothed(x), y, self.strides, norm)


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
      zero_init: the scales of each block's last norm begin at zero, and so each block as its shortcut (Goyal et al.
        2017, section 5.1).
      blur: what a convolution with a stride is given, but for the stem, is smoothed first by 1/4, 1/2, 1/4 in both
        directions, after Zhang 2019, "Making convolutional networks shift-invariant again", as FFCV has it.
      output_std: the standard deviation that the output's kernel begins with; None is variance 1 / inputs.
    """

    stage_sizes: Sequence[int]
    num_classes: int = 10
    features: int = 64
    zero_init: bool = False
    blur: bool = False
    output_std: float | None = None

    # The image height and width, and the channels, of the data that the network was made for.
    input_size: ClassVar[tuple[int, int] | None] = (32, 32)
    input_channels: ClassVar[int] = 3

    _block: ClassVar[type[_Block]] = _Block

    def __post_init__(self) -> None:
        kind = type(self).__name__
        checks.positive_ints(kind, "stage_sizes", self.stage_sizes)
        checks.positive_int(kind, "num_classes", self.num_classes)
        checks.positive_int(kind, "features", self.features)
        if self.output_std is not None:
            checks.positive(kind, "output_std", self.output_std)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C) of any size, normalised floats, to scores (N, num_classes).

        With `train` the norms are by the statistics of the batch, and the collection "batch_stats", which has to be
        mutable, moves on; without, they are by the statistics collected so far. Parameters fix C.
        Raises InputError for images of another rank or without pixels.
        """
        checks.images(type(self).__name__, images, (1, 1))
        x = he_conv(self.features, (3, 3), padding=1, name="stem")(images)
        x = nn.relu(batch_norm(not train, name="stem_norm")(x))
        return _from_stem(self, x, train)


def _from_stem(model: ResNet, x: jax.Array, train: bool) -> jax.Array:
    """The rest of a network, all of them alike behind the stem: from its maps (N, H, W, C) to scores."""
    strides = [2 if stage and not block else 1 for stage, size in enumerate(model.stage_sizes) for block in range(size)]
    features = model.features
    for number, stride in enumerate(strides, start=1):
        features *= stride
        x = model._block(features, stride, model.zero_init, model.blur, name=f"block_{number}")(x, train)
    x = layers.GlobalAvgPool(name="mean")(x)
    std = model.output_std
    kernel_init = initializers.lecun_normal() if std is None else initializers.normal(std)
    return layers.Dense(model.num_classes, kernel_init=kernel_init, name="output")(x)


class ResNet18(ResNet):
    """`ResNet` with two blocks in each of four stages: 11,173,962 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (2, 2, 2, 2)


class CifarResNet(ResNet):
    """The paper's networks for CIFAR-10: three stages of n blocks, with shortcuts that have no parameters.

    Of 32x32x3 with three blocks a stage, 2 * 9 + 2 weighted layers, which is ResNet-20 with 269,722 parameters:

    | layer               | what                                 | 32x32x3 becomes | parameters |
    |---------------------|--------------------------------------|-----------------|------------|
    | stem                | 16 filters 3x3, norm, ReLU           | 32x32x16        | 464        |
    | block_1 to block_3  | residual blocks of 16 filters        | 32x32x16        | 14,016     |
    | block_4 to block_6  | residual blocks of 32 filters        | 16x16x32        | 51,072     |
    | block_7 to block_9  | residual blocks of 64 filters        | 8x8x64          | 203,520    |
    | mean                | mean over the places                 | 64              |            |
    | output              | scores                               | 10              | 650        |

    Where a block changes the shape, its input's every other pixel in both directions is taken, the first included, and
    maps of zeros are added (the paper's option A). The paper does not say where: here half of them come before the
    input's maps and half after, as in Idelbayev's akamaster/pytorch_resnet_cifar10, whose weights thus fit; Facebook's
    fb.resnet.torch has all of them after. Both are the same network with its maps in another order.

    Parameters begin as those of `ResNet` do.

    Attributes:
      features: number of filters of the stem and of the first stage.
    """

    stage_sizes: Sequence[int] = (3, 3, 3)
    features: int = 16

    _block: ClassVar[type[_Block]] = _PaddedBlock


class ResNet20(CifarResNet):
    """`CifarResNet` with three blocks a stage: 269,722 parameters for three channels and ten classes."""


class ResNet32(CifarResNet):
    """`CifarResNet` with five blocks a stage: 464,154 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (5, 5, 5)


class ResNet44(CifarResNet):
    """`CifarResNet` with seven blocks a stage: 658,586 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (7, 7, 7)


class ResNet56(CifarResNet):
    """`CifarResNet` with nine blocks a stage: 853,018 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (9, 9, 9)


class ResNet110(CifarResNet):
    """`CifarResNet` with eighteen blocks a stage: 1,727,962 parameters for three channels and ten classes."""

    stage_sizes: Sequence[int] = (18, 18, 18)


class ImageNetResNet(ResNet):
    """`ResNet` with the paper's stem: 7x7 filters that halve the image, and a 3x3 maximum that halves it again.

    The networks are torchvision's: with the same weights they give the same scores, and in training the same gradients.
    (The running variances of PyTorch are n / (n - 1) times these, with n values of a map in a batch.) Parameters begin
    as those of `ResNet` do.

    Images of any size are taken, and there is no `input_size` that data are brought to. Small images keep theirs rather
    than being enlarged unasked to 49 times as many pixels; 32x32 leaves a single place in the last stage, so `ResNet`
    is the better choice for them. Pictures that differ in size are brought to 224x224 by the commands, as in the paper.
    """

    num_classes: int = 1000

    input_size: ClassVar[tuple[int, int] | None] = None
    # The height and width of images in the paper, for a volume table where nothing else is asked for.
    usual_size: ClassVar[tuple[int, int]] = (224, 224)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """As `ResNet`: images (N, H, W, C) of any size to scores (N, num_classes)."""
        checks.images(type(self).__name__, images, (1, 1))
        x = he_conv(self.features, (7, 7), 2, padding=3, name="stem")(images)
        x = nn.relu(batch_norm(not train, name="stem_norm")(x))
        x = layers.MaxPool((3, 3), 2, padding=1, name="pool")(x)
        return _from_stem(self, x, train)


class ResNet18ImageNet(ImageNetResNet):
    """Eight blocks of two 3x3 convolutions: 11,689,512 parameters for three channels and 1,000 classes."""

    stage_sizes: Sequence[int] = (2, 2, 2, 2)


class ResNet34(ImageNetResNet):
    """Sixteen blocks of two 3x3 convolutions: 21,797,672 parameters for three channels and 1,000 classes."""

    stage_sizes: Sequence[int] = (3, 4, 6, 3)


class ResNet50(ImageNetResNet):
    """Sixteen bottlenecks: 25,557,032 parameters for three channels and 1,000 classes.

    A bottleneck is a 1x1 convolution, a 3x3 one and a 1x1 one to four times the filters, each followed by a norm and
    all but the last by a ReLU. The stride is the 3x3 one's, not, as in the paper, the first's: so it has been since
    Gross and Wilber, "Training and investigating residual nets" (2016), and is in torchvision; NVIDIA calls this one
    v1.5, half a percent more accurate. Of 224x224x3:

    | layer                 | what                                              | 224x224x3 becomes | parameters |
    |-----------------------|---------------------------------------------------|-------------------|------------|
    | stem                  | 64 filters 7x7, stride 2, norm, ReLU              | 112x112x64        | 9,536      |
    | pool                  | 3x3 maximum, stride 2                             | 56x56x64          |            |
    | block_1 to block_3    | bottlenecks of 64, 64 and 256 filters             | 56x56x256         | 215,808    |
    | block_4 to block_7    | bottlenecks of 128, 128 and 512 filters           | 28x28x512         | 1,219,584  |
    | block_8 to block_13   | bottlenecks of 256, 256 and 1,024 filters         | 14x14x1024        | 7,098,368  |
    | block_14 to block_16  | bottlenecks of 512, 512 and 2,048 filters         | 7x7x2048          | 14,964,736 |
    | mean                  | mean over the places                              | 2048              |            |
    | output                | scores                                            | 1000              | 2,049,000  |

    Attributes:
      features: number of filters of the stem, and of the 3x3 convolutions of the first stage.
    """

    stage_sizes: Sequence[int] = (3, 4, 6, 3)

    _block: ClassVar[type[_Block]] = _Bottleneck


class ResNet101(ResNet50):
    """`ResNet50` with 33 bottlenecks: 44,549,160 parameters for three channels and 1,000 classes."""

    stage_sizes: Sequence[int] = (3, 4, 23, 3)


class ResNet152(ResNet50):
    """`ResNet50` with 50 bottlenecks: 60,192,808 parameters for three channels and 1,000 classes."""

    stage_sizes: Sequence[int] = (3, 8, 36, 3)
