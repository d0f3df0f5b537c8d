"""Finding the layers of a model and what they see, by tracing it without computing anything."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import DenyList
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params

from cnn_jax import lowering
from cnn_jax.describe import kinds
from cnn_jax.describe.marks import INTO, MARK, Call, Marks, intercepted, own_parameters
from cnn_jax.describe.primitives import Seen, Weights, passed_on, shape_of
from cnn_jax.describe.receptive import UNKNOWN, Axis, Field, image
from cnn_jax.describe.volumes import LayerRow, Volumes
from cnn_jax.errors import InputError

# What a model may ask besides its input, and what is answered: describe shows the model as it is used.
_FLAGS = {"train": False, "training": False, "is_training": False, "deterministic": True}
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
          "custom_vjp_call", "custom_vjp_call_jaxpr")  # fmt: skip
_POOLS = {"reduce_window_max": "max_pool", "reduce_window_min": "min_pool", "reduce_window_sum": "sum_pool"}


def describe(model: nn.Module, input_shape: Sequence[int]) -> Volumes:
    """The volume table of a model: a row for each call of a layer, found without computing anything.

    Layers are those of `cnn_jax.layers`, Linen's `Conv`, `ConvTranspose` and `Dense`, all other modules with parameters
    of their own, and pools called as functions, ours or Linen's. Of the other modules only the output, its memory, the
    parameters and the receptive field are given. A layer in `nn.scan` or `nn.vmap` is one row for all its copies.

    Args:
      model: a Linen module that maps one float array to an array, or to a tree of them. Where it takes an argument
        train, training, is_training or deterministic, it is called as for use, not for training.
      input_shape: shape of one example, without a batch dimension, e.g. (32, 32, 1): spatial axes and channels.

    Returns:
      The rows in the order in which the layers finish.

    Raises:
      InputError: in one line, for what is no Linen module, a module that needs other arguments, or what is no shape.
      Besides, whatever the model says of an input of this shape.
    """
    arguments = _arguments(model)
    x = jax.ShapeDtypeStruct((1, *_shape(input_shape)), jnp.float32)
    rngs = {"params": jax.random.key(0)}
    variables = jax.eval_shape(lambda x: model.init(rngs, x, **arguments), x)
    marks = Marks()
    # The direct lowering has the operations that receptive fields can be read off.
    with lowering.use("direct"), intercepted(marks.intercept):
        # What is no parameter may change, such as statistics of a model that has no train argument.
        closed = jax.make_jaxpr(
            lambda variables, x: model.apply(variables, x, rngs=rngs, mutable=DenyList("params"), **arguments)
        )(variables, x)
    pixels = tuple(Axis(image(), dim) for dim in range(1, len(input_shape)))
    walk = _Walk(marks.calls, variables.get("params", {}), len(pixels))
    walk.run(closed.jaxpr, [*[Weights()] * (len(closed.jaxpr.invars) - 1), pixels])
    return Volumes(model=type(model).__name__, input=x.shape[1:], rows=walk.finished())


def _arguments(model: Any) -> dict[str, Any]:
    """What a model is called with besides its input."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(f"describe: expected a model, got the class {model.__name__}; build it: {model.__name__}(...)")
    if not isinstance(model, nn.Module) or not callable(model):
        raise InputError(f"describe: expected a Linen module with a __call__, got {type(model).__name__}")
    others = list(inspect.signature(model.__call__).parameters.values())[1:]
    # Where None is the default, the model has been told already.
    arguments = {p.name: _FLAGS[p.name] for p in others if p.name in _FLAGS and p.default is not None}
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in others if p.name not in _FLAGS and p.default is p.empty and p.kind not in free]
    if needed:
        raise InputError(
            f"describe: expected a model called with one array and at most {', '.join(_FLAGS)}, "
            f"got {type(model).__name__}, which needs {', '.join(needed)} too; wrap it in a module that gives them"
        )
    return arguments


def _shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(map(operator.index, input_shape))
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"describe: input_shape must be the shape of one example without a batch, such as (32, 32, 1), "
            f"got {input_shape!r}"
        )
    return shape


