"""From the text of a part to the part."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_jax.errors import InputError
from cnn_jax.parts import user_files
from cnn_jax.parts.classes import fields, hints, known_of, noun
from cnn_jax.parts.values import Mismatch, fit

_LONG = 100  # characters of a text that a message shows
_MOST_NAMED = 12  # of the known classes, so that the line stays one
_HOME = re.compile(r"\.py:(?=\s*\w)|^\s*[^\W\d][\w.]*:(?=\s*\w)")  # ends what names a file or a module


@dataclasses.dataclass(frozen=True)
class _Call:
    """A constructor call: what stands before the class's name, if anything, the name, and the call's own text."""

    home: str
    name: str
    source: str
    args: tuple[ast.expr, ...]
    keywords: tuple[ast.keyword, ...]

    def shown(self, node: ast.AST) -> str:
        return _short(ast.get_source_segment(self.source, node) or "")


def parse(
    text: str, base: type, known: Mapping[str, type] | None = None, files: Mapping[str, Path] | None = None
) -> Any:
    """The part that a text is the constructor call of: `sgd(0.1, momentum=0.9)`, `sgd`, `my_model.py:Tiny(depth=3)`.

    Arguments are literals; nothing is evaluated. A file that is named is imported as the user's code. A kind may have a
    class method `named`, for texts that are a name and no call, as `mnist`.

    Args:
        text: the constructor call. Case and underscores of a short name do not matter.
        base: what the part has to be an instance of.
        known: the classes with short names, by these; for parts but models the package's own that derive from `base`.
        files: what to read instead of files, by their paths as the text has them.

    Raises:
        InputError: no part of this kind can be made of the text.
    """
    call = _call(text)
    named = getattr(base, "named", None)
    if named is not None and _is_name(text) and _folded(text) not in map(_folded, known_of(base, known)):
        return named(text)
    if isinstance(call, str):
        raise InputError(
            f"expected {_article(noun(base))} such as {example(base, known)}, got {_short(text.strip())!r} ({call})"
        )
    kind = _class(call, base, known, files or {})
    values = _arguments(call, kind)
    try:
        return kind(**values)
    except InputError:
        raise
    except ValueError as error:  # a user's own way to check
        raise InputError(f"{call.name}: {' '.join(str(error).split())}") from error


def parse_several(
    text: str, base: type, known: Mapping[str, type] | None = None, files: Mapping[str, Path] | None = None
) -> tuple[Any, ...]:
    """The parts of a text of constructor calls joined by `|`, such as `crop(4) | flip()`; `none` and "" have none.

    Arguments and errors are those of `parse`.
    """
    if text.strip() in ("", "none"):
        return ()
    calls, begun = [], ""
    # A `|` within a string, a bracket or a path leaves no call before it.
    for piece in text.split("|"):
        begun = f"{begun}|{piece}" if begun else piece
        if not isinstance(_call(begun), str):
            calls.append(begun)
            begun = ""
    if begun or text.rstrip().endswith("|"):
        calls.append(begun)
    return tuple(parse(each, base, known, files) for each in calls)


def _call(text: str) -> _Call | str:
    """A text taken apart, or what is wrong with it."""
    text = text.strip()
    wrong: str | None = None
    for begin in (0, *(found.end() for found in _HOME.finditer(text))):
        source = text[begin:].strip()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                node = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            wrong = getattr(error, "msg", None) or "not a constructor call"
            continue
        home = text[:begin].rstrip().removesuffix(":")
        match node:
            case ast.Name(id=name):
                return _Call(home, name, source, (), ())
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return _Call(home, name, source, tuple(args), tuple(keywords))
        wrong = "not a constructor call"
    return wrong or "not a constructor call"


def _class(call: _Call, base: type, known: Mapping[str, type] | None, files: Mapping[str, Path]) -> type:
    if not call.home:
        return _known_class(call.name, base, known_of(base, known))
    if call.home.endswith(".py"):
        module = user_files.load(Path(files.get(call.home, call.home)), call.home)
    else:
        module = _imported(call.home)
    kind = getattr(module, call.name, None)
    if not isinstance(kind, type):
        classes = [
            each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
        ]
        own = [each.__name__ for each in classes if issubclass(each, base) and each is not base]
        there = f"it has {', '.join(own)}" if own else "it has none"
        raise InputError(f"{call.home}: expected {_article(noun(base))} named {call.name}, but {there}")
    if not issubclass(kind, base):
        raise InputError(
            f"{call.home}:{call.name}: expected {_article(noun(base))}, a class that derives from "
            f"{base.__module__.removesuffix('.module')}.{base.__name__}, got one that does not"
        )
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise InputError(f"{call.home}:{call.name}: expected a class that defines {missing}, got one that does not")
    return kind


def _known_class(name: str, base: type, known: Mapping[str, type]) -> type:
    names = {_folded(each): each for each in known}
    if _folded(name) in names:
        return known[names[_folded(name)]]
    near = difflib.get_close_matches(_folded(name), list(names), n=1)
    hint = f"did you mean {names[near[0]]}?" if near else "one of a file is FILE.py:CLASS(...)"
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    there = f", one of {', '.join(list(known)[:_MOST_NAMED])}{more}" if known else ""
    raise InputError(f"expected {_article(noun(base))}{there}, got {_short(name)}; {hint}")


def _is_name(text: str) -> bool:
    """Whether a text could be the name of something with versions and configurations: mnist, emnist/letters:3.1.0."""
    return re.fullmatch(r"\w[\w./:-]*", text) is not None and ".py:" not in text


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{name}: expected a module that can be imported, got {said}") from error


def _arguments(call: _Call, kind: type) -> dict[str, Any]:
    own = fields(kind)
    there = f"its fields are {', '.join(field.name for field in own)}" if own else "it has no fields"
    places = [field.name for field in own if not field.kw_only]
    if len(call.args) > len(places):
        raise InputError(f"{call.name}: expected at most {len(places)} values, got {len(call.args)}; {there}")
    given = list(zip(places, call.args, strict=False))
    given += [(each.arg or call.shown(each), each.value) for each in call.keywords]
    types, values = hints(kind), {}
    for name, node in given:
        if name not in [field.name for field in own]:
            near = difflib.get_close_matches(name, [field.name for field in own], n=1, cutoff=0.7)
            raise InputError(
                f"{call.name}: expected no {name}; {there}" + (f"; did you mean {near[0]}?" if near else "")
            )
        if name in values:
            raise InputError(f"{call.name}: expected {name} once, got it twice; {there}")
        values[name] = _value(call, name, node, types.get(name))
    for field in own:
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in values and not has_default:
            raise InputError(f"{call.name}: expected {field.name}, got none; {there}")
    return values


def _value(call: _Call, name: str, node: ast.expr, hint: Any) -> Any:
    try:
        value = _tuples(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        hint = "; a text needs quotes" if isinstance(node, ast.Name) else ""
        raise InputError(
            f"{call.name}: expected {name} to be a number, a text, None, or a tuple of these, "
            f"got {call.shown(node)}{hint}"
        ) from None
    try:
        return fit(value, hint)
    except Mismatch as error:
        raise InputError(f"{call.name}: expected {name} to be {error}, got {call.shown(node)}") from None


def _tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return {key: _tuples(each) for key, each in value.items()} if isinstance(value, dict) else value


def example(base: type, known: Mapping[str, type] | None = None) -> str:
    """A text that messages give as an example of a kind."""
    names = list(known_of(base, known))
    return f"{names[0]}()" if names else "FILE.py:CLASS()"


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
