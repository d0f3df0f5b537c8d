"""Whether a run fits, judged before it begins: its numbers into what counts them, its arrays into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import data
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.source import Source
from cnn_jax.errors import InputError
from cnn_jax.parts import text
from cnn_jax.runs import hosts
from cnn_jax.runs.calls import count_per_call
from cnn_jax.runs.devices import current_device, usable_devices
from cnn_jax.runs.execution import Execution, Feed
from cnn_jax.training.evaluation import input_size
from cnn_jax.training.recipe import Recipe

_PIXEL = 1 + 4  # bytes: of a batch as it is stored, and normalised
_INDEX = 8  # bytes of the number of an image in the order of the images
_SHARE = 0.5  # of the free memory, what images may take that stay in it
_COPIES = 2  # of the parameters: themselves and their gradients; what the optimiser keeps comes on top
_SELDOM = 1000  # by what factor parameters and activations may be more than the images of a batch, hardly ever reached
# Where cgroups, of version 2 and 1, say how much memory the processes of a container may have.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_fits(
    recipe: Recipe, execution: Execution, images: int, image_shape: tuple[int, int, int], replicas: int = 1
) -> None:
    """Refuses a run that cannot fit, by what it needs at the least: what passes may still need more than there is.

    Args:
        recipe: network, lengths and batch size.
        execution: steps a call.
        images: number of training images.
        image_shape: (height, width, channels) of one image, before it is augmented.
        replicas: how many seeds are trained together.

    Raises:
        InputError: there would be more steps than are counted, or the batches and seeds need more memory than is free.
    """
    recipe.count_steps(images)
    free = free_memory()
    if free is None:
        return
    an_image = _PIXEL * math.prod(image_shape) + _INDEX * count_per_call(recipe, execution, images)
    a_seed = _INDEX * images
    if _SELDOM * replicas * (a_seed + recipe.batch_size * an_image) <= free:  # no need to trace the model
        return
    parameters, activations = _sizes(recipe.model, recipe.trained_shape(image_shape))
    per_example = getattr(recipe.model, "per_example", False) and current_device().platform == "cpu"  # taken in tiles
    an_image += 0 if per_example else activations
    a_seed += _COPIES * parameters
    needed = replicas * (a_seed + recipe.batch_size * an_image)
    if needed <= free:
        return
    most = free // (a_seed + an_image)
    if replicas > most:
        option, value, what = "replicas", replicas, "seeds"
    else:
        option, value, what = "batch_size", recipe.batch_size, "images a step"
        most = (free // replicas - a_seed) // an_image
    raise _too_much(option, value, what, needed, free, most)


def reading(source: Source, image_size: tuple[int, int], feed: Feed) -> Source:
    """The source as a feed needs it: its images stay encoded where they are streamed, or do not fit.

    Args:
        source: where the images come from.
        image_size: (height, width) that it is asked to bring them to.
        feed: as `Execution` has it.

    Raises:
        InputError: the feed is to be resident, and the source always streams.
    """
    if feed == "resident" and source.streams:
        raise InputError(f"feed: expected streamed, as the images of {text(source)} always are; got resident")
    if feed == "resident" or source.streams:
        return source
    free, encoded = host_memory(), source.encoded()

    def fits() -> bool:  # asked of what keeps its list of files
        return free is None or encoded.decoded_bytes(image_size) <= _SHARE * free

    return source if feed == "auto" and hosts.agree(fits) else encoded


def settle_feed(execution: Execution, recipe: Recipe, splits: Sequence[data.Dataset | None]) -> Execution:
    """The execution with its feed settled: streamed if images are encoded, or all together do not fit the device."""
    if execution.feed != "auto":
        return execution
    needed = 0
    for split in filter(None, splits):
        height, width = input_size(recipe.model, split.images)
        needed += len(split) * height * width * split.images.shape[-1]
    free = free_memory()
    streams = any(split is not None and isinstance(split.images, Encoded) for split in splits)
    streams = streams or (free is not None and needed > _SHARE * free)
    return dataclasses.replace(execution, feed="streamed" if streams else "resident")


def check_count(option: str, count: int, what: str, each: int) -> None:
    """InputError if that many items, of at least that many bytes each, need more memory than the host has free."""
    free = host_memory()
    if free is not None and count * each > free:
        raise _too_much(option, count, what, count * each, free, free // each)


def _too_much(option: str, value: int, what: str, needed: int, free: int, most: int) -> InputError:
    return InputError(
        f"{option}: {value:,} {what} need at least {needed / 2**30:,.1f} GiB of memory, of which {free / 2**30:,.1f} "
        f"are free; expected at most {max(most, 0):,}"
    )


@contextlib.contextmanager
def short_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turns running out of memory, which shows only when it happens, into an InputError that says what to do."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise InputError(
            f"not enough memory for this network at batch_size {recipe.batch_size:,}; take a smaller one, or fewer "
            f"replicas ({' '.join(str(error).split())[:200]})"
        ) from error


def free_memory() -> int | None:
    """Bytes that new arrays may take where JAX puts them; None where nobody says."""
    device = current_device()
    if device.platform == "cpu":
        return host_memory()
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    # What others of the same kind have goes to the replicas too.
    return None if limit is None else len(usable_devices()) * limit - stats.get("bytes_in_use", 0)


def host_memory() -> int | None:
    """Bytes that this process may still take of the machine's memory; None where nobody says."""
    found = [_available(), *map(_limit, _LIMITS)]
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    found.append(None if soft == resource.RLIM_INFINITY else soft)
    return min((size for size in found if size is not None), default=None)


def _available() -> int | None:
    """What the system could give, including its file cache; elsewhere than on Linux, all memory."""
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _limit(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        return int(Path(path).read_text())
    return None


@functools.lru_cache(maxsize=8)
def _sizes(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes of the parameters, and of half of what the layers give for one image.

    Backpropagation needs most outputs of layers again; some are computed again instead.
    """
    seen: dict[int, int] = {}

    def run(image: jax.Array) -> dict[str, Any]:
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        variables = dict(model.init(rngs, image, capture_intermediates=True))
        for leaf in jax.tree.leaves(variables.pop("intermediates", {})):
            seen[id(leaf)] = leaf.size * leaf.dtype.itemsize  # a block gives what its last layer gave: counted once
        return variables

    variables = jax.eval_shape(run, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables)), sum(seen.values()) // 2
