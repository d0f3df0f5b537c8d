"""airbench's network for CIFAR-10.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), arXiv:2404.00498, and where the paper is silent its
program, airbench94 of the repository KellerJordan/cifar10-airbench.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.models import checks

# How PyTorch initialises weights that the program leaves alone: uniform with variance 1 / (3 * inputs).
_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_gelu = functools.partial(jax.nn.gelu, approximate=False)


def _uniform_with(std: float, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """A uniform kernel whose own standard deviation, as a sample's, is `std`."""
    kernel = _uniform(key, shape, dtype)
    return kernel * (std / jnp.std(kernel, ddof=1))


def partial_identity(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel (height, width, I, O) whose first I maps, or all O if those are fewer, are the input's as they come.

    The other filters are uniform with variance 1 / (3 * inputs). Odd extents and padding 'SAME' are needed for maps
    that do not move.
    """
    height, width, *channels = shape
    same = jnp.arange(min(channels))
    kernel = _uniform(key, shape, dtype).at[..., same].set(0)
    return kernel.at[height // 2, width // 2, same, same].set(1)


class CifarNet(nn.Module):
    """A small VGG, fully connected only at its end: 1,971,640 parameters for three channels and ten classes.

    | layer   | what                                                             | 32x32x3 becomes | parameters |
    |---------|------------------------------------------------------------------|-----------------|------------|
    | whiten  | 24 filters 2x2, GELU                                             | 31x31x24        | 312        |
    | group_1 | 64 filters 3x3, 2x2 maximum, norm, GELU; 64 filters, norm, GELU  | 15x15x64        | 50,816     |
    | group_2 | the same with 256 filters                                        | 7x7x256         | 737,792    |
    | group_3 | the same with 256 filters                                        | 3x3x256         | 1,180,160  |
    | pool    | 3x3 maximum, stride 3                                            | 1x1x256         |            |
    | output  | scores, times `scale`                                            | 10              | 2,560      |

    GELU is the exact one, by the error function. The batch norms have a bias and no scale, and an epsilon of 1e-12.
    Only `whiten` has a bias among the weighted layers.

    The convolutions of the groups begin as partial identities (the paper's "identity initialization"), the output
    uniform with variance 1 / (3 * inputs), biases at zero. In the paper `whiten` is not trained but for its bias: its
    kernel is made of the 2x2 patches of the training images, their eigenvectors by falling eigenvalue, each divided by
    the square root of its eigenvalue, and then the same negated. Hence 2 * 2 * 2 * C filters for C channels. As that
    depends on the data it is the recipe's to set and to hold (`training.Whiten` and a frozen group); without it the
    layer is an ordinary convolution and begins as Linen's do.

    The program airbench94_muon of that repository begins otherwise: `scale` is 1 / 256, `output_std` 1, and
    `whiten_bias` 12 ** -0.5. airbench96 has three convolutions a group, `depth`, and more filters, (128, 384, 512).

    Attributes:
      num_classes: number of scores.
      features: number of filters of each group.
      depth: number of convolutions of each group, 2 or 3. What the first gives, after its GELU, is added to the third
        after its norm and before its GELU.
      scale: of the scores, which makes them begin small.
      momentum: of the running statistics, as in Linen: the share of the old ones kept in each step (PyTorch's is the
        share of the new).
      output_std: the standard deviation that the output's kernel begins with; None leaves it as drawn.
      whiten_bias: the bias of `whiten` begins uniform between this and its negative.
    """

    num_classes: int = 10
    features: Sequence[int] = (64, 256, 256)
    depth: int = 2
    scale: float = 1 / 9
    momentum: float = 0.6
    output_std: float | None = None
    whiten_bias: float = 0.0

    # The image height and width, and the channels, of the data that the network was made for.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    input_channels: ClassVar[int] = 3

    def __post_init__(self) -> None:
        checks.positive_int("CifarNet", "num_classes", self.num_classes)
        checks.positive_ints("CifarNet", "features", self.features)
        if self.depth not in (2, 3):
            raise InputError(f"CifarNet: depth must be 2 or 3, got {self.depth!r}")
        checks.positive("CifarNet", "scale", self.scale)
        checks.share("CifarNet", "momentum", self.momentum)
        if self.output_std is not None:
            checks.positive("CifarNet", "output_std", self.output_std)
        checks.share("CifarNet", "whiten_bias", self.whiten_bias)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        With `train` the norms are by the statistics of the batch, and the collection "batch_stats", which has to be
        mutable, moves on; without, they are by the statistics collected so far. Parameters fix C, and H and W too where
        the last pool leaves more than one position, from 49 pixels on.
        Raises InputError for images of another rank, or too small for the pools: 25x25 for three groups.
        """
        smallest = 3 * 2 ** len(self.features) + 1
        checks.images("CifarNet", images, (smallest, smallest))
        bias = functools.partial(jax.random.uniform, minval=-self.whiten_bias, maxval=self.whiten_bias)
        whiten = layers.Conv(
            8 * images.shape[-1], (2, 2), padding="VALID", name="whiten",
            bias_init=bias if self.whiten_bias else initializers.zeros_init(),
        )  # fmt: skip
        x = _gelu(whiten(images))
        for number, features in enumerate(self.features, start=1):
            x = _Group(features, self.depth, self.momentum, name=f"group_{number}")(x, train)
        x = layers.MaxPool((3, 3), strides=(3, 3), name="pool")(x)
        kernel_init = _uniform if self.output_std is None else functools.partial(_uniform_with, self.output_std)
        scores = layers.Dense(self.num_classes, use_bias=False, kernel_init=kernel_init, name="output")
        return self.scale * scores(jax.lax.collapse(x, 1))


class _Group(nn.Module):
    """Two or three convolutions of `CifarNet`, with the pool after the first; fields as there."""

    features: int
    depth: int
    momentum: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (N, H, W, C) to (N, H // 2, W // 2, features)."""
        conv = functools.partial(layers.Conv, self.features, (3, 3), use_bias=False, kernel_init=partial_identity)
        # With so small an epsilon the fast variance, a difference of squares, would let a nearly constant map explode.
        norm = functools.partial(
            nn.BatchNorm, not train, momentum=self.momentum, epsilon=1e-12, use_scale=False, use_fast_variance=False
        )
        x = layers.MaxPool((2, 2), strides=(2, 2), name="pool")(conv(name="conv_1")(x))
        first = _gelu(norm(name="norm_1")(x))
        x = _gelu(norm(name="norm_2")(conv(name="conv_2")(first)))
        return _gelu(norm(name="norm_3")(conv(name="conv_3")(x)) + first) if self.depth == 3 else x
