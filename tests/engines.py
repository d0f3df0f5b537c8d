"""Engines that the runs of a test file have in common: what one of them has traced, the next need not trace again."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator

import pytest

from cnn_jax import data
from cnn_jax.runs.engine import Engine

_fit = importlib.import_module("cnn_jax.runs.fit")  # the module; `runs.fit` is the function


@contextlib.contextmanager
def shared() -> Iterator[dict]:
    """Meanwhile `fit` takes an engine again for the recipe, the data and the seeds that it was made for.

    An engine knows no files and no clock, so a run does with its folder what it does with an engine of its own.
    Yields the engines; `clear()` makes `fit` take new ones.
    """
    engines: dict = {}

    def engine(recipe, train, seeds, execution, validation, test, numbers=None):
        splits = train, validation, test
        # Of a recipe, what the loop alone looks at makes no difference.
        recipe = dataclasses.replace(recipe, init=None, patience=None)
        own = tuple((name, tuple(values)) for name, values in (numbers or {}).items())
        how = execution.steps_per_call, execution.onednn, execution.mesh, execution.feed
        key = recipe, tuple(seeds), own, how, *map(_identity, splits)
        if key not in engines:
            engines[key] = Engine(recipe, train, seeds, execution, validation, test, numbers), splits  # keep their ids
        return engines[key][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fit, "Engine", engine)
        yield engines


def _identity(split: data.Dataset | None) -> object:
    """Equal for what a source has read twice: a data set of `tests.tiny` has no fingerprint."""
    return (split.fingerprint, split.split, len(split)) if split and split.fingerprint else id(split)
