"""The train steps that are measured: network, batch, loss and optimiser, the same on all sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """A step of gradient descent on the cross-entropy with smoothed labels.

    Attributes:
      network: a name in `models.MODELS`.
      channels, size: of its images, which are square.
      batch: images a step.
      scanned: steps of one `lax.scan`.
      longest: number of terms of the longest sum of the step, to know its rounding by.
      precision: what the network computes in; PyTorch's by autocast.
      optimizer: AdamW, whose decay is of kernels only, or SGD with Nesterov's momentum; the learning rate is constant.
    """

    network: str
    channels: int
    size: int = 32
    batch: int
    scanned: int
    longest: int
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float = 0.0
    momentum: float = 0.9
    label_smoothing: float = 0.1


def lenet5(batch: int, scanned: int) -> StepCase:
    """The recipe of experiments/lenet5.py."""
    return StepCase(
        network="lenet5", channels=1, batch=batch, scanned=scanned, longest=batch * 28**2, optimizer="adamw",
        learning_rate=5e-3, weight_decay=0.05,
    )  # fmt: skip


STEP_CASES = {
    "lenet5/128": lenet5(128, 16),
    "lenet5/1024": lenet5(1024, 4),
    "cifarnet/128": StepCase(
        network="cifarnet", channels=3, batch=128, scanned=2, longest=128 * 31**2, optimizer="sgd", learning_rate=1e-3
    ),
    "resnet18/32": StepCase(
        network="resnet18", channels=3, batch=32, scanned=2, longest=32 * 32**2, optimizer="sgd", learning_rate=1e-3
    ),
    "resnet50/32": StepCase(
        network="resnet50",
        channels=3,
        size=64,
        batch=32,
        scanned=2,
        longest=32 * 32**2,
        optimizer="sgd",
        learning_rate=1e-3,
    ),
}


def in_half(network: str, batch: int, size: int = 32) -> StepCase:
    """A step for accelerators, which is long enough for them to be busy."""
    return StepCase(
        network=network, channels=3, size=size, batch=batch, scanned=1, longest=batch * size**2, optimizer="sgd",
        learning_rate=1e-3, precision="bfloat16",
    )  # fmt: skip


GPU_CASES = {
    "cifarnet/2000": in_half("cifarnet", 2000),
    "resnet18/512": in_half("resnet18", 512),
    "resnet50/256": in_half("resnet50", 256, 224),
}
