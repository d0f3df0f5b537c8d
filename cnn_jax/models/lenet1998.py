"""LeNet-1, LeNet-4 and LeNet-5 as they were published.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), sections II.B and
III.C; LeNet-1 is the network of Le Cun et al., "Handwritten digit recognition with a back-propagation network" (1990).

In all of them every convolution, subsampling and fully connected layer before the output is followed by
1.7159 tanh(2x / 3). A parameter counts once however often it is used, a connection once for each unit at its end, and a
bias is a connection too.

Weights begin normal with variance 1 / (inputs of the unit), biases at zero, subsampling as a plain average. That is the
rule of "Efficient BackProp" (LeCun et al. 1998, section 4.6) for this activation. The paper's own, uniform within
2.4 / (inputs of the unit) (appendix A), begins with sums so small that AdamW learns more slowly from it.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.functional import scaled_tanh
from cnn_jax.models import checks
from cnn_jax.models.bitmaps import digit_bitmaps
from cnn_jax.models.lenet import one_or_grid

Head = Literal["rbf", "softmax"]

# Which maps of H2 each map of LeNet-1's H3 sees (1990 paper, Table 1).
H3_OF_LENET1 = ((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1), (2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3))

# Eight triples of neighbours, counted around the circle of the eight maps of S2, and eight of three different C1 maps.
C3_OF_LENET4 = tuple((i, (i + a) % 8, (i + b) % 8) for a, b in ((1, 2), (2, 5)) for i in range(8))

# Which maps of S2 each map of LeNet-5's C3 sees (1998 paper, Table I): three neighbours, four neighbours, four in two
# pairs, all.
C3_OF_LENET5 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet1(nn.Module):
    """LeNet-1: 2,578 parameters, 98,442 connections.

    | layer  | what                                           | 28x28x1 becomes | parameters | connections |
    |--------|------------------------------------------------|-----------------|------------|-------------|
    | H1     | 4 filters 5x5, activation                      | 24x24x4         | 104        | 59,904      |
    | H2     | 2x2 subsampling, activation                    | 12x12x4         | 8          | 2,880       |
    | H3     | 12 filters 5x5, partly connected, activation   | 8x8x12          | 512        | 32,768      |
    | H4     | 2x2 subsampling, activation                    | 4x4x12          | 24         | 960         |
    | output | scores                                         | 10              | 1,930      | 1,930       |

    In 1998 (section III.C) its digits were shrunk to 16x16 pixels in the middle of the field; MNIST's own images, as
    they come, fill 20x20 of it. The outputs of 1990 were squashed too; here they are scores.

    Attributes:
      num_classes: number of scores.
    """

    num_classes: int = 10

    # The image height and width that give one score per class.
    input_size: ClassVar[tuple[int, int]] = (28, 28)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_int("LeNet1", "num_classes", self.num_classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        A larger image gives a grid (N, h, w, num_classes), the scores of its 28x28 windows at stride 4.
        `train` changes nothing. Raises InputError for images of another rank or smaller than 28x28.
        """
        checks.images("LeNet1", images, self.input_size)
        x = scaled_tanh(layers.Conv(4, (5, 5), padding="VALID", name="H1")(images))
        x = scaled_tanh(layers.Subsample((2, 2), name="H2")(x))
        x = scaled_tanh(layers.PartialConv(12, (5, 5), H3_OF_LENET1, padding="VALID", name="H3")(x))
        x = scaled_tanh(layers.Subsample((2, 2), name="H4")(x))
        return one_or_grid(layers.Conv(self.num_classes, (4, 4), padding="VALID", name="output")(x))


