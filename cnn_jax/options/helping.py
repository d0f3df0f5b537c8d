"""What --help shows.

tyro's own help keeps the line breaks of docstrings, names None as what an option is by default, and describes a switch
that is on by what its opposite does. So it only parses.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from cnn_jax.options.docstrings import summary
from cnn_jax.options.listing import commands, groups

_INDENT, _WIDEST = 6, 100


def help_text(program: str, config: Any, description: str, width: int, default: Any = None) -> str:
    """What --help shows of a dataclass, or of the commands of a union of them.

    Args:
        program: how it is called.
        config: the dataclass or the union.
        description: stands below the usage; its paragraphs are filled, its indented lines are examples.
        width: available columns.
        default: an instance with the dataclass's defaults, which may lack some; else they are its own.
    """
    width = max(20, min(width, _WIDEST))
    parts = [_usage(program, config, width, default), _fill(description, width)]
    entries = [(name, summary(each)) for name, each in commands(config).items()]
    if entries:
        parts.append(_section("commands", "", entries, width))
        parts.append("\n".join(textwrap.wrap(f"{program} COMMAND --help says what a command takes.", width)))
    for group in [] if entries else groups(config, default=default):
        arguments = [(option.name, option.about) for option in group.options if option.is_argument]
        options = [(f"{o.name} {o.value}".strip(), o.about) for o in group.options if not o.is_argument]
        if arguments:
            parts.append(_section("arguments", "", arguments, width))
        if group.title == "options":
            options.append(("--help", "Show this and end."))
        parts.append(_section(group.title, group.about, options, width))
    return "\n\n".join(filter(None, parts))


def _usage(program: str, config: Any, width: int, default: Any) -> str:
    if commands(config):
        rest = "COMMAND [OPTION ...]"
    else:
        arguments = [
            option.name for group in groups(config, default=default) for option in group.options if option.is_argument
        ]
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
