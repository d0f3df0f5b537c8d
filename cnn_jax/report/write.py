"""`write_report`: a run as one HTML file."""

from __future__ import annotations

import os
from pathlib import Path

from cnn_jax.data.pictures import shown
from cnn_jax.errors import InputError
from cnn_jax.report import inside, page, race, sections, several
from cnn_jax.report.findings import Findings, gather
from cnn_jax.runs.folder import REPORT, read_config
from cnn_jax.runs.outputs import check_output, write_output


def write_report(path: Path, out: Path | None = None) -> Path:
    """Writes what a run is, how it learned and what it looks like inside, as one HTML file that needs nothing else.

    The report on a run of several seeds has the figures of all, and everything else of the median one. The test images
    are looked for as `cnn-jax evaluate` does; where they are not available, a sentence replaces the parts that need
    them.

    Args:
        path: the folder of a run.
        out: the file to write; by default report.html in that folder.

    Returns:
        The file that was written, whole or not at all; see `files.write_file` for what is no regular file.

    Raises:
        InputError: the folder holds no run, or one that is not finished or cannot be read; or the file cannot be
            written, or is one that a run needs.
    """
    out = path / REPORT if out is None else out
    config = read_config(path)
    check_place(out, own=REPORT)
    seeds = several.read_seeds(path, config)
    middle = several.median(seeds) if seeds else None
    found = gather(middle.path if middle else path)
    name = f"{sections.model_name(found)} on {found.run.data_name}"
    body = [page.title(name, shown(path))]
    if middle:
        body += [several.summary(seeds, found), "<main>", *several.comparison(seeds, found), several.detail(middle)]
        body += [sections.found_in_scenes(found)]
    else:
        body += [sections.summary(found), "<main>", sections.found_in_scenes(found), sections.learning(found)]
        body += [race.section(found, path)]
    body += [*_one(found), sections.origin(config, found), sections.configuration(config), "</main>"]
    write_output(out, page.page(name, body), own=REPORT)
    return out


def check_place(out: Path, own: str = "") -> None:
    """InputError where a page cannot be written: better before the work than after it. `own` as for `write_output`."""
    check_output(out, own=own)
    if os.path.isdir(out):
        raise InputError(f"{out}: expected a file to write the report to, it is a folder")
    if not os.path.isdir(out.parent):
        raise InputError(f"{out}: expected a file in an existing folder; make the folder, or choose another")


def _one(found: Findings) -> list[str]:
    """What both kinds of report show of one trained network."""
    return [
        sections.shown(found),
        sections.mistakes(found),
        sections.classes(found),
        inside.filters(found),
        inside.attention(found),
        inside.features(found),
        sections.volumes(found),
    ]
