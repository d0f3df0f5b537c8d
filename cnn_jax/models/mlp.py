"""The multilayer perceptron: what there was before convolutions, and the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.models import checks
from cnn_jax.models.activations import Activation, activation


class MLP(nn.Module):
    """Fully connected layers `hidden_1`, `hidden_2`, ... and `output`, on vectors or on flattened images.

    Weights begin as Linen's defaults: normal with variance 1 / inputs and zero biases.

    Attributes:
      features: widths of the hidden layers; none at all makes the model linear.
      num_classes: number of scores.
      activation: a name in `cnn_jax.models.activations.ACTIVATIONS`, applied after each hidden layer.
    """

    features: Sequence[int] = (100, 100)
    num_classes: int = 10
    activation: Activation = "sigmoid"

    # The image height and width to bring data to where nothing else is asked for; any other size will do.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_ints("MLP", "features", self.features)
        checks.positive_int("MLP", "num_classes", self.num_classes)
        activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        """Maps vectors (N, I) or images (N, H, W, C), normalised floats, to scores (N, num_classes).

        `train` changes nothing: the model has no dropout and no batch statistics. Parameters fix I = H * W * C.
        Raises InputError for inputs of another rank, or with an empty dimension after the first.
        """
        if inputs.ndim not in (2, 4) or 0 in inputs.shape[1:]:
            raise InputError(
                f"MLP expects vectors (N, I) or images (N, H, W, C), neither of them empty, got shape {inputs.shape}"
            )
        x = jax.lax.collapse(inputs, 1)
        for number, width in enumerate(self.features, start=1):
            x = activation(self.activation)(layers.Dense(width, name=f"hidden_{number}")(x))
        return layers.Dense(self.num_classes, name="output")(x)