class _Walk:
    """Goes through the operations of a traced model, and makes a row where a mark says that a layer has finished."""

    def __init__(self, calls: Mapping[str, Call], params: Mapping[str, Any], axes: int) -> None:
        self.rows: list[LayerRow] = []
        self._calls = calls
        self._uncounted: dict[tuple[str, ...], int] = {}
        self._add(params, ())
        self._unknown = (UNKNOWN,) * axes
        self._inside = 0  # how many known layers are running, whose own pools are no rows
        self._times = 1  # how often the operations at hand are done, in a loop
        self._sums: dict[Any, int] = {}  # rows of pools whose results are sums

    def _add(self, params: Mapping[str, Any], path: tuple[str, ...]) -> None:
        self._uncounted[path] = sum(value.size for value in jax.tree.leaves(own_parameters(params)))
        for name, value in params.items():
            if isinstance(value, Mapping):
                self._add(value, (*path, name))

    def run(self, jaxpr: Jaxpr, operands: Sequence[Seen]) -> list[Seen]:
        """What the results of a traced function see if its arguments see this."""
        seen: dict[Any, Seen] = dict(zip(jaxpr.invars, operands, strict=True))

        def read(variable: Any) -> Seen | None:
            return None if isinstance(variable, Literal) else seen.get(variable)

        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "div" and not isinstance(eqn.invars[0], Literal) and eqn.invars[0] in self._sums:
                row = self._sums.pop(eqn.invars[0])
                self.rows[row] = dataclasses.replace(self.rows[row], layer="avg_pool")
            seen.update(zip(eqn.outvars, self._results(eqn, [read(v) for v in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _results(self, eqn: JaxprEqn, operands: Sequence[Seen]) -> list[Seen]:
        name = eqn.primitive.name
        if name == "name" and eqn.params["name"].startswith(MARK):
            return [self._mark(eqn.params["name"], shape_of(eqn.invars[0]), operands[0])]
        inner = list(jaxprs_in_params(eqn.params))
        if name in _CALLS:
            return self.run(inner[0], operands)
        # Loops and branches: their layers are listed, but what comes round or out of them sees is left open.
        times, self._times = self._times, self._times * eqn.params.get("length", 1) if name == "scan" else self._times
        for jaxpr in inner:
            self.run(jaxpr, [self._unknown] * len(jaxpr.invars))
        self._times = times
        results = passed_on(eqn, operands)
        if name in _POOLS and not self._inside and isinstance(operands[0], tuple):
            self._pool(eqn, results[0])
        return results

    def _mark(self, mark: str, shape: tuple[int, ...], seen: Seen) -> Seen:
        call = self._calls[mark.split()[-1]]
        known = isinstance(call.module, kinds.KNOWN)
        if mark.startswith(INTO):
            self._inside += known
            return seen
        self._inside -= known
        if isinstance(seen, tuple) and not kinds.has_full_window(call.module):
            seen = self._unknown
        # More than the layer has given is there where vmap has added a dimension.
        self._layer(call, math.prod(shape) // max(math.prod(call.output), 1), seen)
        return seen

    def _layer(self, call: Call, copies: int, seen: Seen) -> None:
        times = self._times * copies
        window = kinds.window(call.module, call.inputs, call.own)
        path = call.module.path
        parameters = min(times * sum(value.size for value in jax.tree.leaves(call.own)), self._uncounted.get(path, 0))
        if parameters:
            self._uncounted[path] -= parameters
        counts = kinds.counts(call.module, call.inputs, call.output, call.own)
        dense = counts.dense_parameters
        kind = type(call.module).__name__
        self.rows.append(
            LayerRow(
                layer="/".join(path) or kind,
                kind=kind,
                kernel=None if window is None else window.kernel,
                stride=None if window is None else window.stride,
                padding=None if window is None else window.padding,
                output=call.output[1:],
                parameters=parameters,
                connections=times * counts.connections,
                multiply_adds=times * counts.multiply_adds,
                receptive_field=_fields(seen),
                memory=4 * times * call.size,
                dense_parameters=None if dense is None else times * dense,
            )
        )

    def _pool(self, eqn: JaxprEqn, seen: Seen) -> None:
        """A row for a pool that is no layer; none for windows over channels, which normalise and do not pool."""
        _, *kernel, channels = eqn.params["window_dimensions"]
        if not kernel or channels != 1 or math.prod(kernel) == 1:
            return
        output = shape_of(eqn.outvars[0])
        units = self._times * math.prod(output)
        if eqn.primitive.name == "reduce_window_sum":
            self._sums[eqn.outvars[0]] = len(self.rows)
        self.rows.append(
            LayerRow(
                layer=_POOLS[eqn.primitive.name],
                kind="function",
                kernel=tuple(kernel),
                stride=tuple(eqn.params["window_strides"][1:-1]),
                padding=tuple(eqn.params["padding"][1:-1]),
                output=output[1:],
                connections=units * math.prod(kernel),
                receptive_field=_fields(seen),
                memory=4 * units,
            )
        )

    def finished(self) -> tuple[LayerRow, ...]:
        """The rows, and one more for parameters that no layer was seen to use, so that all are counted."""
        rest = sum(self._uncounted.values())
        if not rest:
            return tuple(self.rows)
        return (*self.rows, LayerRow(layer="elsewhere", kind="", parameters=rest))


def _fields(seen: Seen) -> tuple[Field, ...] | None:
    if not isinstance(seen, tuple):
        return None
    fields = tuple(axis.field for axis in seen if axis.field is not None and not axis.parts)
    return fields if fields and len(fields) == len(seen) else None
