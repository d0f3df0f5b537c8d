"""airbench94_muon of KellerJordan/cifar10-airbench in PyTorch, from its constants; also as a process of its own.

    python -m cnn_jax.benchmark.airbench_torch FOLDER FORM PRECISION EPOCHS SEEDS [course]

with a FORM of contiguous, channels-last, compiled or autotuned, and a PRECISION of float32, bfloat16 or float16, trains
that many seeds on the arrays of `mnist.export`, on a GPU where PyTorch sees one, and prints of each in a line the test
accuracy and the seconds from whitening to the last test image. On a GPU a run before them, which is not counted, is
what compiles, as in the program. With bfloat16 the network computes under autocast, its parameters being float32; with
float16 all but its norms is in half precision, as in the program, which is autotuned. Threads are PyTorch's default.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from cnn_jax.benchmark.torch_networks import CifarNet

Form = Literal["contiguous", "channels-last", "compiled", "autotuned"]
Precision = Literal["float32", "bfloat16", "float16"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, EPOCHS, WHITEN_EPOCHS, TRANSLATE, SMOOTHING = 2000, 8, 3, 2, 0.2
BIAS_RATE, HEAD_RATE, MUON_RATE, DECAY = 0.053, 0.67, 0.24, 2e-6 * BATCH
QUINTIC = 3.4445, -4.7750, 2.0315
HALF = torch.bfloat16  # what singular values are brought to 1 in


class Muon:
    """Momentum whose singular values are brought to about 1, and kernels of the norm sqrt(outputs).

    Args:
        kernels: the parameters.
        momentum: share of the sum of gradients that is kept.
        compiled: compile the iteration, of each shape by itself.
    """

    def __init__(self, kernels: list[torch.nn.Parameter], momentum: float = 0.6, compiled: bool = False):
        self.kernels, self.momentum = kernels, momentum
        self.orthogonal = torch.compile(orthogonal, dynamic=False) if compiled else orthogonal
        self.sums = [torch.zeros_like(kernel) for kernel in kernels]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves the kernels against their gradients."""
        for kernel, total in zip(self.kernels, self.sums, strict=True):
            assert kernel.grad is not None
            total.mul_(self.momentum).add_(kernel.grad)
            update = kernel.grad.add(total, alpha=self.momentum)
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
            kernel.sub_(self.orthogonal(update.flatten(1)).view_as(kernel), alpha=rate)


def orthogonal(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """A matrix of the same singular vectors, its singular values near 1, by Newton-Schulz steps."""
    a, b, c = QUINTIC
    x = matrix.to(HALF)
    x = x.T if x.shape[0] > x.shape[1] else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = product(x, x.T)
        x = a * x + product(b * gram + c * product(gram, gram), x)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product of matrices; on a CPU in float32 and rounded, as many have no instructions for bfloat16."""
    return (a.float() @ b.float()).to(a.dtype) if a.device.type == "cpu" else a @ b


class Racer:
    """The network with its optimisers.

    Args:
        module: the network, its parameters as they begin.
        steps: length of the run; the bias of the whitening layer is trained for the first 3 of every 8 of them.
        form: memory format; or compiled with channels last, without or with searching for the fastest kernels, which is
            done for GPUs.
        precision: what it computes in.
    """

    def __init__(self, module: CifarNet, steps: int, form: Form, precision: Precision):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.memory_format = torch.contiguous_format if form == "contiguous" else torch.channels_last
        self.dtype = torch.float16 if precision == "float16" else torch.float32
        self.precision, self.steps = precision, steps
        self.whiten_steps = math.ceil(steps * WHITEN_EPOCHS / EPOCHS)
        module.whiten.weight.requires_grad_(False)
        self.module: Any = module.to(self.device, self.dtype).to(memory_format=self.memory_format)
        norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.float()
        sgd = [([module.whiten.bias], BIAS_RATE), ([norm.bias for norm in norms], BIAS_RATE)]
        sgd.append(([module.output.weight], HEAD_RATE))
        groups = [{"params": parameters, "lr": rate, "weight_decay": DECAY / rate} for parameters, rate in sgd]
        self.rates = [rate for _, rate in sgd]
        self.groups = groups
        self.kernels = [p for p in module.parameters() if p.ndim == 4 and p.requires_grad]
        self.compiled = form in ("compiled", "autotuned")
        mode = "max-autotune" if form == "autotuned" else None
        self.loss = torch.compile(self._loss, mode=mode) if self.compiled else self._loss
        self.scores = torch.compile(self._scores, mode=mode) if self.compiled else self._scores
        self.restart()

    def restart(self) -> None:
        """Forgets the steps taken, for other parameters."""
        self.taken = 0
        self.module.whiten.bias.requires_grad_(True)
        self.sgd = torch.optim.SGD([dict(group) for group in self.groups], momentum=0.85, nesterov=True, fused=True)
        self.muon = Muon(self.kernels, compiled=self.compiled)

    def to_device(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, C, H, W) as the network takes them."""
        return images.to(self.device, self.dtype).contiguous(memory_format=self.memory_format)

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        # (N, classes), float32
        half = torch.autocast(self.device.type, torch.bfloat16, self.precision == "bfloat16")
        with half if self.precision == "bfloat16" else contextlib.nullcontext():
            return self.module(images).float()

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # The program's sum over its batch of 2,000; of another batch, as if it were that large.
        return BATCH * F.cross_entropy(self._scores(images), labels, label_smoothing=SMOOTHING)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Takes a step and returns the mean loss before it."""
        self.sgd.zero_grad(set_to_none=True)
        for kernel in self.muon.kernels:
            kernel.grad = None
        if self.taken == self.whiten_steps:
            self.module.whiten.bias.requires_grad_(False)
        loss = self.loss(images, labels)
        loss.backward()
        left = 1 - self.taken / self.steps
        lefts = (1 - self.taken / self.whiten_steps, left, left)
        for group, rate, share in zip(self.sgd.param_groups, self.rates, lefts, strict=True):
            group["lr"] = rate * max(share, 0.0)
        self.sgd.step()
        self.muon.step(MUON_RATE * left)
        self.taken += 1
        return loss.detach() / BATCH


def begin(module: CifarNet) -> None:
    """Draws the parameters as the program does, all but the kernel of the whitening layer."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.BatchNorm2d | torch.nn.Linear):
            part.reset_parameters()
    for number in range(1, module.groups + 1):
        for conv in (getattr(module, f"group_{number}").conv_1, getattr(module, f"group_{number}").conv_2):
            torch.nn.init.dirac_(conv.weight.data[: conv.in_channels])
    module.output.weight.data.div_(module.output.weight.std())


def whiten(module: CifarNet, first: torch.Tensor) -> None:
    """Sets the kernel of the whitening layer by the first images, normalised."""
    module.whiten.weight.data.copy_(whitening(first.float()))


def whitening(images: torch.Tensor, eps: float = 5e-4) -> torch.Tensor:
    """The kernel (2 n, C, 2, 2) that whitens 2x2 windows of n numbers, by falling eigenvalue, and its negative."""
    channels = images.shape[1]
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 4 * channels)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernel = (vectors / (values + eps).sqrt()).T.flip(0).reshape(-1, channels, 2, 2)
    return torch.cat([kernel, -kernel])


