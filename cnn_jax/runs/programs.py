"""Which combinations of a sweep are one program: those that differ in numbers that it can take as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnn_jax import data
from cnn_jax.runs.axes import Axes, combinations, with_settings
from cnn_jax.runs.fit import for_data
from cnn_jax.training.evaluation import input_size
from cnn_jax.training.recipe import Recipe, make_functions
from cnn_jax.training.train import Numbers, with_numbers

_TRACED = object()  # in place of a value that is an argument of a program


@dataclass(frozen=True, kw_only=True)
class Program:
    """Combinations that are trained together, as they differ in numbers that one compiled program takes.

    Attributes:
        recipe: what they have in common, with the numbers of the first.
        numbers: by dotted name, the number of each; none where there is a single combination.
        members: which they are.
    """

    recipe: Recipe
    numbers: dict[str, tuple[float, ...]]
    members: tuple[int, ...]


def plan(recipe: Recipe, axes: Axes, train: data.Dataset) -> list[Program]:
    """Which combinations are trained together.

    A number can be traced if a train step with it can, and a value of it is, if the state then has the arrays that it
    has with that very value: a momentum of 0 keeps no average, and is trained apart from others.

    Raises:
        InputError: a combination is no possible recipe.
    """
    every = combinations(axes)
    numeric = [name for name, values in axes.items() if _may_be_traced(name, values)]
    structures: dict[str, Any] = {}
    members: dict[str, list[int]] = {}

    def structure(settings: Mapping[str, Any], traced: str | None = None) -> Any:
        key = repr((sorted(settings.items()), traced))
        if key not in structures:
            chosen = for_data(with_settings(recipe, settings), train)
            structures[key] = _structure(chosen, train, traced)
        return structures[key]

    for k, settings in enumerate(every):
        fixed = {name: value for name, value in settings.items() if name not in numeric}
        key = []
        for name, value in settings.items():
            is_traced = name in numeric and type(value) is float
            if is_traced:
                some = next(each for each in axes[name] if type(each) is float and each)
                is_traced = structure({**fixed, name: some}, name) == structure({**fixed, name: value})
            key.append(_TRACED if is_traced else value)
        members.setdefault(repr(key), []).append(k)
    programs = []
    for own in members.values():
        rows = {name: tuple(every[k][name] for k in own) for name in axes}
        numbers = {name: values for name, values in rows.items() if len(set(map(repr, values))) > 1}
        programs.append(Program(recipe=with_settings(recipe, every[own[0]]), numbers=numbers, members=tuple(own)))
    return programs


def _may_be_traced(name: str, values: Sequence[Any]) -> bool:
    part, _, field = name.partition(".")
    return bool(field) and part != "model" and any(type(value) is float and value for value in values)


def _structure(recipe: Recipe, train: data.Dataset, traced: str | None) -> Any:
    """The arrays of the state of a recipe, with a number traced or with none; None where it cannot be."""
    shape = (*input_size(recipe.model, train.images), train.images.shape[-1])
    classes = len(train.class_names)

    def init(numbers: Numbers, key: jax.Array) -> Any:
        functions = make_functions(with_numbers(recipe, numbers), train.statistics, shape, classes, steps=2)
        first = np.zeros((min(recipe.first_images, len(train)), *shape), np.uint8)
        return functions, functions.init(key, first)

    def step(numbers: Numbers, key: jax.Array) -> Any:
        functions, state = init(numbers, key)
        count = np.zeros(recipe.batch_size, np.int32)
        batch = {"image": np.zeros((recipe.batch_size, *shape), np.uint8), "label": count}
        return state, functions.train_step(state, {**batch, "index": count, "epoch": count})

    key = jax.eval_shape(lambda: jax.random.key(0))
    if traced is None:
        state = jax.eval_shape(lambda key: init({}, key)[1], key)
    else:
        try:
            state, _ = jax.eval_shape(step, {traced: jax.ShapeDtypeStruct((), np.float32)}, key)
        except Exception:  # whatever a part does with a number that is not known yet
            return None
    leaves, structure = jax.tree.flatten(state)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
