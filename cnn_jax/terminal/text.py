"""Text made safe for a terminal."""

from __future__ import annotations

import re
import shlex
import unicodedata

# Control, formatting (which turns the direction of writing round), half a character, private, none, line separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # formatting that belongs to the spelling of Persian and Hindi, and to emoji
_SIGNS = {
    "±": "+-", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "•": "*", "·": ".", "│": "|", "─": "-", "━": "-",
    "\N{MULTIPLICATION SIGN}": "x", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "“": '"', "”": '"',
    "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def plain(text: str) -> str:
    """The text in one line, with everything escaped that is invisible but has an effect.

    Bytes that file names are made of where they are no text, as `os.fsdecode` keeps them, become text if they are
    UTF-8, else `\\xff`.
    """
    if text.isprintable():
        return text
    text = re.sub("[\udc80-\udcff]+", lambda found: _bytes(found[0]).decode("utf-8", "backslashreplace"), text)
    return "".join(map(_visible, text))


def one_line(text: str) -> str:
    """A message, perhaps from another library, as one line of plain text."""
    return plain(" ".join(text.split()))


def quote(word: str, encoding: str = "utf-8") -> str:
    """A word of a command line, to be copied into a shell.

    What is hidden in it, or not in the encoding of what it is copied from, is written as bash and zsh read it.
    """
    if encodable(plain(word), encoding) == word:
        return shlex.quote(word)
    quoted = (chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in _bytes(word))
    return f"$'{''.join(quoted)}'"


def encodable(text: str, encoding: str | None) -> str:
    """The text in characters that the encoding has: plain signs for ± and the like, escapes for anything else."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return "".join(_in(encoding or "utf-8", character) for character in text)
    except LookupError:
        pass
    return text


def _in(encoding: str, character: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return _SIGNS.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
    return character


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    return repr(character)[1:-1]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
