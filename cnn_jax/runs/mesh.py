"""One seed on several devices: a mesh of them, what lies where on it, and how its batches are divided.

Rows of a batch are divided over both axes of the mesh, "data" and "fsdp"; each device holds all images of a resident
set and takes its own rows of a batch from them. Kernels from a size on are divided over "fsdp" (`RULES`), and so is
what the optimiser and averages keep of them; all else is the same on every device.

Each device takes the gradient of its own rows (`jax.shard_map`), with the lowerings of `cnn_jax.lowering` as on one
device alone, and adds up those of the parts of a batch; the sums are then added up over the devices, once a step and in
float32. `nn.BatchNorm` takes its statistics over the same groups of rows as on one device: those of groups that several
devices share are averaged over these. Everything else is divided by XLA, and so is the gradient of a model that
joins examples in other ways, or draws random numbers for a whole batch: the results are the same then, but XLA adds up
gradients in the model's precision and for each part of a batch. XLA takes its own operations in what it divides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_jax.errors import InputError
from cnn_jax.runs import hosts
from cnn_jax.runs.devices import batch_devices
from cnn_jax.runs.execution import Execution, MeshShape
from cnn_jax.runs.layout import Jit, Layout, TrainStep, TrainSteps
from cnn_jax.runs.placing import from_own, own_places, put
from cnn_jax.runs.replicas import Replicas
from cnn_jax.training.gradients import LossOfBatch, of_batch
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.state import TrainState, path_of
from cnn_jax.training.step import Batch, Metrics

DATA, FSDP = AXES = "data", "fsdp"
Joins = Literal["nothing", "norms", "anything"]
"""What joins the examples of a batch in training: nothing, statistics of `nn.BatchNorm` alone, or who knows what."""


@dataclass(frozen=True)
class Rule:
    """Which arrays of a state are divided over "fsdp"."""

    pattern: str
    """Regular expression, looked for in an array's path, such as params/block_1/conv_1/kernel."""
    least: int
    """Numbers that the array has at the least."""
    axes: tuple[int, ...]
    """The first of these that the devices divide evenly is divided; if none is, the array is not."""


# By the first that fits; what no rule fits is whole on every device. The state of an optimiser and an average have the
# paths of the parameters at the end of their own, and so their rule. Output channels first: no product is split.
RULES = (Rule(r"(^|/)kernel$", 2**16, (-1, -2)),)


def choose_layout(recipe: Recipe, execution: Execution, image_shape: tuple[int, ...], count: int = 1) -> Layout:
    """Where a run is trained.

    Args:
        recipe: what is trained.
        execution: its `mesh`; where there is none, one seed takes as many devices as divide its batches evenly.
        image_shape: (height, width, channels) of one image as the model takes it.
        count: number of seeds; several are spread over the devices, and their batches are not divided.

    Raises:
        InputError: there is a mesh for several seeds, for a recipe with a selection, of more devices than there are,
            or of a number of them that cannot divide a batch evenly.
    """
    shape = MeshShape.parse(execution.mesh) if execution.mesh else None
    if count > 1:
        if shape is not None:
            raise InputError(
                f"mesh: expected none with {count} seeds, which are spread over the devices, got {execution.mesh!r}"
            )
        return Replicas(count)
    devices, several = batch_devices(), hosts.count() > 1
    if several:
        _check_hosts(recipe, shape, devices, execution)
    if shape is not None and shape.size > len(devices):
        more = f" (JAX_NUM_CPU_DEVICES={shape.size} makes as many of a CPU)" if devices[0].platform == "cpu" else ""
        raise InputError(
            f"mesh: expected no more devices than the {len(devices)} that JAX sees, got {execution.mesh!r}{more}"
        )
    if recipe.selection and shape is not None and shape.size > 1:
        raise InputError(
            f"mesh: expected data=1 with a selection, which picks from whole batches, got {execution.mesh!r}"
        )
    most = 1 if recipe.selection else len(devices) if shape is None else shape.size
    if most == 1:
        return Layout()
    joins = what_joins(recipe.model, image_shape)
    if shape is None:
        sizes = [most] if several else range(most, 0, -1)
        shape = next((MeshShape(data=n) for n in sizes if n == 1 or divide(recipe, n, joins)), MeshShape(data=most))
    division = divide(recipe, shape.size, joins)
    if division is None:
        rows = recipe.norm_batch or recipe.batch_size // recipe.accumulate
        norms = f", each with whole groups of {rows} rows or equal parts of one" if joins == "norms" else ""
        raise InputError(
            f"mesh: expected a number of devices that divides the batch_size, {recipe.batch_size}{norms}, "
            f"got {execution.mesh or f'{shape} of {hosts.count()} processes'!r}"
        )
    return Layout() if shape.size == 1 else Division(shape, devices[: shape.size], division)


