"""One function over many replicas, as one program: on which devices, and how on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

AXIS = "replica"


def replica_mesh(count: int) -> Mesh:
    """The devices that `count` replicas are spread over, as a mesh of one axis, "replica".

    They are taken from the one device that was selected (`select_device`), else from all of JAX's. Each takes equally
    many replicas, so there are as many as the largest divisor of `count` allows: 10 replicas use 5 of 8 devices, 7
    use one of 4.
    """
    selected = jax.config.jax_default_device
    devices = jax.devices() if selected is None else [selected]
    size = max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)
    return Mesh(np.array(devices[:size]), (AXIS,))


def map_replicas(function: Callable[..., Any], in_axes: tuple[Any, ...]) -> Callable[..., Any]:
    """`jax.vmap` over replicas, spread over the devices of their `replica_mesh`; to be compiled by `jax.jit`.

    On accelerators each device runs `jax.vmap` of its share. On CPU it runs one replica after the other within the one
    program: a convolution mapped over its kernels becomes a grouped convolution, which XLA does slowly there.

    Args:
        function: of arrays (trees of them), returning arrays.
        in_axes: as for `jax.vmap`, an entry an argument: 0 for what has a leading replica axis, None for what all
            replicas share.

    Returns:
        The mapped function; everything it returns has a leading replica axis.
    """
    own = jax.tree.map(lambda axis: axis == 0, in_axes, is_leaf=lambda axis: axis is None)
    specs = jax.tree.map(lambda is_own: PartitionSpec(AXIS) if is_own else PartitionSpec(), own)

    def split(arguments: tuple[Any, ...]) -> tuple[int, Callable[[int], tuple[Any, ...]]]:
        """How many replicas there are, and the arguments of one."""
        leaves, structure = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(jax.tree.broadcast(own, arguments))
        count = next(len(leaf) for leaf, is_own in zip(leaves, flags, strict=True) if is_own)
        pairs = list(zip(leaves, flags, strict=True))
        return count, lambda k: jax.tree.unflatten(structure, [leaf[k] if is_own else leaf for leaf, is_own in pairs])

    def one_by_one(*arguments: Any) -> Any:
        count, pick = split(arguments)
        return jax.tree.map(lambda *parts: jnp.stack(parts), *(function(*pick(k)) for k in range(count)))

    def over_devices(*arguments: Any) -> Any:
        mesh = replica_mesh(split(arguments)[0])
        on_cpu = mesh.devices.flat[0].platform == "cpu"
        # What a function makes of nothing (a step count of 0) varies over no replica, which shard_map would hold
        # against a scan that adds to it; hence no check of what varies.
        return jax.shard_map(
            one_by_one if on_cpu else jax.vmap(function, in_axes),
            mesh=mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False,
        )(*arguments)  # fmt: skip

    return over_devices
