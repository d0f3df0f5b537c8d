"""A recipe as JSON values, its parts as texts, and back: what a run's config.json says of it."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from cnn_jax import models, parts
from cnn_jax.training.recipe import Recipe


def kinds() -> dict[str, Any]:
    """The base class of each part of a recipe, by its field; of several joined, `tuple[BASE, ...]`."""
    hints = typing.get_type_hints(Recipe)
    names = [field.name for field in dataclasses.fields(Recipe)]
    return {name: hints[name] for name in names if parts.kind_in(hints[name])[0] is not None}


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Each field of a recipe: parts as their texts, plain values as they are.

    Raises:
        InputError: a part has no text, such as an instance of a class defined in a notebook.
    """
    own = kinds()

    def plain(name: str, value: Any) -> Any:
        if name in own:
            return parts.text(value, models.MODELS if name == "model" else None)
        return list(value) if isinstance(value, tuple) else value

    return {field.name: plain(field.name, getattr(recipe, field.name)) for field in dataclasses.fields(Recipe)}


def completed(recipe: Any) -> Any:
    """A recipe as `to_json` gave it, with the defaults of fields that it lacks, as one of an earlier version does.

    What is no mapping, in a damaged file, is returned as it is.
    """
    return to_json(Recipe()) | dict(recipe) if isinstance(recipe, Mapping) else recipe


def parts_of(recipe: Recipe) -> list[Any]:
    """All parts of a recipe, also those that its groups and its selection name."""
    found: list[Any] = []
    for name in kinds():
        value = getattr(recipe, name)
        found += value if isinstance(value, tuple) else [value]
    inner: list[Any] = [part for group in recipe.groups for part in group.inner()]
    return found + inner + [part for selection in recipe.selection for part in selection.inner()]


def recipe_from_json(contents: Mapping[str, Any], files: Mapping[str, Path]) -> Recipe:
    """A whole recipe, as `to_json` gave it; fields that are missing, as of an earlier version, have their defaults.

    Raises:
        InputError: there is no such part, or the recipe cannot be.
        TypeError: something else than a field of a recipe is among them.
    """
    own = kinds()

    def value(name: str, given: Any) -> Any:
        if name in own:
            return from_json(name, given, files)
        return tuple(given) if isinstance(given, list) else given

    return Recipe(**{name: value(name, given) for name, given in contents.items()})


def from_json(name: str, text: str, files: Mapping[str, Path]) -> Any:
    """A part of a recipe from its text.

    Args:
        name: the field.
        text: as `to_json` gave it.
        files: the run's own copies of users' files, by the paths that texts have.

    Raises:
        InputError: there is no such part.
    """
    base, is_several = parts.kind_in(kinds()[name])
    assert base is not None
    parse = parts.parse_several if is_several else parts.parse
    return parse(text, base, models.MODELS if base is nn.Module else None, files)
