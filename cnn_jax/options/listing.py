"""The options that a command line has, as messages and help tell them: read off what tyro makes them of."""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import types
import typing
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_jax import parts
from cnn_jax.options.docstrings import docstrings, summary
from cnn_jax.options.members import Member, members, offered

_WORDS = {
    int: ("N", "a whole number"),
    float: ("NUMBER", "a number"),
    str: ("TEXT", "a text"),
    Path: ("PATH", "a path"),
}
_SEVERAL = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts", "a path": "paths"}
_COUNTS = {1: "one", 2: "two", 3: "three"}
_SHORT = 24  # columns of choices that are shown with the option; more are listed in its description


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command line, or an argument by position.

    Attributes:
        name: with its dashes, or of an argument what help calls it.
        value: what help calls its value; empty for a switch.
        expected: the value in words.
        choices: all possible values, if they are few.
        about: what it does, with its default.
        is_argument: whether it is given by position.
        is_required: whether it has no default.
    """

    name: str
    value: str
    expected: str
    choices: tuple[str, ...]
    about: str
    is_argument: bool
    is_required: bool


@dataclass(frozen=True, kw_only=True)
class Group:
    """Options that belong together: of the command line itself, or of one of its parts."""

    title: str
    about: str
    options: tuple[Option, ...]


def commands(config: Any) -> dict[str, type]:
    """The dataclasses of a union by the names of their commands; nothing for one dataclass, which has no commands."""
    classes = typing.get_args(config) if isinstance(config, types.UnionType) else ()
    return {each.__name__.lower(): each for each in classes}


def groups(config: type, prefix: str = "", default: Any = None, told: str = "") -> Iterator[Group]:
    """The options of a dataclass, then those of the dataclasses and the parts in it, as tyro names them.

    Args:
        config: the dataclass.
        prefix: what their names begin with, as "data.".
        default: an instance that has their defaults; else they are the fields' own.
        told: what they are for, where that is not the dataclass's docstring.
    """
    own: list[Option] = []
    inner: list[Group] = []
    every = list(_level(config, prefix, default))
    names = [member.field for member, _ in every]
    for member, about in every:
        about = re.sub(r"`(\w+)`", lambda found: _flag(found, prefix, names), about)
        if member.kind is not None:
            inner.append(_part_group(member, about))
        elif member.struct is not None:
            inner += groups(member.struct, member.inner, member.default, about)
        else:
            own.append(_option(member.name, member.hint, member.value, about))
    text = told or summary(config) if prefix else ""
    yield Group(title=f"{prefix.rstrip('.')} options".strip(), about=text, options=tuple(own))
    yield from inner


def _level(config: type, prefix: str, default: Any) -> Iterator[tuple[Member, str]]:
    """The members whose names begin with the prefix alone, with what is said of them: also those of nameless groups."""
    about = docstrings(config)
    for member in members(config, prefix, default):
        if member.struct is not None and member.inner == prefix:
            yield from _level(member.struct, prefix, member.default)
        else:
            yield member, about.get(member.field, "")


def _part_group(member: Member, about: str) -> Group:
    """The option of a part, and those of its fields."""
    assert member.kind is not None
    names = ", ".join(parts.known_of(member.kind, member.known))
    count = "Some" if member.is_several else "One"
    about += f" {count} of {names} with fields in parentheses, or" if names else ""
    about += " FILE.py:CLASS(...)" + (", joined by |; or none." if member.is_several else ".")
    title = f"{member.name} options"
    fields = []
    if member.default is not None:
        about += f" (default: {parts.short_text(member.value, member.known)})"
    if member.part is not None:
        kind: Any = type(member.part)
        title += f", of {parts.class_text(kind, member.known).rpartition(':')[2]}"  # without its file or module
        texts, hints, own = docstrings(kind), parts.hints(kind), [field.name for field in offered(kind)]
        for name in own:
            text = re.sub(r"`(\w+)`", lambda found: _flag(found, f"{member.name}.", own), texts.get(name, ""))
            fields.append(_option(f"{member.name}.{name}", hints[name], getattr(member.part, name), text))
    whole = Option(
        name=member.flag, value="PARTS" if member.is_several else "PART", expected=member.expected, choices=(),
        about=about.strip(), is_argument=False, is_required=member.default is None,
    )  # fmt: skip
    return Group(title=title, about="", options=(whole, *fields))


def _flag(name: re.Match[str], prefix: str, fields: Container[str]) -> str:
    """A field named in a docstring, as its option."""
    return f"--{prefix}{name[1].replace('_', '-')}" if name[1] in fields else name[0]


def _option(name: str, hint: Any, default: Any, about: str) -> Option:
    from tyro.conf import Positional

    metadata = getattr(hint, "__metadata__", ())
    if metadata:
        hint = hint.__origin__
    is_argument = Positional in metadata
    value = next((entry.metavar for entry in metadata if getattr(entry, "metavar", None)), "")
    kind = [each for each in typing.get_args(hint) if each is not type(None)] if _is_union(hint) else [hint]
    kind = kind[0]
    choices: tuple[str, ...] = ()
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        expected = "no value"
        if default:
            flag = "--" + re.sub(r"([^.]+)$", r"no-\1", flag[2:])
            about = f"Do not {about[:1].lower()}{about[1:]}"
    else:
        own, expected, choices = _value(kind)
        value = value or own
        if _is_union(hint):
            expected += " or None"
        if choices and "NAME" in value:
            about += f" {'One' if value == 'NAME' else 'Some'} of {', '.join(choices)}."
        shown = _shown(default)
        if shown:
            about += f" (default: {shown})"
    return Option(
        name=value if is_argument else flag, value=value, expected=expected, choices=choices,
        about=about, is_argument=is_argument, is_required=default is dataclasses.MISSING,
    )  # fmt: skip


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _value(kind: Any) -> tuple[str, str, tuple[str, ...]]:
    """What help calls a value of a type, the value in words, and the choices there are."""
    if typing.get_origin(kind) is typing.Literal:
        choices = tuple(map(str, typing.get_args(kind)))
        braced = "{" + ",".join(choices) + "}"
        return braced if len(braced) <= _SHORT else "NAME", f"one of {', '.join(choices)}", choices
    if typing.get_origin(kind) in (tuple, list, collections.abc.Sequence):
        inner = typing.get_args(kind)
        value, expected, choices = _value(inner[0])
        if inner[-1] is ... or typing.get_origin(kind) is not tuple:
            return f"[{value} ...]", _SEVERAL.get(expected, expected), choices
        return (
            " ".join([value] * len(inner)),
            f"{_COUNTS.get(len(inner), len(inner))} {_SEVERAL.get(expected, expected)}",
            choices,
        )
    return *_WORDS.get(kind, ("VALUE", "a value")), ()


def _shown(default: Any) -> str:
    if default is None or default is dataclasses.MISSING:
        return ""
    if isinstance(default, tuple | list):
        return " ".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)
