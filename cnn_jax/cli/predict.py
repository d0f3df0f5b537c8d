"""`cnn-jax predict`: the most likely classes of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cnn_jax import terminal
from cnn_jax.cli.opening import check_finite
from cnn_jax.cli.tables import percent, show_json
from cnn_jax.data.pictures import find_pictures, read_picture, shown
from cnn_jax.errors import InputError
from cnn_jax.runs.load import load_run


def predict(path: Path, pictures: tuple[Path, ...], top: int, as_json: bool) -> bool:
    """Prints the `top` classes of each picture, by the run in `path`; names those it cannot read on standard error.

    Returns:
        Whether all pictures were read, and at least one.

    Raises:
        InputError: the run cannot be read, no picture was named, or `top` is no count.
    """
    if not pictures:
        raise InputError("IMAGE: expected at least one picture or folder of pictures, got none; see --help")
    if top < 1:
        raise InputError(f"--top: expected a whole number >= 1, got {top}")
    run = load_run(path)
    files, faults = find_pictures(pictures)
    images: dict[Path, np.ndarray] = {}
    for file in files:
        try:
            images[file] = read_picture(file, run.image_shape, run.ink)
        except InputError as error:
            faults.append(str(error))
    probabilities = run.probabilities(np.stack(list(images.values()))) if images else np.zeros((0, 1))
    check_finite(run, probabilities)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
    found = [
        (file, [(run.class_names[k], float(row[k])) for k in best])
        for file, row, best in zip(images, probabilities, order, strict=True)
    ]
    if as_json:
        show_json(
            [
                {"path": str(file), "classes": [{"name": name, "probability": p} for name, p in classes]}
                for file, classes in found
            ]
        )
    elif found:
        places = range(1, len(found[0][1]) + 1)
        terminal.show_table(
            ("picture", *(heading for k in places for heading in (f"{k}.", ""))),
            [(shown(file), *(t for name, p in classes for t in (name, percent(p)))) for file, classes in found],
            left=(0, *(2 * k - 1 for k in places)),
        )
    for fault in faults:
        terminal.complain(f"error: {terminal.one_line(fault)}")
    return not faults
