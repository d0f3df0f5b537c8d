"""Where a run is trained, as an engine needs to know it: here, one seed on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax.runs.devices import current_device
from cnn_jax.training import gradients
from cnn_jax.training.gradients import TakeGradient
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Batch, Metrics

TrainSteps = Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]
"""As `make_train_steps` returns it: (state, chunk, count) -> (state, metrics)."""
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""As `make_train_step` returns it."""
Jit = Callable[..., Any]
"""`jax.jit`, or its stand-in."""


class Layout:
    """One seed on one device: everything is where JAX puts it. The base of what there is for more of either.

    Attributes:
        gradient: takes the gradient of a batch, as `gradients.of_batch`.
    """

    gradient: TakeGradient = staticmethod(gradients.of_batch)

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu", "tpu"."""
        return current_device().platform

    @property
    def where(self) -> str:
        """The devices in words, for "trained on ..."."""
        return self.platform

    def share(self, tree: Any) -> Any:
        """Puts arrays where every seed and every part of a batch can read them."""
        return jax.device_put(tree)

    def spread(self, arrays: Sequence[np.ndarray]) -> Any:
        """An array of each seed, all of one shape: where that seed is trained, behind an axis if there are several."""
        return arrays[0]

    def rows(self, arrays: Sequence[np.ndarray], after: int = 0) -> Any:
        """The same of arrays with an axis of rows, `whole` in length: each row where it is worked on.

        That many axes come after it, of what a row is.
        """
        return self.spread(arrays)

    def own_rows(self, rows: int) -> np.ndarray | None:
        """Which rows of that many, `whole` in number, this process has to provide; None where it is all."""
        return None

    def own_to_rows(self, arrays: Sequence[np.ndarray], after: int, rows: int) -> Any:
        """As `rows`, of arrays that have none but the rows that `own_rows` names."""
        return self.rows(arrays, after)

    def whole(self, rows: int) -> int:
        """The fewest rows, that many or more, that can be divided over the devices."""
        return rows

    def place(self, state: TrainState) -> TrainState:
        """A new state, to where it is trained."""
        return state

    def divided(self, train_step: TrainStep) -> TrainStep:
        """A train step that takes rows where `rows` put them, and leaves the state where `place` does."""
        return train_step

    def gathered(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Variables, as an evaluation step is to have them."""
        return variables

    def compile(self, function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Any:
        """Compiles what is to be done for each seed; `in_axes` says which arguments have the axis, as `jax.vmap`."""
        return jax.jit(function)

    def compile_light(self, function: Callable[..., Any]) -> Any:
        """Compiles what is to be done for each seed, if all arguments have the axis and there is little to do."""
        return jax.jit(function)

    def compile_steps(self, train_steps: TrainSteps, jit: Jit) -> Any:
        """Compiles train steps, as `make_train_steps` returns them, by `jit`; the states given are used up.

        Returns:
            The same, as `jax.jit` would return it. Of the chunk, which is a pair, the second part has the axis of
            seeds. Metrics are (steps,), or (seeds, steps) of several.
        """
        return jit(train_steps, donate_argnums=0)

    def fetch(self, tree: Any) -> Any:
        """A tree of arrays on the devices, as NumPy arrays."""
        return jax.device_get(tree)

    def split(self, tree: Any) -> list[Any]:
        """What each seed has of a tree of NumPy arrays."""
        return [tree]
