"""The text of a part: its constructor call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from cnn_jax.errors import InputError
from cnn_jax.parts import user_files
from cnn_jax.parts.base import Part
from cnn_jax.parts.classes import fields, kind_of, known_of
from cnn_jax.parts.values import Mismatch, plain


def text(part: Any, known: Mapping[str, type] | None = None) -> str:
    """The constructor call of a part with all its fields, as `parse` reads it: `sgd(learning_rate=0.1, momentum=0.9)`.

    Of a tuple of parts the calls are joined by " | ", and an empty tuple is `none`. A class that the package knows has
    a short name; one of an installed module is `package.module:Class`, one of any other file `path/to/file.py:Class`,
    relative to the current folder if it lies beneath it.

    Args:
        part: a part, a Linen module, or a tuple of these.
        known: the classes with short names, by these; for parts but models the package's own of the kind.

    Raises:
        InputError: a field's value is no literal, or the class can be found in no file.
    """
    if isinstance(part, tuple):
        return " | ".join(text(each, known) for each in part) or "none"
    return _call(part, known, fields(type(part)))


def short_text(part: Any, known: Mapping[str, type] | None = None) -> str:
    """Like `text`, with only those fields that differ from the class's defaults."""
    if isinstance(part, tuple):
        return " | ".join(short_text(each, known) for each in part) or "none"
    return _call(part, known, [field for field in fields(type(part)) if not _is_default(part, field)])


def _is_default(part: Any, field: dataclasses.Field[Any]) -> bool:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    own = getattr(part, field.name)
    return value is own or (type(value) is type(own) and bool(value == own))


def _call(part: Any, known: Mapping[str, type] | None, shown: Iterable[dataclasses.Field[Any]]) -> str:
    values = (f"{field.name}={_value(part, field.name)!r}" for field in shown)
    return f"{class_text(type(part), known)}({', '.join(values)})"


def _value(part: Any, field: str) -> Any:
    value = getattr(part, field)
    try:
        return plain(value)
    except Mismatch as error:
        raise InputError(
            f"{type(part).__name__}: expected {field} to be {error}, so that it can be written down, "
            f"got {' '.join(repr(value).split())[:100]}"
        ) from None


def class_text(kind: type, known: Mapping[str, type] | None = None) -> str:
    """What stands before the brackets in the text of a class's instances; InputError if it can be found in no file."""
    if known is None and issubclass(kind, Part):
        known = known_of(kind_of(kind), None)
    for name, each in (known or {}).items():
        if each is kind:
            return name
    if "." in kind.__qualname__:
        raise InputError(
            f"{kind.__name__}: expected a class at the top level of a file, so that a run can find it again, "
            f"got {kind.__qualname__}; move it there"
        )
    if user_files.is_installed(kind):
        return f"{kind.__module__}:{kind.__name__}"
    file = user_files.file_of(kind)
    if file is None:
        raise InputError(
            f"{kind.__name__}: expected a class of a Python file, so that a run can find it again, got one of "
            f"a notebook or a prompt; put it into a file, such as my_parts.py, and import it from there"
        )
    return f"{user_files.written(kind, file)}:{kind.__name__}"
