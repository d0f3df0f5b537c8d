"""The volume table as text, Markdown and HTML."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnn_jax.describe.volumes import LayerRow, Volumes

_WIDTH = 80  # of the closing sentences in a terminal
# No colours of its own but a grey that shows on light and dark: what is around the table decides.
_STYLE = """.cnn-jax-volumes {border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap}
.cnn-jax-volumes caption {padding: 4px 8px; text-align: left}
.cnn-jax-volumes td, .cnn-jax-volumes th {padding: 3px 8px; text-align: right; vertical-align: bottom}
.cnn-jax-volumes th {white-space: normal}
.cnn-jax-volumes th[colspan] {text-align: center}
.cnn-jax-volumes .name {text-align: left}
.cnn-jax-volumes tbody {border: solid rgba(128, 128, 128, .6); border-width: 1px 0}
.cnn-jax-volumes tfoot {font-weight: bold}"""


def text(volumes: Volumes, width: int) -> str:
    """See `Volumes.text`."""
    columns, left_out = list(_COLUMNS), []
    table = _aligned(volumes, columns)
    for column in _DISPENSABLE:
        if max(map(len, table)) > width:
            columns.remove(column)
            left_out.append(f"{column.group} {column.heading}".strip())
            table = _aligned(volumes, columns)
    notes = [_sharing(volumes)]
    if left_out:
        notes.append(f"Left out to fit a terminal, and there in Markdown and HTML: {', '.join(left_out)}.")
    return "\n".join(
        [*table, *(line for note in notes if note for line in ["", *textwrap.wrap(note, min(width, _WIDTH))])]
    )


def _aligned(volumes: Volumes, columns: Sequence[_Column]) -> list[str]:
    """The lines of the table with columns as wide as they need to be."""
    columns, lines = _table(volumes, columns)
    lines = [[column.short for column in columns], *lines]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    aligned = [
        " ".join(
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = "-" * (sum(widths) + len(widths) - 1)
    return [aligned[0], rule, *aligned[1:-1], rule, aligned[-1]]


def markdown(volumes: Volumes) -> str:
    """See `Volumes.markdown`."""
    columns, lines = _table(volumes, [*_COLUMNS, _DENSE])
    headings = [f"{column.group} {column.heading}".strip() for column in columns]
    marks = ["---" if column.left else "--:" for column in columns]
    lines = [headings, marks, *([cell.replace("|", r"\|") for cell in line] for line in lines)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(filter(None, (table, _sharing(volumes))))


def html(volumes: Volumes) -> str:
    """See `Volumes.html`."""
    columns, lines = _table(volumes, [*_COLUMNS, _DENSE])
    above, below = "", ""
    for index, column in enumerate(columns):
        if not column.group:
            above += _cell("th", column.heading, column, ' rowspan="2"')
            continue
        below += _cell("th", column.heading, column)
        if columns[index - 1].group != column.group:
            span = sum(other.group == column.group for other in columns)
            above += f'<th colspan="{span}">{column.group}</th>'
    *body, foot = (
        f"<tr>{''.join(_cell('td', cell, column) for cell, column in zip(line, columns, strict=True))}</tr>"
        for line in lines
    )
    note = _sharing(volumes)
    return "\n".join(
        [
            f"<style>\n{_STYLE}\n</style>",
            '<div style="overflow-x: auto">\n<table class="cnn-jax-volumes">',
            f"<caption>{escape(volumes.model)} on {_sizes(volumes.input)}</caption>",
            f"<thead>\n<tr>{above}</tr>\n<tr>{below}</tr>\n</thead>",
            "<tbody>",
            *body,
            f"</tbody>\n<tfoot>\n{foot}\n</tfoot>\n</table>\n</div>",
            *([f'<p style="margin: 8px">{note}</p>'] if note else []),
        ]
    )


def _cell(tag: str, content: str, column: _Column, attributes: str = "") -> str:
    if column.left:
        attributes += ' class="name"'
    if tag == "th" and column.meaning:
        attributes += f' title="{column.meaning}"'
    return f"<{tag}{attributes}>{escape(content)}</{tag}>"


def _table(volumes: Volumes, columns: Sequence[_Column]) -> tuple[list[_Column], list[list[str]]]:
    """The columns in which anything stands, and the rows: the input, the layers, the total."""
    given = {"layer": "input", "output": _sizes(volumes.input)}
    lines = [
        [given.get(column.short, "") for column in columns],
        *([column.cell(row) for column in columns] for row in volumes),
        [column.cell(volumes.total) for column in columns],
    ]
    kept = [index for index in range(len(columns)) if any(line[index] for line in lines)]
    return [columns[index] for index in kept], [[line[index] for index in kept] for line in lines]


def _sharing(volumes: Volumes) -> str:
    """How many parameters the convolutions have beside dense layers; nothing where there are no convolutions."""
    have = sum(row.parameters for row in volumes if row.dense_parameters is not None)
    need = volumes.total.dense_parameters
    if need is None:
        return ""
    return (
        f"Sharing weights: the convolutions have {have:,} parameters; "
        f"dense layers between the same volumes would need {need:,}."
    )


def _sizes(values: Sequence[int] | None) -> str:
    return "x".join(map(str, values or ()))


def _count(number: int | None) -> str:
    return f"{number:,}" if number else ""


def _once(entries: Sequence[str]) -> str:
    """What all dimensions have in common, or their entries."""
    return entries[0] if len(set(entries)) == 1 else ",".join(entries)


def _padding(row: LayerRow) -> str:
    pairs = row.padding or ()
    return _once([str(low) if low == high else f"{low}+{high}" for low, high in pairs]) if pairs else ""


def _field(attribute: str) -> Callable[[LayerRow], str]:
    def cell(row: LayerRow) -> str:
        if row.receptive_field is None:
            return "-" if row.kind else ""
        values = [getattr(field, attribute) for field in row.receptive_field]
        return _once(["-" if value is None else str(value) for value in values])

    return cell


def _memory(row: LayerRow) -> str:
    amount = float(row.memory)
    if amount < 1024:
        return f"{row.memory} B" if row.memory else ""
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB"))
    while amount >= 1024:
        amount, unit = amount / 1024, next(units)
    return f"{amount:,.1f} {unit}"


@dataclass(frozen=True)
class _Column:
    """A column: its heading in text and elsewhere, what stands in it, the heading above, and a word on its meaning."""

    short: str
    heading: str
    cell: Callable[[LayerRow], str]
    group: str = ""
    left: bool = False
    meaning: str = ""


_GROUP = "receptive field"
_COLUMNS = (
    _Column("layer", "layer", lambda row: row.layer, left=True),
    _Column("kind", "kind", lambda row: row.kind, left=True),
    _Column("kernel", "kernel", lambda row: _sizes(row.kernel)),
    _Column("stride", "stride", lambda row: _sizes(row.stride)),
    _Column("pad", "padding", _padding, meaning="zeros around the input; 1+2: one before, two after"),
    _Column("output", "output volume", lambda row: _sizes(row.output), meaning="height x width x channels"),
    _Column("params", "parameters", lambda row: _count(row.parameters), meaning="trained values"),
    _Column(
        "connections",
        "connections",
        lambda row: _count(row.connections),
        meaning="weights and biases into each unit, over all units, as LeCun et al. (1998) count them",
    ),
    _Column(
        "mult-adds",
        "multiply-adds",
        lambda row: _count(row.multiply_adds),
        meaning="multiplications, each with an addition",
    ),
    _Column("sees", "size", _field("size"), _GROUP, meaning="pixels in a line that a unit sees"),
    _Column("step", "stride", _field("stride"), _GROUP, meaning="pixels from a unit to its neighbour"),
    _Column(
        "from", "offset", _field("offset"), _GROUP, meaning="first pixel that the first unit sees; below 0: padding"
    ),
    _Column("memory", "memory", _memory, meaning="of the output, in float32"),
)
_DENSE = _Column(
    "dense",
    "parameters if dense",
    lambda row: _count(row.dense_parameters),
    meaning="what a dense layer between the same volumes would need",
)
# Connections are next to multiply-adds in a network this large; what kind a layer is, its name tells more or less. The
# rest is left out in narrow terminals only.
_LEFT_OUT = ("connections", "kind", "from", "memory", "step", "pad", "stride", "sees", "kernel", "mult-adds")
_DISPENSABLE = [column for short in _LEFT_OUT for column in _COLUMNS if column.short == short]
