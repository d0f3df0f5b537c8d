"""Residual networks on CIFAR: the papers' test errors against ours, over several seeds.

Trains ResNet-20 to -110 by the recipe of He, Zhang, Ren and Sun (2016, section 4.2), WRN-16-8 and WRN-28-10 by that of
Zagoruyko and Komodakis (2016), and ResNet-18 for small images by that of DeVries and Taylor (2017), and prints a table
of paper against here. Meant for an accelerator: on two CPU cores a single seed of ResNet-20 takes most of a day.

    python experiments/cifar.py                                         ResNet-20, five seeds
    python experiments/cifar.py --networks resnet56 wrn16x8             two rows
    python experiments/cifar.py --networks wrn28x10 --data.name cifar100 --replicas 1
    python experiments/cifar.py --out runs/table --resume               go on where it stopped

What is not the papers': an image's channels each get mean 0 and variance 1, where He et al. subtract the mean of each
pixel; what is padded is 0 after that, not before. A batch goes on from one pass over the images to the next, and none
is dropped. Weights of convolutions begin normal but cut off at two deviations, and the last layer's with variance
1 / inputs. All 50,000 training images are learned from; He et al. chose the schedule on 5,000 of them held out.
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from cnn_jax import command, models
from cnn_jax.augment import Crop, Flip
from cnn_jax.data import TFDS, Source
from cnn_jax.published import Row, Table, measure
from cnn_jax.training import SGD, Recipe, Step

Network = Literal["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet18", "wrn16x8", "wrn28x10"]

# He et al. 2016, section 4.2: 64,000 steps, which end in the 164th epoch; the rate is divided by ten at 32,000 and at
# 48,000. The papers name no exception from decay, and their programs make none: it is that of all parameters.
he = functools.partial(
    Recipe,
    epochs=164,
    steps=64_000,
    batch_size=128,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay_all=True),
    schedule=Step(at=(0.5, 0.75), factor=0.1),
    augment=(Crop(4), Flip()),
)
# Zagoruyko and Komodakis 2016, section 3: a fifth of the rate after 60, 120 and 160 of 200 epochs, and images padded
# with their reflections.
wide = functools.partial(
    Recipe,
    epochs=200,
    batch_size=128,
    optimizer=SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, decay_all=True),
    schedule=Step(at=(0.3, 0.6, 0.8), factor=0.2),
    augment=(Crop(4, mode="reflect"), Flip()),
)
# With a rate of 0.1 from the start, the 110 layers are slow to begin to learn. He et al. take 0.01 until the error on
# the training images is below 80 %, "about 400 iterations": here for 400 of the 64,000 steps.
warm = Step(at=(0.5, 0.75), factor=0.1, warmup=400 / 64_000, start=0.1)

# Test errors: He et al., Table 6 (of ResNet-110 the best of five, which are 6.61 +- 0.16); Zagoruyko and Komodakis,
# Table 5 (medians of five); DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
# Table 1 (means of five, without cutout).
ROWS: dict[str, Row] = {
    "resnet20": Row(title="ResNet-20", paper={"cifar10": 8.75}, recipe=he(model=models.ResNet20())),
    "resnet32": Row(title="ResNet-32", paper={"cifar10": 7.51}, recipe=he(model=models.ResNet32())),
    "resnet44": Row(title="ResNet-44", paper={"cifar10": 7.17}, recipe=he(model=models.ResNet44())),
    "resnet56": Row(title="ResNet-56", paper={"cifar10": 6.97}, recipe=he(model=models.ResNet56())),
    "resnet110": Row(
        title="ResNet-110", paper={"cifar10": 6.43}, recipe=he(model=models.ResNet110(), schedule=warm)
    ),
    "resnet18": Row(
        title="ResNet-18",
        paper={"cifar10": 4.72, "cifar100": 22.46},
        recipe=wide(model=models.ResNet18(), augment=(Crop(4), Flip())),
    ),
    "wrn16x8": Row(
        title="WRN-16-8", paper={"cifar10": 4.27, "cifar100": 20.43}, recipe=wide(model=models.WRN16x8())
    ),
    "wrn28x10": Row(
        title="WRN-28-10", paper={"cifar10": 4.00, "cifar100": 19.25}, recipe=wide(model=models.WRN28x10())
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(Table):
    """Which rows of the table to measure, and over how many seeds."""

    rows: ClassVar[Mapping[str, Row]] = ROWS

    networks: tuple[Network, ...] = ("resnet20",)
    """Rows of the table."""
    replicas: int = 5
    """Seeds a row, trained together as one program."""
    epochs: int | None = None
    """Passes over the training images, to which the schedule is stretched; by default those of each row, 164 or 200."""
    data: Source = TFDS("cifar10")
    """Which images to learn from: cifar10, or --data.name cifar100."""


def main(config: Config) -> None:
    measure(config, "cifar")


if __name__ == "__main__":
    command.main(main, Config, description=__doc__)
