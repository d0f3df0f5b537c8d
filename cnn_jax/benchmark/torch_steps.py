"""Train steps by PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cnn_jax.benchmark.step_cases import StepCase
from cnn_jax.benchmark.timing import CHANNELS_LAST, COMPILED, CONTIGUOUS, Contender
from cnn_jax.benchmark.torch_layers import to_torch, why_not
from cnn_jax.benchmark.torch_networks import NETWORKS, gradients, load
from cnn_jax.benchmark.yardstick import Yardstick


class Stepper:
    """A module with its optimiser, and the batch that it learns.

    Args:
        module: takes images (N, C, H, W) and gives scores; its parameters are those to begin from.
        case: has loss and optimiser.
        images, labels: of the batch, (N, H, W, C) and (N,).
        channels_last: memory format of images and weights.
        compiled: compile the forward pass with the loss and, with it, the backward pass.
        device: where it computes.
    """

    def __init__(
        self,
        module: Any,
        case: StepCase,
        images: np.ndarray,
        labels: np.ndarray,
        channels_last: bool,
        compiled: bool = False,
        device: str = "cpu",
    ):
        memory_format: Any = torch.channels_last if channels_last else torch.contiguous_format
        self.module = module.to(device=device, memory_format=memory_format).train()
        self.images = to_torch(images).to(device).contiguous(memory_format=memory_format)
        self.labels = torch.tensor(labels, dtype=torch.int64, device=device)
        self.case, self.device = case, device
        self.optimizer = make_optimizer(case, self.module)
        self._loss = torch.compile(self.loss) if compiled else self.loss

    def loss(self) -> torch.Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.case.precision == "bfloat16"):
            scores = self.module(self.images)
        return torch.nn.functional.cross_entropy(scores.float(), self.labels, label_smoothing=self.case.label_smoothing)

    def step(self) -> torch.Tensor:
        """Takes a step and returns the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def make_optimizer(case: StepCase, module: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a step, in its fused form; only weights of two dimensions and more are decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if case.optimizer == "sgd":
        return torch.optim.SGD(parameters, case.learning_rate, case.momentum, nesterov=True, fused=True)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": case.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, case.learning_rate, fused=True)


def step_contenders(
    case: StepCase, params: Mapping[str, Any], images: np.ndarray, labels: np.ndarray, yardstick: Yardstick
) -> tuple[list[Contender], dict[str, str]]:
    """One for each memory format, and a compiled one; with the reason where there is none."""

    def make(name: str, channels_last: bool, compiled: bool = False) -> tuple[Contender, Stepper]:
        module = NETWORKS[case.network](channels=images.shape[-1])
        load(module, params)
        stepper = Stepper(module, case, images, labels, channels_last, compiled)

        def numbers() -> dict[str, np.ndarray]:
            first = stepper.step()
            found = gradients(stepper.module, params)
            return {"loss 1": first.numpy(), **found, "loss 2": stepper.step().numpy()}

        return Contender(name=name, call=stepper.step, wait=lambda result: result, numbers=numbers), stepper

    found = [make(CONTIGUOUS, channels_last=False)[0], make(CHANNELS_LAST, channels_last=True)[0]]
    if yardstick.compile is not None:
        return found, {COMPILED: yardstick.compile}
    contender, stepper = make(COMPILED, channels_last=True, compiled=True)
    # Tried on the loss and its gradient alone: the parameters stay where they begin.
    reason = why_not(lambda: stepper._loss().backward())
    return ([*found, contender], {}) if reason is None else (found, {COMPILED: reason})