def _check_hosts(recipe: Recipe, shape: MeshShape | None, devices: Sequence[jax.Device], execution: Execution) -> None:
    """InputError for what several processes cannot do: all of their devices are to have a part of every batch."""
    if recipe.selection:
        raise InputError("processes: expected 1 with a selection, which picks from whole batches, got several")
    if len({device.process_index for device in devices}) < hosts.count():
        raise InputError(f"device: expected a platform with several processes, as cpu or gpu, got {execution.device!r}")
    if shape is not None and shape.size != len(devices):
        raise InputError(
            f"mesh: expected all {len(devices)} devices of the {hosts.count()} processes, got {execution.mesh!r}"
        )


def what_joins(model: nn.Module, image_shape: tuple[int, ...]) -> Joins:
    """What joins the examples of a batch in training, as far as a trace of the model tells.

    A model with no statistics of batches that draws no random numbers is taken to treat each example alone.
    """
    if getattr(model, "per_example", False):
        return "nothing"
    norms = set()

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm):
            norms.add("/".join(context.module.path))
        return call(*args, **kwargs)

    def run(images: jax.Array) -> Any:
        variables = model.init(jax.random.key(0), images, train=False)
        model.apply(variables, images, train=True, mutable=["batch_stats"])
        return variables.get("batch_stats", {})

    try:
        with nn.intercept_methods(note):
            statistics = jax.eval_shape(run, jax.ShapeDtypeStruct((2, *image_shape), jnp.float32))
    except flax.errors.InvalidRngError:  # it draws
        return "anything"
    paths = [path_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(statistics)[0]]
    if not {path.rpartition("/")[0] for path in paths} <= norms:
        return "anything"
    return "norms" if paths else "nothing"


@dataclass(frozen=True)
class Share:
    """How the rows that a device has of each batch are worked on.

    Attributes:
        parts: number of parts that they are taken in, one after the other.
        together: number of devices next to each other that share the statistics of norms.
        alone: whether a device takes the gradient of its rows itself; otherwise XLA divides it.
    """

    parts: int = 1
    together: int = 1
    alone: bool = True


