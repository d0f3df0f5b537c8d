"""The pieces of a page: HTML from plain values, everything that comes from outside escaped."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_jax.pictures.canvas import TITLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TALL = 24  # lines from which a table scrolls in a box of its own
_WIDE = 24  # letters of a name in a line, or so, where a table stands beside a figure


def page(name: str, body: Iterable[str]) -> str:
    """A whole document called `name`, with its style in it."""
    style = Path(__file__).with_name("style.css").read_text()
    parts = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',  # none: a browser would ask for one
        f"<title>{escape(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
        *body,
        "</body>\n</html>\n",
    )
    # In ASCII the file is the same in every encoding, whatever names hold.
    return "\n".join(parts).encode("ascii", "xmlcharrefreplace").decode()


def title(text: str, below: str) -> str:
    """What the page is about."""
    return f'<header>\n<h1>{escape(text)}</h1>\n<p class="quiet"><code>{escape(below)}</code></p>\n</header>'


def section(heading: str, *parts: str, wide: bool = True) -> str:
    """A heading and what stands below it. Narrow sections stand side by side, in pairs, where there is room."""
    return "\n".join(
        ('<section class="wide">' if wide else "<section>", f"<h2>{escape(heading)}</h2>", *parts, "</section>")
    )


def side_by_side(*parts: str) -> str:
    """Parts next to each other where there is room, else below each other."""
    return "\n".join(('<div class="side">', *(f"<div>{part}</div>" for part in parts), "</div>"))


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def headline(figures: Mapping[str, tuple[str, str]]) -> str:
    """Large figures: by what each is, its value and a remark."""
    boxes = (
        f"<div><dt>{escape(name)}</dt><dd>{_breakable(value)}<small>{escape(remark)}</small></dd></div>"
        for name, (value, remark) in figures.items()
    )
    return "\n".join(('<dl class="headline">', *boxes, "</dl>"))


def _breakable(text: str) -> str:
    """Text as HTML whose long words may break behind what stands between words in names."""
    return re.sub("(?<=[/_:])", "<wbr>", escape(text))


def facts(values: Mapping[str, str]) -> str:
    """A list of names and values."""
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return "\n".join(('<dl class="facts">', *lines, "</dl>"))


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = (), left: Sequence[int] = (0,)
) -> str:
    """A table that scrolls in its box where it is wider than the page, or long.

    Args:
      header: names of the columns.
      rows: cells.
      footer: a last row, set apart.
      left: columns to align left; the others are aligned right.
    """

    def line(cells: Sequence[str], kind: str = "td") -> str:
        sides = (' class="left"' if index in left else "" for index in range(len(cells)))
        inner = (f"<{kind}{side}>{escape(cell)}</{kind}>" for side, cell in zip(sides, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    parts = [f"<table>\n<thead>{line(header, 'th')}</thead>\n<tbody>", *map(line, rows), "</tbody>"]
    parts += [f"<tfoot>{line(footer)}</tfoot>"] if footer else []
    lines = sum(1 + max(len(row[index]) for index in left) // _WIDE for row in rows)
    return boxed("\n".join((*parts, "</table>")), tall=lines > _TALL)


def boxed(html: str, tall: bool = False) -> str:
    """HTML in a box that scrolls where it is wider than the page, or higher than a screen."""
    # Focusable, so that it can be scrolled from a keyboard.
    return f'<div class="scroll{" tall" if tall else ""}" tabindex="0">\n{html}\n</div>'


def code(text: str) -> str:
    """Text as it is typed, in lines as long as they are."""
    return boxed(f"<pre><code>{escape(text)}</code></pre>")


def folded(summary: str, html: str) -> str:
    """HTML that is shown when asked for."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{html}\n</details>"


def picture(figure: Figure, alt: str, caption: str) -> str:
    """A figure as an inline SVG.

    It is drawn on nothing, and its black is the page's ink, so it is as readable on a dark page as on a light one.

    Args:
      figure: of `cnn_jax.pictures`, whose width is `pictures.canvas.WIDTH`.
      alt: what can be seen, for those who cannot see it.
      caption: what it means, in plain words.
    """
    return f"<figure>\n{_inline_svg(figure, alt)}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def _inline_svg(figure: Figure, alt: str) -> str:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}), warnings.catch_warnings():
        # Text stays text, and the browser has the letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True)
    # An artist's title is shown under the pointer, `canvas.entitle`.
    # What XML needs and HTML does not: a header, name spaces, a style of its own (the page has it), and metadata that
    # name addresses. The identifiers of groups, which nothing refers to, are the same in every figure.
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", file.getvalue(), flags=re.DOTALL)
    head, rest = svg[svg.index("<svg") :].split(">", 1)
    rest = re.sub(rf"<g id=([\"']){TITLE}(.*?)\1>", r"<g><title>\2</title>", rest)
    rest = re.sub(r'(<(?:g|image)\b[^>]*?) id="[^"]*"', r"\1", rest)
    rest = re.sub(r"\b(fill|stroke): #000000\b", r"\1: currentColor", rest)
    view = head[head.index('viewBox="') :].split('"')[1]
    rest = re.sub(r"\s*\n\s*", "\n", rest).strip()
    return f'<svg viewBox="{view}" role="img" aria-label="{escape(alt)}">{rest}'
