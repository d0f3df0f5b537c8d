"""`cnn-jax describe`: what a model consists of."""

from __future__ import annotations

import os
from pathlib import Path

import flax.linen as nn

from cnn_jax import models, parts, terminal
from cnn_jax.describe import describe as describe_model
from cnn_jax.errors import InputError
from cnn_jax.runs.load import load_run

_LARGEST = 1 << 16  # pixels a side, and channels


def describe(name: str, size: tuple[int, int] | None, channels: int | None, form: str) -> None:
    """Prints the volume table of a model, by name, by its text or of a run, for images of (height, width) and channels.

    `form` is text, markdown or html.

    Raises:
        InputError: there is no such model or run, or it cannot take such images.
    """
    own_size: tuple[int, int] | None
    if name not in models.MODELS and os.path.exists(name):
        run = load_run(Path(name))
        model, own_size, own_channels = run.model, run.input_size, run.image_shape[2]
    else:
        model = _read(name)
        # A model that takes any size may say which is the usual one, as those of ImageNet do.
        own_size = models.input_size(model) or getattr(model, "usual_size", None)
        own_channels = getattr(model, "input_channels", 1)
    size = size or own_size
    if size is None:
        raise InputError("--size: expected height and width of the image, as this model has none of its own, got none")
    shape = (*size, own_channels if channels is None else channels)
    for option, value in zip(("--size", "--size", "--channels"), shape, strict=True):
        if not 1 <= value <= _LARGEST:
            raise InputError(f"{option}: expected whole numbers from 1 to {_LARGEST:,}, got {value}")
    volumes = describe_model(model, shape)
    if form == "text":
        width = terminal.width()
        terminal.say(volumes.text() if width is None else volumes.text(width))
    else:
        terminal.say({"markdown": volumes.markdown, "html": volumes.html}[form]())


def _read(text: str) -> nn.Module:
    """The model that a text is the call of.

    Raises:
        InputError: it is of none; if it is no call at all, the message says what else there could be.
    """
    try:
        model: nn.Module = parts.parse(text, nn.Module, models.MODELS)
    except InputError as error:
        if "(" in text or ".py:" in text:
            raise InputError(f"MODEL|RUN: {error}") from error
        raise InputError(
            f"MODEL|RUN: expected a model ({', '.join(models.MODELS)}), the text of one, such as "
            f"'resnet18(features=32)', or the folder of a run, got '{terminal.plain(text)}'"
        ) from None
    return model
