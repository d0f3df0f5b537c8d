"""`write_sweep`: what a sweep tried and what it chose, as one HTML file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import pictures
from cnn_jax.data.pictures import shown as path_text
from cnn_jax.files import write_file
from cnn_jax.report import page
from cnn_jax.runs.axes import shown
from cnn_jax.runs.display import duration
from cnn_jax.runs.folder import REPORT
from cnn_jax.runs.sweep import Sweep
from cnn_jax.runs.tables import sweep_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_sweep(path: Path, found: Sweep) -> Path:
    """Writes the page on a sweep into its folder, as report.html, and its pictures; returns the page.

    The pictures are sweep.png, or sweep-1.png and so on where there are several.

    Raises:
        InputError: it cannot be written.
    """
    header, rows = sweep_table(found)
    axes = len(found.axes)
    metric, mean = found.metric, float(found.values[found.chosen].mean())
    remark = found.summary(found.chosen).text(metric.is_share) if len(found.seeds) > 1 else ""
    count = len(found.settings) * len(found.seeds)
    counts = f"{len(found.settings)} combinations, {len(found.seeds)} seeds, {len(found.programs)} programs"
    figures = {
        "chosen": (", ".join(map(shown, found.settings[found.chosen].values())), ", ".join(found.axes)),
        f"validation {metric.name}": (metric.shown(mean), remark),
        "runs": (str(count), counts),
        "time": (duration(found.seconds), "training and measuring"),
    }  # fmt: skip
    several = "their mean over the seeds on the validation images" if len(found.seeds) > 1 else "the validation images"
    said = (
        f"All combinations were measured on images held out from training, and one was chosen by {several}. Only that "
        "one has been measured on the test images; its own report is best/report.html, beside this page. Where the "
        "intervals of two combinations overlap, these seeds may not tell them apart."
    )
    table = page.table(header, rows, left=(*range(axes), len(header) - 1))
    drawn = _pictures(found)
    sections = [page.section(one.heading, page.picture(one.figure, one.alt, one.caption), wide=False) for one in drawn]
    for k, one in enumerate(drawn, 1):
        write_file(path / f"sweep{f'-{k}' if len(drawn) > 1 else ''}.png", _png(one.figure))
    body = [page.title(f"Sweep over {' and '.join(found.axes)}", path_text(path)), page.headline(figures), "<main>",
            page.section("What was tried", page.paragraph(said), table), *sections, "</main>"]  # fmt: skip
    out = path / REPORT
    write_file(out, page.page(f"Sweep over {', '.join(found.axes)}", body))
    return out


@dataclass(frozen=True, kw_only=True)
class _Picture:
    heading: str
    figure: Figure
    alt: str
    caption: str


def _pictures(found: Sweep) -> list[_Picture]:
    """A map of two fields; of one or of more a curve each, the others as chosen."""
    metric, scale = found.metric, 100.0 if found.metric.is_share else 1.0
    is_error = metric.name == "accuracy"
    values = 100 * (1 - found.values) if is_error else scale * found.values
    name = "validation error, %" if is_error else f"validation {metric.name}" + (", %" if metric.is_share else "")
    names = list(found.axes)
    places = [[one if type(one) in (int, float) else shown(one) for one in tried] for tried in found.axes.values()]
    grid = values.reshape(*map(len, places), -1)
    if len(names) == 2:
        figure = pictures.swept_pair(grid, places, names=names, figure_name=name)
        alt = f"Map of the {name} over {names[0]} and {names[1]}."
        caption = f"Means of the {name}, over the seeds where there are several; empty where training diverged."
        return [_Picture(heading="Where it is good", figure=figure, alt=alt, caption=caption)]
    at = np.unravel_index(found.chosen, grid.shape[:-1])
    drawn = []
    for axis, each in enumerate(names):
        line = grid[tuple(slice(None) if k == axis else at[k] for k in range(len(names)))]
        figure = pictures.swept(line, places[axis], name=each, figure_name=name, chosen=int(at[axis]))
        rest = "" if len(names) == 1 else " All other fields are as chosen."
        caption = f"Dots are seeds, the band the 95 % interval of their mean, the ring what was chosen.{rest}"
        drawn.append(_Picture(heading=each, figure=figure, alt=f"The {name} against {each}.", caption=caption))
    return drawn


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200)
    return file.getvalue()
