"""What all pictures are drawn on: one width, a few colours, and tiles set in a grid.

Figures are made without pyplot, which keeps every figure it has made and one of them as the current: these need no
screen, can be drawn in threads, and go away with their last reference.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.0  # inches: shown over the whole width of a phone, text of these sizes can still be read
MARGIN = 0.06  # inches
LABEL = 9  # points
SMALL = 8  # points

# Of Okabe and Ito 2008, "Color universal design": told apart with any common colour vision, on light and on dark.
BLUE, VERMILION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
DIVERGING = "RdBu_r"  # blue below zero, white at zero, red above

LETTER = 0.62  # width of a letter over its height, in DejaVu, which is wider than most
BRIEF = 4  # columns: six names of so many have room below six tiles
TITLE = "title: "  # what the identifier of an artist begins with that has a title
_UNSEEN = ("Mn", "Me", "Cf")  # Unicode's categories of marks on letters, and of what only says how to write
_JOINERS = "\u200c\u200d"  # invisible between letters, but Persian and some pictograms need them

GAP = 0.08  # between tiles, as a share of a tile's width


def new_figure(height: float) -> Figure:
    """An empty figure, `WIDTH` inches wide and so many high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height))


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the figure's upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def grid_height(count: int, columns: int, width: float, aspect: float = 1.0, below: float = 0.0) -> float:
    """Height in inches of a grid of tiles that is that many inches wide.

    Args:
      count: number of tiles.
      columns: tiles side by side.
      width: of the grid in inches.
      aspect: height of a tile over its width.
      below: room under each row, as a share of a tile's width.
    """
    rows = -(-count // columns)
    return width / (columns * (1 + GAP) - GAP) * (rows * (aspect + below) + (rows - 1) * GAP)


def show_grid(axes: Axes, tiles: Sequence[np.ndarray], columns: int, below: float = 0.0, **options: Any) -> None:
    """Draws images of one size as a grid, row by row, in coordinates where a tile is one wide.

    Args:
      axes: filled with the grid; `grid_height` says how high it must be.
      tiles: arrays (h, w) or (h, w, 3 or 4).
      columns: tiles side by side.
      below: room under each row, as a share of a tile's width.
      options: for `Axes.imshow`.
    """
    aspect = tiles[0].shape[0] / tiles[0].shape[1]
    for index, tile in enumerate(tiles):
        left, top = tile_corner(index, columns, aspect, below)
        # Without interpolation each array reaches the page as it is, one pixel a value.
        axes.imshow(tile, extent=(left, left + 1, top + aspect, top), interpolation="none", **options)
    rows = -(-len(tiles) // columns)
    axes.set_xlim(0, columns * (1 + GAP) - GAP)
    axes.set_ylim(rows * (aspect + below) + (rows - 1) * GAP, 0)
    axes.set_aspect("auto")
    axes.set_axis_off()


def tile_corner(index: int, columns: int, aspect: float, below: float = 0.0) -> tuple[float, float]:
    """Left and top of a tile in the coordinates of `show_grid`."""
    row, column = divmod(index, columns)
    return column * (1 + GAP), row * (aspect + below + GAP)


def show_scale(figure: Figure, left: float, top: float, width: float, limit: float, colours: str = DIVERGING) -> None:
    """A scale of colours from -limit over zero to limit, 0.3 inches high, at a place given in inches."""
    axes = place(figure, left, top, width, 0.08)
    axes.imshow(np.linspace(-1, 1, 65)[None], cmap=colours, aspect="auto", extent=(-limit, limit, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-limit, 0, limit], [f"\N{MINUS SIGN}{limit:.2g}", "0", f"{limit:.2g}"], fontsize=SMALL)
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)


def as_picture(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) as grey or RGB values from 0 to 1 that can be shown: (H, W) or (H, W, 3).

    uint8 is taken as it is. Other numbers are stretched from their least to their greatest, each channel by itself,
    which gives a normalised image about the colours it had. Of two channels, or more than three, the mean is shown.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        values = image / 255
    else:
        values = image.astype(np.float64)
        low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
        values = (values - low) / np.where(high > low, high - low, 1)
    return values if values.shape[-1] == 3 else values.mean(axis=-1)


def columns(text: str) -> int:
    """How wide a text is in usual letters: Chinese, Japanese and Korean ones count as two, marks on letters as none."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text if unicodedata.category(c) not in _UNSEEN)


def room(labels: Iterable[str], size: float) -> float:
    """Inches that the widest of some labels takes, in letters of that many points."""
    return max(map(columns, labels), default=0) * LETTER * size / 72


def short(name: str, limit: int = 14) -> str:
    """A class name as a label of at most that many `columns`: unprintable characters replaced, a long middle left out.

    Names often differ in their last letters alone; only labels of less than 10 columns are cut at their end.
    """
    name = "".join(c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in name)
    if columns(name) > limit:
        tail = _beginning(name[::-1], (limit - 1) // 3 if limit >= 10 else 0)[::-1]
        name = f"{_beginning(name, limit - 1 - columns(tail))}\N{HORIZONTAL ELLIPSIS}{tail}"
    # What runs from right to left is set apart from what stands beside it, brackets and all.
    is_leftward = any(unicodedata.bidirectional(c) in ("R", "AL") for c in name)
    return f"\N{FIRST STRONG ISOLATE}{name}\N{POP DIRECTIONAL ISOLATE}" if is_leftward else name


def _beginning(text: str, limit: int) -> str:
    """As much of a text as fits into that many columns."""
    return text[: sum(width <= limit for width in itertools.accumulate(map(columns, text)))]


def labels(names: Sequence[str], limit: int = 14) -> list[str]:
    """Class names as labels, `short`; where two would be the same, the number of the class stands before each."""
    cut = [short(name, limit) for name in names]
    times = Counter(cut)
    return [short(f"{k} {name}", limit) if times[cut[k]] > 1 else cut[k] for k, name in enumerate(names)]


def entitle(artists: Iterable[Artist], names: Iterable[str]) -> None:
    """Keeps with artists what they stand for in full: a report shows that under the pointer."""
    for artist, name in zip(artists, names, strict=False):
        artist.set_gid(f"{TITLE}{name}")
