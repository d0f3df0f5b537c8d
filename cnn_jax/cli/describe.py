"""`cnn-jax describe`: what a model consists of."""

from __future__ import annotations

import os
from pathlib import Path

from cnn_jax import models, terminal
from cnn_jax.describe import describe as describe_model
from cnn_jax.errors import InputError
from cnn_jax.training import load_run

_LARGEST = 1 << 16  # pixels a side, and channels


def describe(name: str, size: tuple[int, int] | None, channels: int | None, form: str) -> None:
    """Prints the volume table of a model, by name or of a run, for images of (height, width) and so many channels.

    `form` is text, markdown or html.

    Raises:
        InputError: there is no such model or run, or it cannot take such images.
    """
    if name in models.MODELS:
        model = models.build(name)
        own_channels = getattr(model, "input_channels", 1)
    elif os.path.exists(name):
        run = load_run(Path(name))
        model, own_channels = run.model, run.image_shape[2]
    else:
        raise InputError(
            f"MODEL|RUN: expected a model ({', '.join(models.MODELS)}) or the folder of a run, "
            f"got '{terminal.plain(name)}'"
        )
    shape = (*(size or model.input_size), own_channels if channels is None else channels)
    for option, value in zip(("--size", "--size", "--channels"), shape, strict=True):
        if not 1 <= value <= _LARGEST:
            raise InputError(f"{option}: expected whole numbers from 1 to {_LARGEST:,}, got {value}")
    volumes = describe_model(model, shape)
    if form == "text":
        width = terminal.width()
        terminal.say(volumes.text() if width is None else volumes.text(width))
    else:
        terminal.say({"markdown": volumes.markdown, "html": volumes.html}[form]())
