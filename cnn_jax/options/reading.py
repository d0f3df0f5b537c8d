"""How the parts of a configuration are read from a command line: their texts first, then their fields by tyro."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from cnn_jax import parts
from cnn_jax.errors import InputError
from cnn_jax.options.members import Member, is_set_by_data, offered, places, with_parts


def take_texts(config: type, args: Sequence[str], default: Any = None) -> tuple[Any, list[str]]:
    """Reads the texts of parts, as in `--optimizer 'sgd(0.1)'`.

    Args:
        config: the dataclass that is to be read.
        args: the command line.
        default: an instance that has the dataclass's defaults; else they are the fields' own.

    Returns:
        The defaults with these parts, see `with_parts`, and the rest of the command line. Where the dataclass has no
        parts, both as they were.

    Raises:
        InputError: a text is wrong, or names no part of the kind.
    """
    there = {member.flag: member for member in places(config, default=default)}
    if not there:
        return default, list(args)
    chosen: dict[str, Any] = {}
    rest: list[str] = []
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            return with_parts(config, chosen, default=default), [*rest, word, *words]
        flag, equals, text = word.partition("=")
        member = there.get(flag.replace("_", "-"))
        if member is None:
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise InputError(f"{member.flag}: expected {member.expected}, got nothing")
            text = words.pop(0)
        chosen[member.name] = member.read(text)
    return with_parts(config, chosen, default=default), rest


def check_fields(there: Sequence[Member], args: Sequence[str]) -> None:
    """InputError where the command line has an option of a part's field that this part does not have."""
    for word in args[: args.index("--")] if "--" in args else args:
        flag = word.partition("=")[0].replace("_", "-")
        for member in there:
            if flag.startswith(f"{member.flag}.") and member.value is not dataclasses.MISSING:
                _check_field(member, flag)


def _check_field(member: Member, flag: str) -> None:
    field = flag.removeprefix(f"{member.flag}.")
    if member.part is None:
        raise InputError(
            f"{flag}: expected one part in {member.flag} to set a field of, got "
            f"{parts.short_text(member.value, member.known)}; give fields within its text"
        )
    kind = type(member.part)
    if is_set_by_data(kind, field.replace("-", "_")):
        raise InputError(f"{flag}: expected no such option, as the data decide it")
    own = [each.name for each in offered(kind)]
    if field.replace("-", "_").removeprefix("no_") not in own:
        flags = [f"{member.flag}.{name.replace('_', '-')}" for name in own]
        near = difflib.get_close_matches(flag, flags, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]}?" if near else ""
        there = ", ".join(flags) or "no fields that are options"
        raise InputError(f"there is no option {flag}; {parts.class_text(kind, member.known)} has {there}{hint}")


def registry(there: Sequence[Member], refusals: list[InputError]) -> Any:
    """How tyro makes parts: of the options of their fields, and of their own values for the fields that are no options.

    Args:
        there: the members that hold parts.
        refusals: gets what a part itself says of its fields, said of the options.
    """
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    rules = ConstructorRegistry()

    @rules.struct_rule
    def rule(info: Any) -> StructConstructorSpec | None:
        member = next((each for each in there if each.value is info.default), None)
        # The empty tuple is one object, of whatever it is the default.
        if member is None or parts.kind_in(info.type)[0] is None:
            return None
        if member.part is None:
            return StructConstructorSpec(instantiate=lambda: member.value, fields=())
        kind, hints = type(member.part), parts.hints(type(member.part))
        own = [
            StructFieldSpec(name=field.name, type=hints[field.name], default=_own(member.part, field.name))
            for field in offered(kind)
        ]
        return StructConstructorSpec(instantiate=lambda **values: _changed(member, values, refusals), fields=tuple(own))

    return rules


def _own(part: Any, field: str) -> Any:
    """A field's value as tyro reads one; as it is where it is no literal, as a traced number."""
    value = getattr(part, field)
    with contextlib.suppress(parts.Mismatch):
        return parts.plain(value)
    return value


def _changed(member: Member, given: dict[str, Any], refusals: list[InputError]) -> Any:
    part = member.part
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if all(value == _own(part, name) for name, value in given.items()):
        return member.value
    try:
        made = type(part)(**{field.name: getattr(part, field.name) for field in parts.fields(type(part))} | given)
    except InputError as error:
        refusals.append(member.told(error))
        raise
    return (made,) if member.is_several else made
