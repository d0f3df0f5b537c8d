"""Arrays of several processes: from what each of them has, and back to it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax.runs import hosts


def put(tree: Any, where: Any) -> Any:
    """`jax.device_put`, also of arrays that each of several processes has whole and equal: it puts its own part.

    Args:
        tree: of NumPy arrays, or JAX's.
        where: a sharding for each, or one for all.
    """
    if hosts.count() == 1:
        return jax.device_put(tree, where)
    if isinstance(where, NamedSharding):
        return jax.tree.map(lambda leaf: _put(leaf, where), tree)
    return jax.tree.map(_put, tree, where)


def _put(leaf: Any, where: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, where)
    if _is_key(leaf):
        bits = _put(jax.random.key_data(leaf), where)
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, where, lambda place: values[place])


def own_places(where: NamedSharding, rows: int) -> np.ndarray:
    """Which of so many rows this process has on its devices: int (n,), ascending.

    Args:
        where: how an array of one axis is divided.
        rows: its length.
    """
    places = where.addressable_devices_indices_map((rows,)).values()
    return np.unique(np.concatenate([np.arange(rows)[place] for place in places]))


def from_own(array: np.ndarray, own: np.ndarray, where: NamedSharding, axis: int, rows: int) -> jax.Array:
    """An array of so many rows along an axis, of which each process gives its `own_places` alone."""

    def part(place: Any) -> np.ndarray:
        return np.take(array, np.searchsorted(own, np.arange(rows)[place[axis]]), axis)

    return jax.make_array_from_callback((*array.shape[:axis], rows, *array.shape[axis + 1 :]), where, part)


def whole(leaf: Any) -> np.ndarray:
    """An array of which this process has every part; of a typed random key, its numbers.

    Raises:
        ValueError: it lacks one, see `gathered`.
    """
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    if not _has_all(leaf):
        raise ValueError("parts of the array are in other processes alone")
    joined = np.empty(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        joined[shard.index] = shard.data
    return joined


def gathered(tree: Any) -> Any:
    """The tree with arrays that `whole` takes, where those before are divided over processes.

    All processes are to call this at the same time. One array after another is whole on each device for a moment.
    """
    return jax.tree.map(lambda leaf: leaf if _has_all(leaf) else np.asarray(_everywhere(leaf)), tree)


def _everywhere(leaf: jax.Array) -> jax.Array:
    return jax.block_until_ready(_gatherer(leaf.sharding.mesh)(leaf))  # type: ignore[attr-defined]


@functools.cache
def _gatherer(mesh: jax.sharding.Mesh) -> Any:
    """Kept, as it is compiled for each shape that it is called with."""
    return jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _has_all(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return True
    parts = {
        tuple((place.start, place.stop) for place in shard.index): shard.data.size for shard in leaf.addressable_shards
    }
    return sum(parts.values()) == leaf.size


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
