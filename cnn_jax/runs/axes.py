"""The axes of a sweep: fields of a recipe with the values to try, as texts such as `optimizer.momentum = 0, 0.9`."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnn_jax import models, parts
from cnn_jax.errors import InputError
from cnn_jax.parts import Mismatch
from cnn_jax.parts.values import fit
from cnn_jax.runs.texts import from_json, kinds
from cnn_jax.training.recipe import Recipe

Settings = Mapping[str, Any]
"""Values of a recipe's fields, and of its parts', by dotted name."""
Axes = Mapping[str, Sequence[Any]]
"""By the same names, the values to try."""

_FIXED = ("metrics", "validation", "init")  # by which trials are compared, and what all of them begin with
_SET_BY_DATA = "num_classes"  # of models
_FORM = "FIELD = VALUE, VALUE, ..., such as 'optimizer.learning_rate = 1e-3, 3e-3'"
_OPEN, _CLOSED, _QUOTES = "([{", ")]}", "'\""


def parse_axes(texts: Sequence[str], recipe: Recipe) -> dict[str, tuple[Any, ...]]:
    """The axes of texts such as `optimizer.learning_rate = 1e-3, 3e-3` and `model = lenet5(), mlp()`.

    Args:
        texts: one an axis. The values of a part are its texts, those of another field literals.
        recipe: whose fields they are.

    Raises:
        InputError: a text names no field that can be swept, or the same as another; a value is none of the field; or a
            combination is no possible recipe.
    """
    pairs = [_split(text) for text in texts]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"sweep: expected each field once, got {name} twice; join its values by commas")
    axes: dict[str, tuple[Any, ...]] = {}
    # Whole parts come first, as other parts may have other fields.
    for name, values in sorted(pairs, key=lambda pair: "." in pair[0]):
        axes[name] = tuple(_read(name, value, recipe, axes) for value in values)
        if len(set(map(repr, axes[name]))) < len(axes[name]):
            raise InputError(f"sweep: expected each value of {name} once, got {', '.join(values)}")
    axes = {name: axes[name] for name in names}
    for settings in combinations(axes):
        with_settings(recipe, settings)
    return axes


def combinations(axes: Axes) -> list[dict[str, Any]]:
    """All combinations of the values, those of the last axis changing first."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def with_settings(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with other values of some fields.

    Raises:
        InputError: there is no such field, or it does not take the value.
    """
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):
        try:
            recipe = _with_one(recipe, name, value)
        except InputError as error:
            raise InputError(f"sweep: {name} = {shown(value)}: {error}") from None
    return recipe


def shown(value: Any) -> str:
    """A value in a table: a number, a text, or the text of a part with what is not its default."""
    several = value if isinstance(value, tuple) else (value,)
    if several and all(isinstance(one, parts.Part) or parts.is_module(type(one)) for one in several):
        return parts.short_text(value, models.MODELS if parts.is_module(type(value)) else None)
    if value == ():
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def held(recipe: Recipe, name: str) -> Any:
    """The part of that field; of several joined, the one where there is just one; None where there is none."""
    if name not in kinds():
        return None
    value = getattr(recipe, name)
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else None
    return value


def _with_one(recipe: Recipe, name: str, value: Any) -> Recipe:
    whole, _, field = name.partition(".")
    if not field:
        changes: dict[str, Any] = {whole: value}
        return dataclasses.replace(recipe, **changes)
    part = held(recipe, whole)
    own = [each.name for each in parts.fields(type(part))] if part is not None else []
    if field not in own:
        text = parts.short_text(getattr(recipe, whole), models.MODELS if whole == "model" else None)
        raise InputError(f"{text} has no {field}; sweep it apart")
    made = type(part)(**{each: getattr(part, each) for each in own} | {field: value})
    changed: dict[str, Any] = {whole: (made,) if isinstance(getattr(recipe, whole), tuple) else made}
    return dataclasses.replace(recipe, **changed)


def _split(text: str) -> tuple[str, list[str]]:
    name, equals, rest = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    values = [value.strip() for value in _pieces(rest)]
    if not equals or not re.fullmatch(r"\w+(\.\w+)?", name) or not all(values):
        raise InputError(f"sweep: expected {_FORM}, got {text.strip()[:100]!r}")
    return name, values


def _pieces(text: str) -> Iterator[str]:
    """What stands between the commas that are in no bracket and no quotes."""
    begin, depth, quote = 0, 0, ""
    for place, sign in enumerate(text):
        if quote or sign in _QUOTES:
            quote = "" if sign == quote else quote or sign
        elif sign == "," and not depth:
            yield text[begin:place]
            begin = place + 1
        else:
            depth += (sign in _OPEN) - (sign in _CLOSED)
    yield text[begin:]


def _read(name: str, text: str, recipe: Recipe, axes: Axes) -> Any:
    whole, _, field = name.partition(".")
    fields = [each.name for each in dataclasses.fields(Recipe) if each.name not in _FIXED]
    if whole in _FIXED and not field:
        raise InputError(f"sweep: expected no {whole}, as trials are compared by it or begin with it; give --{whole}")
    holders = [part for part in (held(recipe, whole), *axes.get(whole, ())) if part is not None]
    there = {each.name: type(part) for part in holders for each in parts.fields(type(part))}
    there.pop(_SET_BY_DATA, None)
    if whole not in fields or (field and field not in there):
        own = [f"{each}.{one}" for each in fields for one in _inner(recipe, each)]
        known = [f"{whole}.{each}" for each in there] if field and there else fields + own
        near = difflib.get_close_matches(name, fields + own, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"sweep: expected a field of the recipe, one of {', '.join(known)}, got {name}{hint}")
    try:
        if not field and whole in kinds():
            return from_json(whole, text, {})
        hint = parts.hints(there[field])[field] if field else parts.hints(type(recipe))[whole]
        return fit(_literal(text), hint)
    except Mismatch as error:
        raise InputError(f"sweep: expected values of {name} to be {error}, got {text[:100]}") from None
    except InputError as error:
        raise InputError(f"sweep: {name}: {error}") from None


def _inner(recipe: Recipe, name: str) -> list[str]:
    """The names of the fields of a recipe's part."""
    own = [field.name for field in parts.fields(type(held(recipe, name)))] if name in kinds() else []
    return [name for name in own if name != _SET_BY_DATA]


def _literal(text: str) -> Any:
    """The value of a literal; what is none is a text."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
