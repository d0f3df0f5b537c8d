"""`cnn-jax detect`: digits in pictures, with their boxes."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax import detection, pictures, terminal
from cnn_jax.cli.tables import percent, show_json
from cnn_jax.data.pictures import find_pictures, on_paper, open_picture, shown
from cnn_jax.errors import InputError
from cnn_jax.files import write_file
from cnn_jax.runs.load import load_run
from cnn_jax.runs.outputs import check_output

_EDGES = ("top", "left", "bottom", "right")
_SURE = 0.9  # a drawing says how sure it is only of what is less sure than this
_SUFFIXES = (".png", ".jpg", ".jpeg")  # of one file to draw to; anything else is a folder


def detect(path: Path, images: tuple[Path, ...], least: float, draw: Path | None, as_json: bool) -> bool:
    """Prints what the run in `path` finds in each picture; names on standard error what it cannot read or write.

    Args:
        path: the folder of a run that was trained with a background class.
        images: files, or folders of them.
        least: the lowest score that is shown.
        draw: where to put the pictures with the boxes drawn on them: a folder or, for one picture, a PNG or JPEG file.
        as_json: print a JSON list instead of a table.

    Returns:
        Whether all pictures were read, and at least one, and all drawings written.

    Raises:
        InputError: the run cannot be read or has no background class, no picture was named, `least` is no score, or a
            drawing would take the place of a picture or of a file of a run.
    """
    if not images:
        raise InputError("IMAGE: expected at least one picture or folder of pictures, got none; see --help")
    if not 0 < least <= 1:
        raise InputError(f"--least: expected a score above 0 and at most 1, got {least:g}")
    files, faults = find_pictures(images)
    targets = _targets(draw, files) if draw is not None else [None] * len(files)
    run = load_run(path)
    detection.check_finds(run)
    found = []
    for file, target in zip(files, targets, strict=True):
        try:
            pixels = open_picture(file)
        except InputError as error:
            faults.append(f"{shown(file)}: {error}")
            continue
        boxes, labels, scores = detection.find_in_picture(run, pixels, least)
        names = [run.class_names[int(label)] for label in labels]
        here = [
            {"name": name, "score": float(score), **dict(zip(_EDGES, map(float, box), strict=True))}
            for name, score, box in zip(names, scores, boxes, strict=True)
        ]
        found.append({"path": str(file), "height": pixels.shape[0], "width": pixels.shape[1], "found": here})
        if target is not None:
            texts = [
                name if score >= _SURE else f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)
            ]
            try:
                _write(target, pictures.draw_boxes(on_paper(pixels), np.asarray(boxes), texts))
            except InputError as error:  # what was found can be shown all the same
                faults.append(f"--draw: {error}")
    if as_json:
        show_json(found)
    elif found:
        terminal.show_table(
            ("picture", "found", "score", *_EDGES), [row for picture in found for row in _rows(picture)], left=(0, 1)
        )
    for fault in faults:
        terminal.complain(f"error: {terminal.one_line(fault)}")
    return not faults


def _rows(picture: dict[str, Any]) -> list[tuple[str, ...]]:
    name = shown(Path(picture["path"]))
    rows = [
        (name, one["name"], percent(one["score"]), *(f"{one[edge]:.0f}" for edge in _EDGES)) for one in picture["found"]
    ]
    return rows or [(name, "nothing", *[""] * (1 + len(_EDGES)))]


def _targets(draw: Path, files: Sequence[Path]) -> list[Path]:
    """A file to draw each picture to: `draw` itself, or one in that folder, named like the picture.

    Raises:
        InputError: one file was named for several pictures, or the file is one of the pictures or of a run.
    """
    if draw.suffix.lower() in _SUFFIXES and not os.path.isdir(draw):
        if len(files) != 1:
            raise InputError(f"--draw: expected a folder for {len(files)} pictures, got the file {shown(draw)}")
        targets = [draw]
    else:
        targets = []
        for file in files:
            numbered = (f"{file.stem}-{number}.png" for number in itertools.count(2))
            names = itertools.chain([f"{file.stem}.png"], numbered)
            targets.append(next(draw / name for name in names if draw / name not in targets))
    for target in targets:
        if any(os.path.exists(target) and os.path.exists(file) and target.samefile(file) for file in files):
            raise InputError(f"--draw: expected a new file, got the picture {shown(target)} itself")
        check_output(target)
    return targets


def _write(target: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG" if target.suffix.lower() == ".png" else "JPEG")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{shown(target)}: expected a file that can be written, got: {error.strerror}") from None
    write_file(target, encoded.getvalue())
