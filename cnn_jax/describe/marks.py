"""Marking the layers of a model while it is traced."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from cnn_jax.describe import kinds

MARK = "cnn_jax.describe "
INTO, OUT_OF = f"{MARK}into ", f"{MARK}out of "


@dataclass(frozen=True)
class Call:
    """One call of a layer: its own parameters, the shapes of its first input and output, and the size of all output."""

    module: nn.Module
    own: Mapping[str, Any]
    inputs: tuple[int, ...]
    output: tuple[int, ...]
    size: int


class Marks:
    """Marks the inputs and outputs of layers, while a model is traced, by operations that change nothing."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self._numbers = itertools.count()
        self._running: list[tuple[str, ...]] = []

    def intercept(self, call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        # A method that a layer calls on itself is part of the running call.
        if module.scope is None or context.method_name == "setup" or module.path in self._running:
            return call(*args, **kwargs)
        own = own_parameters(nn.meta.unbox(module.variables.get("params", {})))
        if not own and not isinstance(module, kinds.KNOWN):
            return call(*args, **kwargs)
        number = str(next(self._numbers))
        (args, kwargs), inputs = _marked((args, kwargs), INTO + number)
        self._running.append(module.path)
        result = call(*args, **kwargs)
        self._running.pop()
        result, output = _marked(result, OUT_OF + number)
        size = sum(getattr(leaf, "size", 0) for leaf in jax.tree.leaves(result))
        self.calls[number] = Call(module, own, inputs, output, size)
        return result


@contextlib.contextmanager
def intercepted(interceptor: Callable[..., Any]) -> Iterator[None]:
    """`flax.linen.intercept_methods` which also ends under `python -O`.

    Flax takes an interceptor off its stack within an assert, which is not carried out there: all that is called later
    would go through it.
    """
    stack: Any = nn.module._global_interceptor_stack
    before = len(stack)
    try:
        with nn.intercept_methods(interceptor):
            yield
    finally:
        while len(stack) > before:
            stack.pop()


def _marked(tree: Any, mark: str) -> tuple[Any, tuple[int, ...]]:
    """The tree with its first array marked, and that array's shape."""
    leaves, structure = jax.tree.flatten(tree)
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, (jax.Array, np.ndarray)):
            leaves[index] = checkpoint_name(leaf, mark)
            return jax.tree.unflatten(structure, leaves), leaf.shape
    return tree, ()


def own_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """A module's parameters without those of modules within it."""
    return {name: value for name, value in params.items() if not isinstance(value, Mapping)}