def augmented(images: torch.Tensor, mirrored: torch.Tensor, epoch: int) -> torch.Tensor:
    """All training images as an epoch shows them: mirrored in turns, and moved at random over reflected edges."""
    images = torch.where((mirrored ^ (epoch % 2 == 1)).view(-1, 1, 1, 1), images.flip(3), images)
    size = images.shape[-1]
    padded = F.pad(images, [TRANSLATE] * 4, mode="reflect")
    starts = torch.randint(0, 2 * TRANSLATE + 1, (len(images), 2), device=images.device)
    moved = torch.empty_like(images)
    for row in range(2 * TRANSLATE + 1):
        for column in range(2 * TRANSLATE + 1):
            chosen = (starts[:, 0] == row) & (starts[:, 1] == column)
            moved[chosen] = padded[chosen, :, row : row + size, column : column + size]
    return moved


@torch.inference_mode()
def accuracy(racer: Racer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images read right, by the mean of their six views."""
    racer.module.eval()

    def mirrored(batch: torch.Tensor) -> torch.Tensor:
        # A copy, since a replayed graph writes its results where the last ones are.
        return racer.scores(batch).clone() / 2 + racer.scores(batch.flip(3)).clone() / 2

    right = torch.zeros((), dtype=torch.int64, device=racer.device)
    for batch, expected in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        size, padded = batch.shape[-1], F.pad(batch, [1] * 4, mode="reflect")
        moved = [mirrored(padded[:, :, at : at + size, at : at + size]) for at in (0, 2)]
        scores = mirrored(batch) / 2 + sum(moved) / 4
        right += (scores.argmax(1) == expected).sum()
    racer.module.train()
    return int(right) / len(images)


def read(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, normalised, float32 (n, 3, 32, 32), and labels, int64 (n,)."""
    images = torch.from_numpy(np.load(folder / f"{split}-images.npy")).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std, torch.from_numpy(np.load(folder / f"{split}-labels.npy")).long()


def train(
    folder: Path,
    form: Form,
    precision: Precision,
    epochs: int = EPOCHS,
    seeds: Sequence[int] = (0,),
    course: list[tuple[float, float]] | None = None,
) -> Iterator[tuple[float, float]]:
    """Trains seeds one after the other; yields of each its test accuracy and its seconds.

    On a CPU the seconds of the first hold compiling, if there is any; on a GPU a run before it, which is not counted.
    Where a `course` is given, seconds and test accuracy after each epoch are put into it.
    """
    images, labels = read(folder, "train")
    test, expected = read(folder, "test")
    steps_an_epoch = len(images) // BATCH
    module = CifarNet(scale=1 / 256)
    racer = Racer(module, epochs * steps_an_epoch, form, precision)
    images, test = racer.to_device(images), racer.to_device(test)
    labels, expected = labels.to(racer.device), expected.to(racer.device)

    def run(seed: int, course: list[tuple[float, float]] | None) -> tuple[float, float]:
        torch.manual_seed(seed)
        begin(module)
        racer.restart()
        began = time.perf_counter()
        whiten(module, images[:5000])
        mirrored = torch.rand(len(images), device=racer.device) < 0.5
        for epoch in range(epochs):
            shown = augmented(images, mirrored, epoch)
            order = torch.randperm(len(images), device=racer.device)
            for rows in order[: steps_an_epoch * BATCH].split(BATCH):
                racer.step(racer.to_device(shown[rows]), labels[rows])
            if course is not None:
                seconds = time.perf_counter() - began
                course.append((seconds, accuracy(racer, test, expected)))
        found = accuracy(racer, test, expected)
        return found, time.perf_counter() - began

    if racer.device.type == "cuda":
        run(seeds[0], None)
    for seed in seeds:
        yield run(seed, course)


if __name__ == "__main__":
    folder, form, precision, epochs, seeds = sys.argv[1:6]
    course: list[tuple[float, float]] | None = [] if sys.argv[6:] else None
    for found in train(Path(folder), form, precision, int(epochs), range(int(seeds)), course):  # type: ignore[arg-type]
        print(*found, flush=True)
    if course is not None:
        print(json.dumps(course))