def divide(recipe: Recipe, devices: int, joins: Joins) -> Share | None:
    """How batches are divided over that many devices, each having consecutive rows; None if not evenly.

    Groups of rows that share statistics of norms stay whole on a device, or are whole devices' rows. With that, no
    device has more rows in memory at a time than `accumulate` allows one device alone.
    """
    rows, rest = divmod(recipe.batch_size, devices)
    if rest:
        return None
    if joins == "anything":
        return Share(alone=False)
    group = recipe.norm_batch or recipe.batch_size // recipe.accumulate
    if joins == "nothing":
        group = 1
    if group > rows:
        return Share(together=group // rows) if group % rows == 0 else None
    if rows % group:
        return None
    groups = rows // group
    fewest = min(recipe.accumulate, groups)
    return Share(parts=next(n for n in range(fewest, groups + 1) if groups % n == 0))


def shardings(mesh: jax.sharding.Mesh, tree: Any) -> Any:
    """Where the arrays of a state lie on a mesh, by `RULES`: a tree of `NamedSharding`."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(mesh, path, leaf)), tree)


def _spec(mesh: jax.sharding.Mesh, path: Any, leaf: Any) -> PartitionSpec:
    name, size = path_of(path), mesh.shape[FSDP]
    rule = next((rule for rule in RULES if re.search(rule.pattern, name)), None)
    if size == 1 or rule is None or math.prod(leaf.shape) < rule.least:
        return PartitionSpec()
    axis = next((axis for axis in rule.axes if -axis <= leaf.ndim and leaf.shape[axis] % size == 0), None)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * (leaf.ndim + axis), FSDP)


class Division(Layout):
    """One seed on a mesh of devices.

    Args:
        shape: of the mesh.
        devices: as many.
        share: how each works on its rows.
    """

    def __init__(self, shape: MeshShape, devices: Sequence[jax.Device], share: Share):
        self.shape, self.share_of_rows = shape, share
        kinds = (AxisType.Auto,) * len(AXES)
        self.mesh = jax.make_mesh((shape.data, shape.fsdp), AXES, axis_types=kinds, devices=devices)
        self._axes = tuple(axis for axis in AXES if self.mesh.shape[axis] > 1)
        self._everywhere = NamedSharding(self.mesh, PartitionSpec())
        self._gather = self._in_turn(jax.jit(lambda tree: tree, out_shardings=self._everywhere))

    @property
    def platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    @property
    def where(self) -> str:
        several = f" of {hosts.count()} processes" if hosts.count() > 1 else ""
        return f"{self.mesh.size} {self.platform} devices{several} ({self.shape})"

    def share(self, tree: Any) -> Any:
        return put(tree, self._everywhere)

    def rows(self, arrays: Sequence[np.ndarray], after: int = 0) -> Any:
        return put(arrays[0], self._by_rows(arrays[0].ndim - 1 - after))

    def _by_rows(self, before: int) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*[None] * before, AXES))

    def own_rows(self, rows: int) -> np.ndarray | None:
        if hosts.count() == 1:
            return None
        return own_places(self._by_rows(0), rows)

    def own_to_rows(self, arrays: Sequence[np.ndarray], after: int, rows: int) -> Any:
        own, array = self.own_rows(rows), arrays[0]
        axis = array.ndim - 1 - after
        return self.rows(arrays, after) if own is None else from_own(array, own, self._by_rows(axis), axis, rows)

    def fetch(self, tree: Any) -> Any:
        several = hosts.count() > 1
        return jax.device_get(self._gather(tree) if several else tree)

    def whole(self, rows: int) -> int:
        return -(-rows // self.mesh.size) * self.mesh.size

    def place(self, state: TrainState) -> TrainState:
        return put(state, shardings(self.mesh, state))

    def divided(self, train_step: TrainStep) -> TrainStep:
        by_rows = NamedSharding(self.mesh, PartitionSpec(AXES))

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            numbers = {name: batch[name] for name in batch if name == "numbers"}  # of the whole batch
            rows = {name: batch[name] for name in batch if name not in numbers}
            state, metrics = train_step(state, jax.lax.with_sharding_constraint(rows, by_rows) | numbers)
            return jax.lax.with_sharding_constraint(state, shardings(self.mesh, state)), metrics

        return step

    def gathered(self, variables: dict[str, Any]) -> dict[str, Any]:
        # By itself XLA may leave kernels divided and gather what lies between layers, many times as much.
        return jax.lax.with_sharding_constraint(variables, self._everywhere)

    def compile(self, function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Any:
        return self._in_turn(super().compile(function, in_axes))

    def compile_light(self, function: Callable[..., Any]) -> Any:
        return self._in_turn(super().compile_light(function))

    def compile_steps(self, train_steps: TrainSteps, jit: Jit) -> Any:
        return self._in_turn(super().compile_steps(train_steps, jit))

    def _in_turn(self, compiled: Any) -> Any:
        return _InTurn(compiled) if self.platform == "cpu" else compiled

    def gradient(
        self, function: LossOfBatch, params: Any, batch: Any, per_example: bool, accumulate: int = 1
    ) -> tuple[tuple[jax.Array, Any], Any]:
        """As `of_batch`: what each device finds of its own rows, averaged over the devices."""
        share, specs = self.share_of_rows, jax.tree.map(lambda found: found.spec, shardings(self.mesh, params))
        if not share.alone:
            return of_batch(function, params, batch, per_example, accumulate)

        def local(params: Any, batch: Any) -> tuple[tuple[jax.Array, Any], Any]:
            whole = jax.tree.map(_gathered, params, specs)
            with _shared_statistics(share.together, self.mesh.size):
                found, grads = of_batch(function, whole, batch, per_example, share.parts)
            values, restore = ravel_pytree(found)
            grads = jax.tree.map(self._added, grads, specs)
            mean = restore(jax.lax.pmean(values, self._axes))
            return mean, jax.tree.map(lambda grad: grad / self.mesh.size, grads)

        return jax.shard_map(
            local, mesh=self.mesh, in_specs=(specs, PartitionSpec(AXES)), out_specs=(PartitionSpec(), specs),
            check_vma=False,  # in types that say what varies JAX would add up the gradients of each part
        )(params, batch)  # fmt: skip

    def _added(self, grad: jax.Array, spec: PartitionSpec) -> jax.Array:
        """A gradient added up over all devices; of one that is divided over "fsdp", each device's own stretch."""
        if FSDP not in spec:
            return jax.lax.psum(grad, self._axes)
        axis = spec.index(FSDP)
        if self.platform == "cpu" and hosts.count() > 1:
            # There JAX 0.10 scatters by Gloo, which from 8 MiB a device on sometimes sums wrongly, and ends a process
            # that waits for another for 30 seconds (jax issues 40830 and 40831).
            length = grad.shape[axis] // self.mesh.shape[FSDP]
            start = jax.lax.axis_index(FSDP) * length
            return jax.lax.dynamic_slice_in_dim(jax.lax.psum(grad, self._axes), start, length, axis)
        grad = jax.lax.psum_scatter(grad, FSDP, scatter_dimension=axis, tiled=True)
        return jax.lax.psum(grad, DATA) if DATA in self._axes else grad


class _InTurn:
    """A compiled program that is over when its call is.

    The devices of a CPU share its threads. Where calls of programs wait in line, some devices can take all threads to
    wait for others that have none left to come: XLA then ends the process after 40 seconds.
    """

    def __init__(self, compiled: Any):
        self._compiled, self.lower = compiled, compiled.lower

    def __call__(self, *arguments: Any) -> Any:
        return jax.block_until_ready(self._compiled(*arguments))


def _gathered(param: jax.Array, spec: PartitionSpec) -> jax.Array:
    """A parameter as a whole."""
    return jax.lax.all_gather(param, FSDP, axis=spec.index(FSDP), tiled=True) if FSDP in spec else param


def _shared_statistics(together: int, devices: int) -> AbstractContextManager[Any]:
    """Meanwhile each `nn.BatchNorm` averages its statistics over so many devices next to each other."""
    groups = None if together == devices else np.arange(devices).reshape(-1, together).tolist()

    def call(norm: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if together > 1 and isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            # These are fields of the module, which is frozen but made for this call alone.
            object.__setattr__(context.module, "axis_name", AXES)
            object.__setattr__(context.module, "axis_index_groups", groups)
        return norm(*args, **kwargs)

    return nn.intercept_methods(call)
