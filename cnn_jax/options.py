"""The options that tyro makes of dataclasses, read off them for help and for messages.

tyro's own help keeps the line breaks of docstrings, names None as what an option is by default, and describes a switch
that is on by what its opposite does. So it only parses.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORDS = {
    int: ("N", "a whole number"),
    float: ("NUMBER", "a number"),
    str: ("TEXT", "a text"),
    Path: ("PATH", "a path"),
}
_SEVERAL = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts", "a path": "paths"}
_COUNTS = {1: "one", 2: "two", 3: "three"}
_SHORT = 24  # columns of choices that are shown with the option; more are listed in its description
_INDENT, _WIDEST = 6, 100


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command line, or an argument by position.

    Attributes:
        name: with its dashes, or of an argument what help calls it.
        value: what help calls its value; empty for a switch.
        expected: the value in words.
        choices: all values there are, if they are few.
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
    """The options of a dataclass, then those of the dataclasses in it, as tyro names them.

    Args:
        config: the dataclass.
        prefix: what their names begin with, as "data.".
        default: an instance that has their defaults; else they are the fields' own.
        told: what they are for, where that is not the dataclass's docstring.
    """
    hints, about = typing.get_type_hints(config, include_extras=True), _docstrings(config)
    own: list[Option] = []
    inner: list[Group] = []
    for field in dataclasses.fields(config):
        value = getattr(default, field.name) if default is not None else field.default
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner += groups(type(value), f"{prefix}{field.name}.", value, about.get(field.name, ""))
        else:
            text = re.sub(r"`(\w+)`", lambda found: _flag(found, prefix, hints), about.get(field.name, ""))
            own.append(_option(f"{prefix}{field.name}", hints[field.name], value, text))
    text = told or _summary(config) if prefix else ""
    yield Group(title=f"{prefix.rstrip('.')} options".strip(), about=text, options=tuple(own))
    yield from inner


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
    kind = [part for part in typing.get_args(hint) if part is not type(None)] if _is_union(hint) else [hint]
    kind = kind[0]
    choices: tuple[str, ...] = ()
    flag = "--" + name.replace("_", "-")
    if kind is bool:
        expected = "no value"
        if default:
            flag = "--" + re.sub(r"([^.]+)$", r"no-\1", flag[2:])
            about = f"Turn this off: {about[:1].lower()}{about[1:]}"
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
    return isinstance(hint, types.UnionType)


def _value(kind: Any) -> tuple[str, str, tuple[str, ...]]:
    """What help calls a value of a type, the value in words, and the choices there are."""
    if typing.get_origin(kind) is typing.Literal:
        choices = tuple(map(str, typing.get_args(kind)))
        braced = "{" + ",".join(choices) + "}"
        return braced if len(braced) <= _SHORT else "NAME", f"one of {', '.join(choices)}", choices
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        value, expected, choices = _value(parts[0])
        if parts[-1] is ...:
            return f"[{value} ...]", _SEVERAL.get(expected, expected), choices
        return (
            " ".join([value] * len(parts)),
            f"{_COUNTS.get(len(parts), len(parts))} {_SEVERAL.get(expected, expected)}",
            choices,
        )
    return *_WORDS.get(kind, ("VALUE", "a value")), ()


def _shown(default: Any) -> str:
    if default is None or default is dataclasses.MISSING:
        return ""
    if isinstance(default, tuple):
        return " ".join(map(_shown, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _summary(config: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(config.__doc__ or "").split("\n\n")[0].split())


@functools.cache
def _docstrings(config: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and its parents, each as one line."""
    found: dict[str, str] = {}
    for parent in reversed(config.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(parent)))
        except (OSError, TypeError):  # object, for one
            continue
        [definition] = tree.body
        for field, text in itertools.pairwise(getattr(definition, "body", [])):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    found[name] = " ".join(docstring.split())
    return found


def help_text(program: str, config: Any, description: str, width: int) -> str:
    """What --help shows of a dataclass, or of the commands of a union of them.

    Args:
        program: how it is called.
        config: the dataclass or the union.
        description: stands below the usage; its paragraphs are filled, its indented lines are examples.
        width: columns there are.
    """
    width = max(20, min(width, _WIDEST))
    parts = [_usage(program, config, width), _fill(description, width)]
    entries = [(name, _summary(each)) for name, each in commands(config).items()]
    if entries:
        parts.append(_section("commands", "", entries, width))
        parts.append("\n".join(textwrap.wrap(f"{program} COMMAND --help says what a command takes.", width)))
    for group in [] if entries else groups(config):
        arguments = [(option.name, option.about) for option in group.options if option.is_argument]
        options = [(f"{o.name} {o.value}".strip(), o.about) for o in group.options if not o.is_argument]
        if arguments:
            parts.append(_section("arguments", "", arguments, width))
        if group.title == "options":
            options.append(("--help", "Show this and end."))
        parts.append(_section(group.title, group.about, options, width))
    return "\n\n".join(filter(None, parts))


def _usage(program: str, config: Any, width: int) -> str:
    if commands(config):
        rest = "COMMAND [OPTION ...]"
    else:
        arguments = [option.name for group in groups(config) for option in group.options if option.is_argument]
        rest = " ".join([*arguments, "[OPTION ...]"])
    return textwrap.fill(f"usage: {program} {rest}", width, subsequent_indent=" " * 7, break_on_hyphens=False)


def _fill(text: str, width: int) -> str:
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith(" "):
            split = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in paragraph.splitlines()]
            parts.append(_entries([(name, " ".join(about)) for name, *about in split], width))
        else:
            parts.append(textwrap.fill(" ".join(paragraph.split()), width, break_on_hyphens=False))
    return "\n\n".join(parts)


def _section(title: str, about: str, entries: Sequence[tuple[str, str]], width: int) -> str:
    if not entries:
        return ""
    told = textwrap.wrap(about, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join([f"{title}:", *told, _entries(entries, width)])


def _entries(entries: Sequence[tuple[str, str]], width: int) -> str:
    """Names, and what there is to say of each: beside them where all fits or they are short, else below."""
    column = 2 + max(len(name) for name, _ in entries) + 2
    beside = column <= width // 3 or column + max(len(text) for _, text in entries) <= width
    indent = " " * (column if beside else _INDENT)
    lines = []
    for name, text in entries:
        filled = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if beside and filled:
            filled[0] = f"  {name}".ljust(column) + filled[0].lstrip()
            lines += filled
        else:
            lines += [f"  {name}", *filled]
    return "\n".join(lines)
