"""The classes of parts: their fields, and those that the package knows by short names."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from cnn_jax.parts.base import Part, snake

PACKAGE = __name__.partition(".")[0]


def is_module(kind: type) -> bool:
    """Whether a class is Linen's Module or derives from it. Flax is not imported for this."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and issubclass(kind, linen.Module)


def fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    """What a part is configured by, in order; not the `parent` and `name` that Linen adds to every module."""
    added = ("parent", "name") if is_module(kind) else ()
    every = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return tuple(field for field in every if field.init and field.name not in added)


def hints(kind: type) -> dict[str, Any]:
    """The types of a class's fields, without those of names that only type checkers import."""
    try:
        return typing.get_type_hints(kind)
    except Exception:
        return {name: hint for parent in reversed(kind.__mro__) for name, hint in _own_hints(parent)}


def _own_hints(kind: type) -> Iterator[tuple[str, Any]]:
    names = vars(sys.modules.get(kind.__module__, typing))
    for name, hint in vars(kind).get("__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: hint})
        with contextlib.suppress(Exception):
            yield name, typing.get_type_hints(one, names)[name]


def registry(base: type) -> dict[str, type]:
    """The package's own parts that derive from a base class, of its own package, by their short names, sorted.

    These are the dataclasses among it and its subclasses that are not abstract; a class between them that only narrows
    the kind is none. Whatever is defined elsewhere in the package has no short name, as nothing says that it has been
    imported.
    """
    found: dict[str, type] = {
        snake(each.__name__): each
        for each in _subclasses(base)
        if each.__module__.split(".")[:2] == base.__module__.split(".")[:2]
        and each.__module__.partition(".")[0] == PACKAGE
        and not each.__name__.startswith("_")
        and "__dataclass_fields__" in vars(each)
        and not inspect.isabstract(each)
    }
    return dict(sorted(found.items()))


def _subclasses(base: type) -> Iterator[type]:
    yield base
    subclasses: list[type] = type.__subclasses__(base)
    for each in subclasses:
        yield from _subclasses(each)


def kind_of(part: type) -> type:
    """The base class of a part's kind: the one right below `Part`."""
    return [each for each in part.__mro__ if issubclass(each, Part) and each is not Part][-1]


def kind_in(hint: Any) -> tuple[type | None, bool]:
    """The base class of the parts that a field's type is for, None where it is for none; and whether for several."""
    is_several = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if is_several else hint
    if isinstance(kind, type) and (issubclass(kind, Part) or is_module(kind)):
        return kind, is_several
    return None, False


def known_of(base: type, known: Mapping[str, type] | None) -> Mapping[str, type]:
    """The classes with short names: `known`, or else the package's own of the kind."""
    if known is not None:
        return known
    return registry(base) if issubclass(base, Part) and base is not Part else {}


def noun(base: type) -> str:
    """What messages call a part of a kind."""
    if is_module(base):
        return "model"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", base.__name__).lower()
