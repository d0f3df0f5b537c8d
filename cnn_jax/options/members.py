"""The fields of a configuration as a command line has them: values, groups of values, and parts.

A part is given by its text, `--optimizer 'sgd(0.1)'`, and each of its fields is an option as well,
`--optimizer.momentum 0.9`. The texts are read first, as they decide which options there are.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_jax import parts
from cnn_jax.errors import InputError
from cnn_jax.parts import is_module

_SET_BY_DATA = "num_classes"  # of models


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A field of a configuration.

    Attributes:
        name: its name with those of the groups it is in, as `data.name`.
        field: its own name.
        hint: its type, with what is annotated.
        value: its default, or `dataclasses.MISSING`.
        struct: the dataclass it is an instance of, where it is a group of options.
        inner: what the names of that group's options begin with.
        kind: the base class of the part or the parts it holds, where it does.
        is_several: whether it is a tuple of parts.
    """

    name: str
    field: str
    hint: Any
    value: Any
    struct: type | None
    inner: str
    kind: type | None
    is_several: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def known(self) -> Mapping[str, type] | None:
        """The classes with short names, as `parts.text` and `parts.parse` take them."""
        if self.kind is not None and is_module(self.kind):
            from cnn_jax.models import MODELS

            return MODELS
        return None

    @property
    def default(self) -> Any:
        """Its default; None where there is none."""
        return None if self.value is dataclasses.MISSING else self.value

    @property
    def expected(self) -> str:
        """The value of a part's option in words."""
        assert self.kind is not None
        example = f"a text such as {parts.example(self.kind, self.known)}"
        return f"{example}, or several joined by |" if self.is_several else example

    @property
    def part(self) -> Any:
        """The one part there is, whose fields are options; None where there is none or several."""
        if self.default is None or not self.is_several:
            return self.default
        return self.value[0] if len(self.value) == 1 else None

    def read(self, text: str) -> Any:
        """The part or the parts of a text; InputError names the option."""
        assert self.kind is not None
        reader = parts.parse_several if self.is_several else parts.parse
        try:
            return reader(text, self.kind, self.known)
        except InputError as error:
            raise InputError(f"{self.flag}: {error}") from error

    def told(self, error: InputError) -> InputError:
        """What a part says of one of its fields, said of that field's option."""
        own = "|".join(field.name for field in offered(type(self.part)))
        found = re.match(rf"(?:\w+: )?(?:expected )?(each of )?({own})\b(?: (?:to|must) be)?(?= )(.*)", str(error))
        if not own or found is None:
            return InputError(f"{self.flag}: {error}")
        each, field, rest = found.groups()
        expected = f"{'each to be ' if each else ''}{rest.strip()}"
        return InputError(f"{self.flag}.{field.replace('_', '-')}: expected {expected}")


def members(config: type, prefix: str = "", default: Any = None) -> Iterator[Member]:
    """The fields of a dataclass, not those of the dataclasses in it.

    Args:
        config: the dataclass.
        prefix: what their names begin with, as "data.".
        default: an instance that has their defaults, which may lack some; else they are the fields' own.
    """
    from tyro import MISSING

    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        value = getattr(default, field.name, value)
        value = dataclasses.MISSING if value is MISSING else value
        hint, metadata = hints[field.name], getattr(hints[field.name], "__metadata__", ())
        bare = hint.__origin__ if metadata else hint
        kind, is_several = parts.kind_in(bare)
        struct = None
        if kind is None:
            holder = type(value) if value is not dataclasses.MISSING else bare
            struct = holder if isinstance(holder, type) and dataclasses.is_dataclass(holder) else None
        given = [entry.name for entry in metadata if getattr(entry, "name", None) is not None]
        has_no_name = "" in given
        name = given[0] if given and not has_no_name else field.name
        yield Member(
            name=f"{prefix}{name}", field=field.name, hint=hint, value=value, struct=struct,
            inner=prefix if has_no_name else f"{prefix}{field.name}.", kind=kind, is_several=is_several,
        )  # fmt: skip


def places(config: type, prefix: str = "", default: Any = None) -> list[Member]:
    """The fields that hold parts, at any depth."""
    found = []
    for member in members(config, prefix, default):
        if member.kind is not None:
            found.append(member)
        elif member.struct is not None:
            found += places(member.struct, member.inner, member.default)
    return found


def with_parts(config: type, chosen: Mapping[str, Any], prefix: str = "", default: Any = None) -> Any:
    """The defaults of a configuration, with other parts by their members' names.

    An instance that was never initialised, as nothing is to be checked yet; what has no default is tyro's MISSING.
    """
    from tyro import MISSING

    made: Any = object.__new__(config)
    for member in members(config, prefix, default):
        value = chosen.get(member.name, member.value)
        if member.struct is not None:
            value = with_parts(member.struct, chosen, member.inner, member.default)
        object.__setattr__(made, member.field, MISSING if value is dataclasses.MISSING else value)
    return made


def offered(kind: type) -> list[dataclasses.Field[Any]]:
    """The fields of a part that are options: all but a model's number of classes and those of uncommon types."""
    hints = parts.hints(kind)
    common = [field for field in parts.fields(kind) if _is_common(hints.get(field.name))]
    return [field for field in common if not is_set_by_data(kind, field.name)]


def is_set_by_data(kind: type, field: str) -> bool:
    """Whether a part's field is no option, as the data decide it: a model's number of classes."""
    return field == _SET_BY_DATA and is_module(kind)


def _is_common(hint: Any) -> bool:
    """Whether tyro reads values of a type from a command line in one way."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        some = [each for each in inner if each is not type(None)]
        single = (int, float, str, Path)
        return all(each in single for each in some) or (len(some) == 1 and some[0] is not bool and _is_common(some[0]))
    if origin in (tuple, list, Sequence):
        return all(each is ... or (_is_common(each) and typing.get_origin(each) is not tuple) for each in inner)
    return origin is typing.Literal or hint in (bool, int, float, str, Path)
