"""The values of a part's fields: literals, and whether they are what a field's type says."""

from __future__ import annotations

import ast
import collections.abc
import difflib
import sys
import types
import typing
from pathlib import PurePath
from typing import Any

_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    type(None): "None",
}
_SEQUENCES = (tuple, list, collections.abc.Sequence)


class Mismatch(Exception):  # noqa: N818
    """A value is not what a type says; the argument is what was expected, in words."""


def plain(value: Any) -> Any:
    """A value as a literal has it: NumPy's scalars as Python's, lists as tuples, paths as texts.

    Raises:
        Mismatch: no literal gives the value back.
    """
    numpy = sys.modules.get("numpy")  # its values occur only where it has been imported
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, PurePath):
        return str(value)
    if type(value) in (tuple, list):
        return tuple(map(plain, value))
    if type(value) is dict:
        return {plain(key): plain(each) for key, each in value.items()}
    try:
        if bool(ast.literal_eval(repr(value)) == value):
            return value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise Mismatch("a number, a text, None, or a tuple of these")


def fit(value: Any, hint: Any) -> Any:
    """A literal as a field of a type takes it: a whole number for a float as a float, a list as a tuple.

    Types other than bool, int, float, str, None, their unions, tuples and sequences, and Literal, take anything.

    Raises:
        Mismatch: the value is not what the type says.
    """
    if isinstance(value, list):
        value = tuple(value)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise Mismatch("a number that a float holds") from None
    if hint is None:
        hint = type(None)
    if hint in _WORDS:
        if type(value) is not hint:
            raise Mismatch(_WORDS[hint])
    elif origin is typing.Literal:
        if not any(value == each and type(value) is type(each) for each in inner):
            near = difflib.get_close_matches(str(value).lower(), list(map(str, inner)), n=1)
            raise Mismatch(words(hint) + (f" (did you mean {near[0]!r}?)" if near else ""))
    elif origin in (typing.Union, types.UnionType):
        return _fit_one(value, hint, inner)
    elif hint in _SEQUENCES or origin in _SEQUENCES:
        return _fit_each(value, hint, inner)
    return value


def _fit_one(value: Any, hint: Any, members: tuple[Any, ...]) -> Any:
    fitting = []
    for member in members:
        try:
            fitting.append(fit(value, member))
        except Mismatch:
            continue
    if not fitting:
        raise Mismatch(words(hint))
    # 1 for `float | int` stays an int.
    return next((each for each in fitting if type(each) is type(value)), fitting[0])


def _fit_each(value: Any, hint: Any, members: tuple[Any, ...]) -> tuple[Any, ...]:
    is_fixed = typing.get_origin(hint) is tuple and members[-1:] != (...,)
    if not isinstance(value, tuple) or (is_fixed and len(value) != len(members)):
        raise Mismatch(words(hint))
    kinds = members if is_fixed else (members or (Any,))[:1] * len(value)
    try:
        return tuple(fit(each, kind) for each, kind in zip(value, kinds, strict=True))
    except Mismatch:
        raise Mismatch(words(hint)) from None


def words(hint: Any) -> str:
    """What a type takes, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint in _WORDS:
        return _WORDS[type(None) if hint is None else hint]
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words, inner)))
    if origin is tuple and inner and inner[-1] is not ...:
        return f"({', '.join(map(words, inner))})"
    if origin in _SEQUENCES and inner:
        return f"a tuple, each {words(inner[0])}"
    return "a tuple" if hint in _SEQUENCES or origin in _SEQUENCES else "a value"
