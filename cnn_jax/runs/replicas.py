"""Several seeds: on which devices they are trained, and how several of them share one.

On accelerators each device runs `jax.vmap` of its share of the replicas. On CPU it takes them one after the other: a
convolution mapped over its kernels becomes a grouped convolution, and the arrays of all replicas together leave the
caches. LeNet-5, batch 64, ten replicas, images a second of CPU time: one after the other 10,500, mapped 6,100.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_jax.runs.devices import usable_devices
from cnn_jax.runs.layout import Jit, Layout, TrainSteps
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Metrics

AXIS = "replica"


def replica_mesh(count: int) -> Mesh:
    """The devices that `count` replicas are spread over, as a mesh of one axis, "replica".

    Each takes equally many, so of the `usable_devices` there are as many as the largest divisor of `count` allows: 10
    replicas use 5 of 8 devices, 7 use one of 4.
    """
    devices = usable_devices()
    size = max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)
    return Mesh(np.array(devices[:size]), (AXIS,))


def map_replicas(function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Callable[..., Any]:
    """`jax.vmap` over replicas, spread over the devices of their `replica_mesh`; to be compiled by `jax.jit`.

    Args:
        function: of arrays (trees of them), returning arrays.
        in_axes: as for `jax.vmap`, an entry an argument: 0 for what has a leading replica axis, None for what all
            replicas share.

    Returns:
        The mapped function; everything it returns has a leading replica axis.
    """
    own = jax.tree.map(lambda axis: axis == 0, in_axes, is_leaf=lambda axis: axis is None)
    specs = jax.tree.map(lambda is_own: PartitionSpec(AXIS) if is_own else PartitionSpec(), own)

    def flatten(arguments: tuple[Any, ...]) -> tuple[list[jax.Array], list[bool], Any]:
        leaves, structure = jax.tree.flatten(arguments)
        return leaves, jax.tree.leaves(jax.tree.broadcast(own, arguments)), structure

    def one_by_one(*arguments: Any) -> Any:
        leaves, is_own, structure = flatten(arguments)

        def one(parts: list[jax.Array]) -> Any:
            rest = iter(parts)
            picked = [next(rest) if mine else leaf for leaf, mine in zip(leaves, is_own, strict=True)]
            return function(*jax.tree.unflatten(structure, picked))

        return jax.lax.map(one, [leaf for leaf, mine in zip(leaves, is_own, strict=True) if mine])

    def over_devices(*arguments: Any) -> Any:
        leaves, is_own, _ = flatten(arguments)
        mesh = replica_mesh(next(len(leaf) for leaf, mine in zip(leaves, is_own, strict=True) if mine))
        mapped = one_by_one if _on_cpu(mesh) else jax.vmap(function, in_axes)
        return _shard(mapped, mesh, specs)(*arguments)

    return over_devices


class Replicas(Layout):
    """Several seeds, spread over a `replica_mesh`.

    States and whatever else is of each seed have a leading axis of them, spread over the devices.

    Args:
        count: number of seeds.
    """

    def __init__(self, count: int):
        self.count, self.mesh = count, replica_mesh(count)
        self._everywhere = NamedSharding(self.mesh, PartitionSpec())
        self._own = NamedSharding(self.mesh, PartitionSpec(AXIS))

    @property
    def platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    def share(self, tree: Any) -> Any:
        return jax.device_put(tree, self._everywhere)

    def spread(self, arrays: Sequence[np.ndarray]) -> Any:
        return jax.device_put(np.stack(arrays), self._own)

    def place(self, state: TrainState) -> TrainState:
        return jax.device_put(state, self._own)

    def compile(self, function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Any:
        return jax.jit(map_replicas(function, in_axes))

    def compile_light(self, function: Callable[..., Any]) -> Any:
        return jax.jit(jax.vmap(function), out_shardings=self._own)

    def compile_steps(self, train_steps: TrainSteps, jit: Jit) -> Any:
        """As `Layout.compile_steps`; metrics are (seeds, steps).

        On CPU the seeds take turns: a call of one program each, for the next seed of every device. So each runs at
        the speed of one alone, whatever the model: one after the other inside the program, the gradients of Flax's own
        convolutions are many times slower; and unrolled, the program takes as many times longer to compile.
        """
        if _on_cpu(self.mesh):
            return _Turns(train_steps, self.mesh, self.count, jit)
        return jit(map_replicas(train_steps, (0, (None, 0), None)), donate_argnums=0)

    def split(self, tree: Any) -> list[Any]:
        return [jax.tree.map(lambda leaf, k=k: leaf[k], tree) for k in range(self.count)]


class _Turns:
    """`Replicas.compile_steps` on CPU."""

    def __init__(self, train_steps: TrainSteps, mesh: Mesh, count: int, jit: Jit):
        def turn(
            states: TrainState, chunk: tuple[Any, Any], steps: jax.Array, k: jax.Array
        ) -> tuple[TrainState, Metrics]:
            def pick(leaf: jax.Array) -> jax.Array:
                return jax.lax.dynamic_index_in_dim(leaf, k, keepdims=False)

            def put(leaf: jax.Array, value: jax.Array) -> jax.Array:
                return jax.lax.dynamic_update_index_in_dim(leaf, value, k, axis=0)

            shared, own = chunk
            # The barriers keep gathering and scattering out of the steps' own loops, which they would slow down.
            state, own = jax.lax.optimization_barrier(jax.tree.map(pick, (states, own)))
            state, metrics = jax.lax.optimization_barrier(train_steps(state, (shared, own), steps))
            return jax.tree.map(put, states, state), jax.tree.map(lambda values: values[None], metrics)

        def collect(parts: list[Metrics]) -> Metrics:
            """(devices, steps, ...) of each turn, to (replicas, steps, ...)."""

            def join(*values: jax.Array) -> jax.Array:
                return jnp.stack(values, axis=1).reshape(count, *values[0].shape[1:])

            return jax.tree.map(join, *parts)

        own, everywhere = PartitionSpec(AXIS), PartitionSpec()
        self._turns = range(count // mesh.size)
        specs = (own, (everywhere, own), everywhere, everywhere)
        self._turn = jit(_shard(turn, mesh, specs), donate_argnums=0)
        self._collect = jax.jit(collect, out_shardings=NamedSharding(mesh, own))

    def __call__(self, states: TrainState, chunk: tuple[Any, Any], steps: jax.Array) -> tuple[TrainState, Metrics]:
        parts = []
        for k in self._turns:
            states, metrics = self._turn(states, chunk, steps, np.int32(k))
            parts.append(metrics)
        return states, self._collect(parts)

    def lower(self, *arguments: Any) -> Any:
        """The program of a turn."""
        return self._turn.lower(*arguments, np.int32(0))


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def _shard(function: Callable[..., Any], mesh: Mesh, in_specs: Any) -> Callable[..., Any]:
    # What a function makes of nothing (a step count of 0) varies over no replica, which shard_map would hold against
    # a scan that adds to it; hence no check of what varies.
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=PartitionSpec(AXIS), check_vma=False)
