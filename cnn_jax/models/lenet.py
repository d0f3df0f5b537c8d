"""LeNet-5 as it is taught; `cnn_jax.models.lenet1998` has it as it was published.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), section II.B.
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax

from cnn_jax import layers
from cnn_jax.models import checks
from cnn_jax.models.activations import Activation, activation


class LeNet5(nn.Module):
    """LeNet-5 with plain averages for S2 and S4, full connections in C3, and scores straight from C5's 120 features.

    | layer | what                       | 32x32x1 becomes | parameters |
    |-------|----------------------------|-----------------|------------|
    | C1    | 6 filters 5x5, activation  | 28x28x6         | 156        |
    | S2    | 2x2 average, stride 2      | 14x14x6         |            |
    | C3    | 16 filters 5x5, activation | 10x10x16        | 2,416      |
    | S4    | 2x2 average, stride 2      | 5x5x16          |            |
    | C5    | 120 filters 5x5, activation| 1x1x120         | 48,120     |
    | F6    | scores                     | 10              | 1,210      |

    51,902 parameters in all. The 1998 network, `OriginalLeNet5`, differs: its S2 and S4 have a trained gain and bias
    and an activation, its C3 is partly connected, and an 84-unit layer and radial basis functions come before the
    scores.

    Weights begin normal with variance 1 / inputs, biases zero. That is Linen's default, and also what "Efficient
    BackProp" (LeCun et al. 1998, section 4.6) asks for with tanh: from normalised inputs it gives sums that neither
    vanish nor saturate.

    Attributes:
      num_classes: number of scores.
      activation: a name in `cnn_jax.models.activations.ACTIVATIONS`; `'scaled_tanh'` is the paper's own.
    """

    num_classes: int = 10
    activation: Activation = "tanh"

    # The image height and width that give one score per class.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_int("LeNet5", "num_classes", self.num_classes)
        activation(self.activation)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        A larger image gives a grid of scores (N, h, w, num_classes), h = (H - 32) // 4 + 1 and w likewise: the scores
        of its 32x32 windows at stride 4, each layer being computed once for all of them.
        `train` changes nothing: the model has no dropout and no batch statistics.
        Raises InputError for images of another rank or smaller than 32x32.
        """
        checks.images("LeNet5", images, self.input_size)
        act = activation(self.activation)
        x = act(layers.Conv(6, (5, 5), padding="VALID", name="C1")(images))
        x = layers.AvgPool((2, 2), strides=(2, 2), name="S2")(x)
        x = act(layers.Conv(16, (5, 5), padding="VALID", name="C3")(x))
        x = layers.AvgPool((2, 2), strides=(2, 2), name="S4")(x)
        x = act(layers.Conv(120, (5, 5), padding="VALID", name="C5")(x))
        return one_or_grid(layers.Dense(self.num_classes, name="F6")(x))


def one_or_grid(scores: jax.Array) -> jax.Array:
    """Scores (N, h, w, classes) as they are, or as (N, classes) where there is one position only."""
    return scores[:, 0, 0] if scores.shape[1:3] == (1, 1) else scores
