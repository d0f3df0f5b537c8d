"""The first epochs of ResNet-20's recipe in PyTorch, as a process of its own.

    python -m cnn_jax.benchmark.cifar_torch FOLDER EPOCHS SEED

trains on the arrays of `mnist.export`, on a GPU where PyTorch sees one, and prints the test accuracy after each epoch
as a list. A batch is normalised, padded with zeros, cropped and mirrored as ours is, from the same distribution, in
PyTorch's own random order; channels last. Threads are PyTorch's default.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnn_jax.benchmark.mnist_torch import evaluate
from cnn_jax.benchmark.torch_networks import ResNet20

BATCH, PADDING = 128, 4


class Images:
    """Images of a split, uint8 (n, H, W, C), and their labels, int64 (n,)."""

    def __init__(self, folder: Path, split: str, device: str):
        statistics = json.loads((folder / "statistics.json").read_text())
        self.mean, self.std = (torch.tensor(statistics[name]).to(device) for name in ("mean", "std"))
        self.images = torch.from_numpy(np.load(folder / f"{split}-images.npy")).to(device)
        self.labels = torch.from_numpy(np.load(folder / f"{split}-labels.npy")).long().to(device)

    def normalised(self, batch: Any = slice(None)) -> torch.Tensor:
        """float32 (N, H, W, C), with mean 0 and variance 1 in each channel over all training images."""
        return (self.images[batch] / 255 - self.mean) / self.std


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Each image (H, W, C) of a batch padded, cropped to its size at a random place, and mirrored half of the time."""
    (count, height, width, _), on = images.shape, {"device": images.device}
    padded = torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    row, column = torch.randint(2 * PADDING + 1, (2, count, 1), **on)
    rows, columns = row + torch.arange(height, **on), column + torch.arange(width, **on)
    columns = torch.where(torch.rand(count, 1, **on) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(count, **on)[:, None, None], rows[:, :, None], columns[:, None, :]]


def initialise(module: Any) -> None:
    """As ours begins: truncated normal with variance 2 / inputs, of the last layer 1 / inputs; biases zero."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            # The standard deviation of a standard normal distribution that is cut off at two is 0.8796.
            std = math.sqrt((2 if parameter.ndim == 4 else 1) / parameter[0].numel()) / 0.87962566103423978
            torch.nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
    torch.nn.init.zeros_(module.output.bias)


def train(folder: Path, epochs: int, seed: int, module: Any = None) -> list[float]:
    """Trains and returns the test accuracy after each epoch; `module` stands in for ResNet-20."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, test = Images(folder, "train", device), Images(folder, "test", device)
    test_images = test.normalised().permute(0, 3, 1, 2)
    module = ResNet20() if module is None else module
    initialise(module)
    module = module.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    order = torch.cat([torch.randperm(len(images.labels), device=device) for _ in range(epochs)])
    accuracies: list[float] = []
    for step, batch in enumerate(order.split(BATCH), start=1):
        module.train()
        optimizer.zero_grad(set_to_none=True)
        scores = module(augmented(images.normalised(batch)).permute(0, 3, 1, 2))
        torch.nn.functional.cross_entropy(scores, images.labels[batch]).backward()
        optimizer.step()
        if min(step * BATCH, len(order)) >= (len(accuracies) + 1) * len(images.labels):
            module.eval()
            accuracies.append(evaluate(module, test_images, test.labels))
    return accuracies


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
