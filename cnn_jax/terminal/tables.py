"""Tables on standard output: complete in a pipe or a file, fitted to the columns of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from cnn_jax.terminal import output
from cnn_jax.terminal.text import encodable, plain

_LEAST = 12  # columns that text is cut to at least; where that is not enough, a row is a list instead
_GAP = 1  # columns between two of the table's
_RULES = "    \n    \n ── \n    \n ── \n    \n    \n    \n"  # below the heading, and above the last rows; see rich.box


def show_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Sequence[int] = (0,),
    footer: Sequence[Sequence[str]] = (),
) -> None:
    """Prints a table.

    In a terminal too narrow for it, headings are broken between words, then long cells of the columns in `left` lose
    their middles, and if that is not enough, each row becomes a list of its cells with their headings.

    Args:
        header: names of the columns.
        rows: cells; any text, shown in one line.
        left: columns to align left, which hold text; the others are aligned right.
        footer: rows below a rule.
    """
    console = output.console()
    most = console.width if console.is_terminal else None

    def text(cells: Sequence[str]) -> list[str]:
        return [encodable(plain(cell), console.encoding) for cell in cells]

    headings, body = text(header), [text(row) for row in (*rows, *footer)]
    fitted = _fit(headings, body, set(left), most)
    if fitted is None:
        _list(headings, body)
        return
    headings, cells = fitted
    from rich.box import Box
    from rich.table import Table

    rules = Box(_RULES if encodable(_RULES, console.encoding) == _RULES else _RULES.replace("─", "-"), ascii=True)
    table = Table(box=rules, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False)
    for index, name in enumerate(headings):
        table.add_column(name, justify="left" if index in left else "right", no_wrap=True)
    for index, row in enumerate(cells):
        table.add_row(*row, end_section=bool(footer) and index == len(rows) - 1)
    if most is None:  # Rich fills lines up to the width, so it must be the table's.
        console.width = max(1, console.measure(table).maximum)
    console.print(table)


def _fit(
    header: list[str], rows: list[list[str]], texts: set[int], most: int | None
) -> tuple[list[str], list[list[str]]] | None:
    """Headings and rows, shortened if need be so that the table has at most that many columns; None if it cannot."""
    columns = [[row[index] for row in rows] for index in range(len(header))]
    widths = [max(map(_cells, column), default=0) for column in columns]

    def excess(headings: Sequence[str]) -> int:
        both = [max(width, *map(_cells, name.split("\n"))) for name, width in zip(headings, widths, strict=True)]
        return sum(both) + (_GAP + 1) * (len(both) - 1) - (most or 0)

    if most is None or excess(header) <= 0:
        return header, rows
    header = [
        "\n".join(textwrap.wrap(name, max(width, 1), break_long_words=False, break_on_hyphens=False)) or name
        for name, width in zip(header, widths, strict=True)
    ]
    while (over := excess(header)) > 0:
        if not texts:
            return None
        widest = max(texts, key=widths.__getitem__)
        others = [widths[index] for index in texts if index != widest and widths[index] < widths[widest]]
        narrower = max(_LEAST, widths[widest] - over, max(others, default=0))
        if narrower >= widths[widest]:
            narrower = widths[widest] - 1
        if narrower < _LEAST:
            return None
        widths[widest] = narrower
    cut = [
        [_without_middle(cell, widths[index]) if index in texts else cell for index, cell in enumerate(row)]
        for row in rows
    ]
    return header, cut


def _without_middle(text: str, most: int) -> str:
    """The text in at most that many columns, with both ends kept."""
    if _cells(text) <= most:
        return text
    mark = encodable("…", output.console().encoding)
    room = most - _cells(mark)
    start = _beginning(text, room - room // 2)
    end = _beginning(text[::-1], room // 2)[::-1]
    return start + mark + end


def _beginning(text: str, most: int) -> str:
    while _cells(text) > most:
        text = text[: len(text) - max(1, (_cells(text) - most) // 2)]
    return text


def _list(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows as lists: a line a heading, with what stands below it."""
    for first, *others in rows:
        lines = [first]
        for name, cell in zip(header[1:], others, strict=True):
            if name and cell:
                lines.append(f"  {name} {cell}")
            else:
                lines[-1] += f" {cell}".rstrip()
        output.say("\n".join(lines))


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
