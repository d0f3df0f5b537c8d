"""The recipe of experiments/lenet5.py in PyTorch, as a process of its own.

    python -m cnn_jax.benchmark.mnist_torch FOLDER contiguous|channels-last [EPOCHS]

trains on the arrays of `mnist.export` and prints the test accuracy. All images are normalised once and kept as one
tensor; a batch is picked from it by index. Threads are PyTorch's default.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnn_jax.benchmark.step_cases import lenet5
from cnn_jax.benchmark.torch_networks import LeNet5
from cnn_jax.benchmark.torch_steps import make_optimizer

CASE = lenet5(batch=64, scanned=1)
EVAL_BATCH = 256


def learning_rates(steps: int, peak: float) -> list[float]:
    """`optax.cosine_onecycle_schedule(steps, peak)`: up from 1/25 of the peak in 30 % of the steps, then down to
    1/250,000 of it, along half cosines."""
    top = int(0.3 * steps)

    def between(low: float, high: float, share: float) -> float:
        return low + (high - low) * (1 - math.cos(math.pi * share)) / 2

    return [
        between(peak / 25, peak, step / top) if step < top else between(peak, peak / 25e4, (step - top) / (steps - top))
        for step in range(steps)
    ]


def initialise(module: torch.nn.Module) -> None:
    """As Linen does by default: truncated normal with variance 1 / inputs, biases zero."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
        else:
            # The standard deviation of a standard normal distribution that is cut off at two is 0.8796.
            std = math.sqrt(1 / parameter[0].numel()) / 0.87962566103423978
            torch.nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)


def read(folder: Path, split: str, memory_format: torch.memory_format) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, normalised with two black pixels around, float32 (n, 1, 32, 32), and labels, int64 (n,)."""
    statistics = json.loads((folder / "statistics.json").read_text())
    images = torch.from_numpy(np.load(folder / f"{split}-images.npy")).permute(0, 3, 1, 2)
    images = torch.nn.functional.pad(images, (2, 2, 2, 2)).float()
    [mean], [std] = statistics["mean"], statistics["std"]
    images = images.mul_(1 / (255 * std)).sub_(mean / std)
    labels = torch.from_numpy(np.load(folder / f"{split}-labels.npy")).long()
    return images.contiguous(memory_format=memory_format), labels


def evaluate(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of the images whose largest score is the label's."""
    with torch.inference_mode():
        found = [module(batch).argmax(1) for batch in images.split(EVAL_BATCH)]
    return float((torch.cat(found) == labels).float().mean())


def train(folder: Path, memory_format: torch.memory_format, epochs: int, seed: int = 0) -> float:
    """Trains and returns the test accuracy, which is also measured after each epoch, as ours is."""
    torch.manual_seed(seed)
    images, labels = read(folder, "train", memory_format)
    test = read(folder, "test", memory_format)
    module: Any = LeNet5()
    initialise(module)
    module = module.to(memory_format=memory_format)
    optimizer = make_optimizer(CASE, module)
    order = torch.cat([torch.randperm(len(images)) for _ in range(epochs)])
    batches = order.split(CASE.batch)
    rates = learning_rates(len(batches), CASE.learning_rate)
    accuracy, epoch = 0.0, 1
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        scores = module(images[batch])
        torch.nn.functional.cross_entropy(scores, labels[batch], label_smoothing=CASE.label_smoothing).backward()
        optimizer.step()
        if step * CASE.batch >= epoch * len(images) or step == len(batches):
            accuracy, epoch = evaluate(module, *test), epoch + 1
    return accuracy


if __name__ == "__main__":
    form = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}[sys.argv[2]]
    print(train(Path(sys.argv[1]), form, int(sys.argv[3]) if len(sys.argv) > 3 else 10))
