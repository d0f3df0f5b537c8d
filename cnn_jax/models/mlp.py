"""The multilayer perceptron: what there was before convolutions, and the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.models import checks
from cnn_jax.models.activations import activation


class MLP(nn.Module):
    """Fully connected layers `hidden_1`, `hidden_2`, ... and `output` on the flattened image.

    Weights begin as Linen's defaults: normal with variance 1 / inputs and zero biases.

    Attributes:
      features: widths of the hidden layers; none at all makes the model linear.
      num_classes: number of scores.
      activation: a name in `cnn_jax.models.activations.ACTIVATIONS`, applied after each hidden layer.
    """

    features: Sequence[int] = (100, 100)
    num_classes: int = 10
    activation: str = "sigmoid"

    # The image height and width to bring data to where nothing else is asked for; any other size will do.
    input_size: ClassVar[tuple[int, int]] = (32, 32)

    def __post_init__(self) -> None:
        if not isinstance(self.features, Sequence) or isinstance(self.features, str):
            raise InputError(f"MLP: features must be a sequence of widths, got {self.features!r}")
        for width in self.features:
            checks.positive_int("MLP", "each of features", width)
        checks.positive_int("MLP", "num_classes", self.num_classes)
        activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        `train` changes nothing: the model has no dropout and no batch statistics. Parameters fix H * W * C.
        Raises InputError for images of another rank.
        """
        checks.images("MLP", images, (1, 1))
        x = images.reshape(images.shape[0], -1)
        for number, width in enumerate(self.features, start=1):
            x = activation(self.activation)(layers.Dense(width, name=f"hidden_{number}")(x))
        return layers.Dense(self.num_classes, name="output")(x)
