"""The networks, one file a family, and how to build one by name."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.errors import InputError
from cnn_jax.models.activations import ACTIVATIONS, Activation
from cnn_jax.models.cifarnet import CifarNet
from cnn_jax.models.convnet import ConvNet
from cnn_jax.models.lenet import LeNet5
from cnn_jax.models.lenet1998 import LeNet1, LeNet4, OriginalLeNet5
from cnn_jax.models.mlp import MLP
from cnn_jax.models.resnet import (
    CifarResNet,
    ResNet,
    ResNet18,
    ResNet18ImageNet,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet110,
    ResNet152,
)
from cnn_jax.models.wide_resnet import WideResNet, WRN16x8, WRN28x10

MODELS: dict[str, type[nn.Module]] = {
    "cifarnet": CifarNet,
    "convnet": ConvNet,
    "lenet1": LeNet1,
    "lenet4": LeNet4,
    "lenet5": LeNet5,
    "lenet5_original": OriginalLeNet5,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet18_imagenet": ResNet18ImageNet,
    "resnet20": ResNet20,
    "resnet32": ResNet32,
    "resnet34": ResNet34,
    "resnet44": ResNet44,
    "resnet50": ResNet50,
    "resnet56": ResNet56,
    "resnet101": ResNet101,
    "resnet110": ResNet110,
    "resnet152": ResNet152,
    "wrn16x8": WRN16x8,
    "wrn28x10": WRN28x10,
}

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "MODELS",
    "Activation",
    "CifarNet",
    "CifarResNet",
    "ConvNet",
    "LeNet1",
    "LeNet4",
    "LeNet5",
    "OriginalLeNet5",
    "ResNet",
    "ResNet18",
    "ResNet18ImageNet",
    "ResNet20",
    "ResNet32",
    "ResNet34",
    "ResNet44",
    "ResNet50",
    "ResNet56",
    "ResNet101",
    "ResNet110",
    "ResNet152",
    "WRN16x8",
    "WRN28x10",
    "WideResNet",
    "build",
    "check_scores",
    "check_shape",
    "input_size",
    "with_classes",
]


def input_size(model: nn.Module) -> tuple[int, int] | None:
    """The image height and width that a model is made for; None if it declares none and takes any."""
    size = getattr(model, "input_size", None)
    return None if size is None else (int(size[0]), int(size[1]))


def with_classes(model: nn.Module, classes: int) -> nn.Module:
    """The model with that many scores, if it has a field `num_classes`; any other as it is.

    InputError if it cannot be called as models are trained and measured, with `train`.
    """
    parameters = inspect.signature(type(model).__call__).parameters.values()
    if not any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise InputError(
            f"{type(model).__name__}: expected a model that is called as model(images, train=...); give its __call__ "
            "an argument train, and a default"
        )
    return model.clone(num_classes=classes) if hasattr(model, "num_classes") else model


def check_scores(model: nn.Module, image_shape: tuple[int, ...], classes: int) -> None:
    """InputError unless the model gives one score a class for images (height, width, channels)."""

    def score(images: jax.Array) -> Any:
        return model.init_with_output(jax.random.key(0), images, train=False)[0]

    check_shape(model, jax.eval_shape(score, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)), 1, classes)


def check_shape(model: nn.Module, scores: Any, images: int, classes: int) -> None:
    """InputError unless the model's output has one score per class for each of that many images."""
    shape = getattr(scores, "shape", None)
    if shape != (images, classes):
        raise InputError(
            f"{type(model).__name__}: expected scores (N, {classes}), one a class of the data, got "
            f"{shape or type(scores).__name__} for {images}; a field num_classes is set by the data"
        )


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
