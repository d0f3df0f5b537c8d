"""What is wrong with a command line, in one line, from what tyro says about it in many."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from cnn_jax import options
from cnn_jax.options import Option

_SEE = "--help lists the options"
_LONG = 100  # characters of a wrong value that are shown


def explain(said: str, config: Any, args: Sequence[str], default: Any = None) -> str:
    """One line that says what was expected, what arrived, and perhaps what was meant.

    Args:
        said: tyro's message: a title, then lines.
        config: what was to be read, a dataclass or a union of them.
        args: the command line.
        default: an instance that has the dataclass's defaults, which may lack some.
    """
    lines = [line.strip(" │╭╮╰╯─") for line in said.splitlines()]
    title, body = (lines[0] if lines else ""), [line for line in lines[1:] if line.strip("-")]
    names = options.commands(config)
    chosen = next((word for word in args if word in names), None)
    if names and (chosen is None or args[0] != chosen):
        return _no_command(list(names), args)
    shown = config if chosen is None else names[chosen]
    known = [option for group in options.groups(shown, default=default) for option in group.options]
    if title == "Unrecognized options":
        return _unrecognised(_token(body, args), known, args, chosen)
    if title == "Required options":
        for missing in known:
            if missing.is_required and any(f"{line} ".startswith(f"{missing.name} ") for line in body):
                return needs(missing, chosen)
    for pattern in (r"Missing value for argument '(.+?)'", r"argument '(.+?)'\.", r"Error parsing (.+?):"):
        found = re.search(pattern, " ".join(body))
        option = found and next((option for option in known if found[1] in (option.name, option.value)), None)
        if option:
            return _bad_value(option, [] if title == "Missing argument" else args)
    return with_flags(re.sub(r"^Error parsing \w+: ", "", body[0] if body else "the options cannot be read"))


def with_flags(text: str) -> str:
    """What a dataclass says of its fields, said of their options."""
    text = re.sub(r"^[a-z_.]+(, [a-z_.]+)*(?=: )", _flags, text)
    return re.sub("`([a-z_.]+)`", lambda found: "--" + found[1].replace("_", "-"), text)


def needs(missing: Option, chosen: str | None = None) -> str:
    """One line that says that an option has to be given, to a command if one is chosen."""
    about = missing.about.split(". ")[0].rstrip(".")
    return f"{chosen or 'the command'} needs {missing.name}: {about[:1].lower()}{about[1:]}; see --help"


def _flags(names: re.Match[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names[0].split(", "))


def _no_command(names: Sequence[str], args: Sequence[str]) -> str:
    got = next((word for word in args if word != "--"), None)
    if got is None:
        return f"expected a command, one of {', '.join(names)}; --help says what they do"
    near = difflib.get_close_matches(got.lower(), names, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help says what they do"
    return f"expected a command first, one of {', '.join(names)}, got {got!r}; {hint}"


def _token(body: Sequence[str], args: Sequence[str]) -> str:
    """The first word of the command line that was not recognised, or that part of it."""
    if body and body[0].endswith("misplaced options:"):
        listed = body[1].rpartition(" (applied to ")[0]
    else:
        listed = body[0].partition(": ")[2] if body else ""
    words = {part for word in args for part in (word, *word.split("=", 1)) if part}
    return max((word for word in words if listed.startswith(word)), key=len, default=listed)


def _unrecognised(token: str, known: Sequence[Option], args: Sequence[str], chosen: str | None) -> str:
    of = f"{chosen} has no option" if chosen else "there is no option"
    if token.startswith("-") and token != "-":
        near = _alike(token.split("=")[0], [option.name for option in known if not option.is_argument])
        return f"{of} {token.split('=')[0]}; " + (f"did you mean {', '.join(near)}?" if near else _SEE)
    before = args[args.index(token) - 1] if token in args and args.index(token) else ""
    for option in known:
        if not option.value and (before == option.name or f"{option.name}={token}" in args):
            return f"{option.name}: expected no value, got {token!r}; it is a switch"
    begun = [option for option in known if option.value and option.name in args[: args.index(token)]] if before else []
    if begun:
        last = max(begun, key=lambda option: args.index(option.name))
        return f"{last.name}: expected {last.expected}, got also {token!r}; {_SEE}"
    taken = [option.name for option in known if option.is_argument]
    expected = f"nothing more than {' '.join(taken)}" if taken else "an option, which begins with --"
    return f"expected {expected}, got {token!r}; {_SEE}"


def _alike(flag: str, names: Sequence[str]) -> list[str]:
    """Options that may have been meant: this one's parts, its ending or beginning, its opposite, or spelt alike."""
    word = flag.lstrip("-").replace("_", "-")
    parts = [name for name in names if name[2:].startswith(f"{word}.")]
    ends = [
        name
        for name in names
        if word and re.split(r"[.]", name[2:])[-1] in (word, f"no-{word}", word.removeprefix("no-"))
    ]
    return parts or ends or difflib.get_close_matches(f"--{word}", names, n=2, cutoff=0.7)


def _bad_value(option: Option, args: Sequence[str]) -> str:
    """`args` are empty where there is no value."""
    got = []
    for k, word in enumerate(args):
        if word == option.name or word.startswith(f"{option.name}="):
            rest = args[k + 1 :]
            end = next((i for i, other in enumerate(rest) if re.match(r"--?[a-z]", other)), len(rest))
            got = [word.partition("=")[2]] if "=" in word else list(rest[:end])
    wrong = [word for word in got if word not in option.choices] if option.choices else got
    near = difflib.get_close_matches(wrong[0].lower(), option.choices, n=1) if wrong else []
    arrived = " ".join(map(repr, wrong)) if wrong else "nothing"
    if len(arrived) > _LONG:
        arrived = f"{arrived[:_LONG]}..."
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{option.name}: expected {option.expected}, got {arrived}{hint}"
