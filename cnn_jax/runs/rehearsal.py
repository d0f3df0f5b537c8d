"""What a run would be, found out by compiling it: nothing is trained and nothing written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax

from cnn_jax import data
from cnn_jax.runs.capacity import settle_feed
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.execution import Execution
from cnn_jax.training.recipe import Recipe


def rehearse(
    recipe: Recipe, train: data.Dataset, test: data.Dataset, seeds: Sequence[int], execution: Execution
) -> list[tuple[str, str]]:
    """Builds and compiles a run, as `fit` would.

    Returns:
        What there is to know, and its value as text: parameters, steps, memory, seconds of compiling.
    """
    execution = settle_feed(execution, recipe, (train, test))
    engine = Engine(recipe, train, seeds, execution, None, test)
    state = engine.init()
    began = time.monotonic()
    compiled = engine.lower(state).compile()
    seconds = time.monotonic() - began
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // len(seeds)
    memory = compiled.memory_analysis()
    rows = [
        ("devices", engine.where),
        ("parameters", f"{parameters:,}"),
        ("training images", f"{engine.images:,}"),
        ("steps", f"{engine.total:,}, {engine.images / recipe.batch_size:,.1f} an epoch"),
        ("steps a call", f"at most {engine.per_call:,}"),
        ("state", _mebibytes(sum(map(_bytes, jax.tree.leaves(state))))),
    ]
    if memory is not None:  # not every backend says
        rows += [
            ("images and order of a call", _mebibytes(memory.argument_size_in_bytes - memory.alias_size_in_bytes)),
            ("working memory of a step", _mebibytes(memory.temp_size_in_bytes)),
        ]
    return [*rows, ("compiling", f"{seconds:.1f} s")]


def _bytes(leaf: Any) -> int:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf).nbytes if is_key else leaf.nbytes


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
