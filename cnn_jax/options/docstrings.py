"""What the source of a class says of it and of its fields."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import textwrap


def summary(config: type) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(config.__doc__ or "").split("\n\n")[0].split())


@functools.cache
def docstrings(config: type) -> dict[str, str]:
    """The descriptions of the fields of a dataclass and its parents, each as one line.

    That is the strings below them, or what stands below "Attributes:" in the class's docstring, as of Linen modules.
    """
    found: dict[str, str] = {}
    for parent in reversed(config.__mro__):
        found |= _attributes(vars(parent).get("__doc__") or "")
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(parent)))
        except (OSError, TypeError, SyntaxError):  # object, for one; a file that has changed
            continue
        [definition] = tree.body
        for field, text in itertools.pairwise(getattr(definition, "body", [])):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    found[name] = " ".join(docstring.split())
    return found


def _attributes(docstring: str) -> dict[str, str]:
    """The entries `name: text` of the section "Attributes:", as sentences."""
    section = inspect.cleandoc(docstring).partition("\nAttributes:\n")[2]
    section = re.split(r"\n(?=\S)", section)[0]  # to the next line that is not indented
    entries = re.findall(r"^(\w+): (.*(?:\n +.*)*)", textwrap.dedent(section), re.MULTILINE)
    return {name: _sentence(" ".join(text.split())) for name, text in entries}


def _sentence(text: str) -> str:
    text = re.sub(r"`(\w*\W[^`]*)`", r"\1", text)  # no name of a field
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."
