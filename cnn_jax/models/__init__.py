"""The networks, one file a family, and how to build one by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn

from cnn_jax.errors import InputError
from cnn_jax.models.activations import ACTIVATIONS, Activation
from cnn_jax.models.cifarnet import CifarNet
from cnn_jax.models.convnet import ConvNet
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.lenet1998 import LeNet1, LeNet4, OriginalLeNet5
from cnn_jax.models.mlp import MLP
from cnn_jax.models.resnet import ResNet, ResNet18

MODELS: dict[str, type[nn.Module]] = {
    "cifarnet": CifarNet,
    "convnet": ConvNet,
    "lenet1": LeNet1,
    "lenet4": LeNet4,
    "lenet5": LeNet5,
    "lenet5_original": OriginalLeNet5,
    "mlp": MLP,
    "resnet18": ResNet18,
}

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "MODELS",
    "Activation",
    "CifarNet",
    "ConvNet",
    "LeNet1",
    "LeNet4",
    "LeNet5",
    "OriginalLeNet5",
    "ResNet",
    "ResNet18",
    "build",
    "input_size",
    "with_classes",
]


def input_size(model: nn.Module) -> tuple[int, int] | None:
    """The image height and width that a model is made for; None of one that says nothing, for which any will do."""
    size = getattr(model, "input_size", None)
    return None if size is None else (int(size[0]), int(size[1]))


def with_classes(model: nn.Module, classes: int) -> nn.Module:
    """The model with so many scores, where it has a field `num_classes`; any other as it is."""
    return model.clone(num_classes=classes) if hasattr(model, "num_classes") else model


def build(name: str, **fields: Any) -> nn.Module:
    """The model called `name`, with its fields set, e.g. `build("mlp", features=(300,), num_classes=26)`.

    InputError with the choices for an unknown name or field, or for a value the model cannot use.
    """
    if name not in MODELS:
        raise InputError(f"model must be one of {', '.join(MODELS)}; got {name!r}")
    # `parent` and `name` are fields that Linen adds to every module.
    known = [f.name for f in dataclasses.fields(MODELS[name]) if f.name not in ("parent", "name")]
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise InputError(f"model {name} has the fields {', '.join(known)}; got {', '.join(unknown)}")
    return MODELS[name](**fields)
