"""What a model consists of: each layer's geometry, parameters and multiply-adds, found without running it."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import layers
from cnn_jax.functional import geometry

_OURS = (
    layers.Conv,
    layers.ConvTranspose,
    layers.Dense,
    layers.MaxPool,
    layers.MinPool,
    layers.AvgPool,
    layers.GlobalAvgPool,
    layers.GlobalMaxPool,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of a model.

    Attributes:
      layer: names from the model down to the layer, e.g. `'encoder/C1'`.
      kind: the layer's class, e.g. `'Conv'`.
      kernel: extent of the window in each spatial dimension; None for a layer without one.
      stride: step of the window in each spatial dimension; None for a layer without one.
      output: shape of the output volume of one example, channels last.
      parameters: number of trainable values; 0 where an earlier row has counted them already.
      multiply_adds: products of a weight and an input, each added to a sum, for one example. Convolutions and dense
        layers have them; biases, pools and activations count none. Padding zeros count as inputs.
    """

    layer: str
    kind: str
    kernel: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def describe(model: nn.Module, input_shape: Sequence[int]) -> list[LayerRow]:
    """One row for each call of a layer of `cnn_jax.layers`, and of any other module with parameters of its own.

    Args:
      model: a Linen module that maps one array to one array; it is called with `train=False` if it knows the argument.
      input_shape: shape of one example, without a batch dimension, e.g. (32, 32, 1).

    Returns:
      The rows in the order in which the layers finish. `total` adds them up.

    Raises:
      Whatever the model says of an input of this shape.
    """
    rows: list[LayerRow] = []
    counted: set[tuple[str, ...]] = set()

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__":
            own = _own_parameters(module)
            if own or isinstance(module, _OURS):
                rows.append(_row(module, args[0].shape, output.shape, own, module.path not in counted))
                counted.add(module.path)
        return output

    arguments: dict[str, Any] = (
        {"train": False} if "train" in inspect.signature(type(model).__call__).parameters else {}
    )
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda key, x: model.init(key, x, **arguments), jax.random.key(0), x)
    return rows


def total(rows: Sequence[LayerRow]) -> LayerRow:
    """The row that sums up `rows`, called `'total'`: all parameters and multiply-adds, and the last output volume."""
    return LayerRow(
        layer="total",
        kind="",
        kernel=None,
        stride=None,
        output=rows[-1].output if rows else (),
        parameters=sum(row.parameters for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
    )


def _own_parameters(module: nn.Module) -> dict[str, Any]:
    """The module's parameters without those of modules within it."""
    params = module.variables.get("params", {})
    return {name: value for name, value in params.items() if not isinstance(value, Mapping)}


def _row(
    module: nn.Module, inputs: tuple[int, ...], output: tuple[int, ...], own: dict[str, Any], first: bool
) -> LayerRow:
    kind = type(module).__name__
    kernel = stride = None
    multiply_adds = 0
    # A stock Linen layer has the same fields and parameters as ours and is counted alike.
    if isinstance(module, (layers.Dense, nn.Dense, layers.Conv, nn.Conv, layers.ConvTranspose, nn.ConvTranspose)):
        # Every weight is used once at each position of the output; of the input, where the layer is transposed.
        transposed = isinstance(module, (layers.ConvTranspose, nn.ConvTranspose))
        multiply_adds = math.prod((inputs if transposed else output)[:-1]) * own["kernel"].size
        kernel = own["kernel"].shape[:-2] or None
    elif isinstance(module, (layers.MaxPool, layers.MinPool, layers.AvgPool)):
        kernel = tuple(module.window_shape)
    if kernel is not None:
        stride = geometry.per_dimension(kind, "strides", module.strides, len(kernel))
    return LayerRow(
        layer="/".join(module.path) or kind,
        kind=kind,
        kernel=kernel,
        stride=stride,
        output=output[1:],
        parameters=sum(value.size for value in own.values()) if first else 0,
        multiply_adds=multiply_adds,
    )
