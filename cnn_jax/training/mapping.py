"""One function over many replicas, as one program: on which devices, and how on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

AXIS = "replica"


def replica_mesh(count: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices that `count` replicas are spread over, as a mesh of one axis, "replica".

    Each device takes equally many, so the mesh has as many devices as the largest divisor of `count` that is not more
    than there are: 10 replicas use 5 of 8 devices, 7 use one of 4.

    Args:
        count: number of replicas.
        devices: those that may be used; by default the one that was selected (`select_device`), else all of JAX's.
    """
    if devices is None:
        selected = jax.config.jax_default_device
        devices = jax.devices() if selected is None else [selected]
    size = max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)
    return Mesh(list(devices[:size]), (AXIS,))


def map_replicas(function: Callable[..., Any], mesh: Mesh, in_axes: Any = 0) -> Callable[..., Any]:
    """`jax.vmap` over replicas, spread over the devices of a mesh; to be compiled by `jax.jit`.

    On accelerators each device runs `jax.vmap` of its share. On CPU it runs one replica after the other within the one
    program: a convolution mapped over its kernels becomes a grouped convolution, which XLA does slowly there.

    Args:
        function: of arrays (trees of them), returning arrays.
        mesh: from `replica_mesh`.
        in_axes: as for `jax.vmap`, with 0 for arguments (or parts of them) that have a leading replica axis and None
            for those that all replicas share.

    Returns:
        The mapped function; everything it returns has a leading replica axis.
    """
    mapped = jax.tree.map(lambda axis: axis == 0, in_axes, is_leaf=lambda axis: axis is None)

    def one_by_one(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(jax.tree.broadcast(mapped, arguments))
        count = next(len(leaf) for leaf, flag in zip(leaves, flags, strict=True) if flag)
        results = []
        for k in range(count):
            own = [leaf[k] if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]
            results.append(function(*jax.tree.unflatten(structure, own)))
        return jax.tree.map(lambda *parts: jnp.stack(parts), *results)

    specs = jax.tree.map(lambda flag: PartitionSpec(AXIS) if flag else PartitionSpec(), mapped)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    # What a function makes of nothing (a step count of 0) varies over no replica, which shard_map would hold against
    # a scan that adds to it; hence no check of what varies.
    return jax.shard_map(
        one_by_one if on_cpu else jax.vmap(function, in_axes),
        mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False,
    )  # fmt: skip