class LeNet4(nn.Module):
    """LeNet-4: 50,698 parameters, 262,306 connections.

    | layer  | what                                           | 32x32x1 becomes | parameters | connections |
    |--------|------------------------------------------------|-----------------|------------|-------------|
    | C1     | 4 filters 5x5, activation                      | 28x28x4         | 104        | 81,536      |
    | S2     | 2x2 subsampling, 2 of each map, activation     | 14x14x8         | 16         | 7,840       |
    | C3     | 16 filters 5x5, each on 3 maps, activation     | 10x10x16        | 1,216      | 121,600     |
    | S4     | 2x2 subsampling, activation                    | 5x5x16          | 32         | 2,000       |
    | F5     | 120 fully connected units, activation          | 1x1x120         | 48,120     | 48,120      |
    | output | scores                                         | 10              | 1,210      | 1,210       |

    The paper (section III.C) describes it in one sentence: 4 first-level maps, 8 subsampling maps connected in pairs to
    them, 16 maps, 16 subsampling maps, 120 fully connected units, 10 outputs; "about 260,000 connections" and "about
    17,000 free parameters". The connections of C3 are not given: three maps each, by a regular rule, which gives the
    260,000. These layers cannot have 17,000: 120 units on 16 maps of 5x5 have 48,120 alone.

    Attributes:
      num_classes: number of scores.
    """

    num_classes: int = 10

    # The image height and width that give one score per class.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_int("LeNet4", "num_classes", self.num_classes)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        A larger image gives a grid (N, h, w, num_classes), the scores of its 32x32 windows at stride 4.
        `train` changes nothing. Raises InputError for images of another rank or smaller than 32x32.
        """
        checks.images("LeNet4", images, self.input_size)
        x = scaled_tanh(layers.Conv(4, (5, 5), padding="VALID", name="C1")(images))
        x = scaled_tanh(layers.Subsample((2, 2), name="S2")(jnp.repeat(x, 2, axis=-1)))
        x = scaled_tanh(layers.PartialConv(16, (5, 5), C3_OF_LENET4, padding="VALID", name="C3")(x))
        x = scaled_tanh(layers.Subsample((2, 2), name="S4")(x))
        x = scaled_tanh(layers.Conv(120, (5, 5), padding="VALID", name="F5")(x))
        return one_or_grid(layers.Dense(self.num_classes, name="output")(x))


class OriginalLeNet5(nn.Module):
    """LeNet-5 of 1998: 60,000 parameters, 340,908 connections (section II.B).

    | layer  | what                                           | 32x32x1 becomes | parameters | connections |
    |--------|------------------------------------------------|-----------------|------------|-------------|
    | C1     | 6 filters 5x5, activation                      | 28x28x6         | 156        | 122,304     |
    | S2     | 2x2 subsampling, activation                    | 14x14x6         | 12         | 5,880       |
    | C3     | 16 filters 5x5, connected by Table I, activation | 10x10x16      | 1,516      | 151,600     |
    | S4     | 2x2 subsampling, activation                    | 5x5x16          | 32         | 2,000       |
    | C5     | 120 filters 5x5, activation                    | 1x1x120         | 48,120     | 48,120      |
    | F6     | 84 fully connected units, activation           | 84              | 10,164     | 10,164      |
    | output | distances to the 7x12 bitmaps of the digits    | 10              |            | 840         |

    With `head="softmax"` the output is a fully connected layer instead, with 850 more parameters for ten classes.

    To train the radial basis units, use the paper's criterion (equation 9), which draws F6 to the bitmap of the right
    class. The plain cross-entropy of the scores only drives it away from the others, until F6 saturates.

    Attributes:
      num_classes: number of scores; the bitmaps are of ten classes, the digits.
      head: `'rbf'`, where a score is minus the squared distance of F6 to the bitmap of its class, so that the largest
        score wins; or `'softmax'`, scores without a bound.
    """

    num_classes: int = 10
    head: Head = "rbf"

    # The image height and width that give one score per class.
    input_size: ClassVar[tuple[int, int]] = (32, 32)
    # The scores of an image are its own, see `cnn_jax.training.make_train_step`.
    per_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.positive_int("OriginalLeNet5", "num_classes", self.num_classes)
        if self.head not in get_args(Head):
            raise InputError(f"OriginalLeNet5: head must be one of {', '.join(get_args(Head))}; got {self.head!r}")
        if self.head == "rbf" and self.num_classes != 10:
            raise InputError(
                "OriginalLeNet5: head 'rbf' has the bitmaps of ten digits and needs num_classes=10, "
                f"got {self.num_classes}; head 'softmax' takes any number"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, H, W, C), normalised floats, to scores (N, num_classes).

        A larger image gives a grid (N, h, w, num_classes), the scores of its 32x32 windows at stride 4.
        `train` changes nothing. Raises InputError for images of another rank or smaller than 32x32.
        """
        checks.images("OriginalLeNet5", images, self.input_size)
        x = scaled_tanh(layers.Conv(6, (5, 5), padding="VALID", name="C1")(images))
        x = scaled_tanh(layers.Subsample((2, 2), name="S2")(x))
        x = scaled_tanh(layers.PartialConv(16, (5, 5), C3_OF_LENET5, padding="VALID", name="C3")(x))
        x = scaled_tanh(layers.Subsample((2, 2), name="S4")(x))
        x = scaled_tanh(layers.Conv(120, (5, 5), padding="VALID", name="C5")(x))
        x = scaled_tanh(layers.Dense(84, name="F6")(x))
        if self.head == "softmax":
            scores = layers.Dense(self.num_classes, name="output")(x)
        else:
            scores = -layers.RadialBasis(digit_bitmaps(), name="output")(x)
        return one_or_grid(scores)
