"""The plain convolutional network: convolution, activation and pool, repeated, then dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.models import checks
from cnn_jax.models.activations import Activation, activation

Pool = Literal["max", "average"]


class ConvNet(nn.Module):
    """Blocks `conv_1`, `pool_1`, `conv_2`, ... that keep and then halve the image, then `hidden_1`, ... and `output`.

    The smallest of the kind, as it is by default:

    | layer  | what                                     | 32x32x3 becomes |
    |--------|------------------------------------------|-----------------|
    | conv_1 | 12 filters 3x3, zeros around, activation | 32x32x12        |
    | pool_1 | 2x2 maximum, stride 2                    | 16x16x12        |
    | output | scores, of all 3,072 values              | 10              |

    Weights begin as Linen's defaults: normal with variance 1 / inputs and zero biases.

    Attributes:
      filters: number of filters of each block's convolution; none at all leaves the dense layers.
      kernel_size: height and width of every filter.
      activation: a name in `cnn_jax.models.activations.ACTIVATIONS`, after each convolution and each hidden layer.
      pool: `'max'` or `'average'`, over 2x2 windows at stride 2; a last odd row or column is not seen.
      features: widths of the hidden dense layers after the blocks.
      num_classes: number of scores.
    """

    filters: Sequence[int] = (12,)
    kernel_size: int = 3
    activation: Activation = "relu"
    pool: Pool = "max"
    features: Sequence[int] = ()
    num_classes: int = 10

    # The image height and width to bring data to where nothing else is asked for; any that the pools can halve will do.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_ints("ConvNet", "filters", self.filters)
        checks.positive_int("ConvNet", "kernel_size", self.kernel_size)
        activation(self.activation)
        if self.pool not in get_args(Pool):
            raise InputError(f"ConvNet: pool must be one of {', '.join(get_args(Pool))}; got {self.pool!r}")
        checks.positive_ints("ConvNet", "features", self.features)
        checks.positive_int("ConvNet", "num_classes", self.num_classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        `train` changes nothing: the model has no dropout and no batch statistics. Parameters fix H, W and C.
        Raises InputError for images of another rank, or too small to be halved by every pool.
        """
        halvings = 2 ** len(self.filters)
        checks.images("ConvNet", images, (halvings, halvings))
        act = activation(self.activation)
        pool = layers.MaxPool if self.pool == "max" else layers.AvgPool
        x = images
        for number, filters in enumerate(self.filters, start=1):
            x = act(layers.Conv(filters, (self.kernel_size, self.kernel_size), name=f"conv_{number}")(x))
            x = pool((2, 2), strides=(2, 2), name=f"pool_{number}")(x)
        x = jax.lax.collapse(x, 1)
        for number, width in enumerate(self.features, start=1):
            x = act(layers.Dense(width, name=f"hidden_{number}")(x))
        return layers.Dense(self.num_classes, name="output")(x)
