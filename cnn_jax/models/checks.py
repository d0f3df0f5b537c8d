"""What models require of their fields and inputs, with one line for each violation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import jax

from cnn_jax.errors import InputError
from cnn_jax.functional.arguments import less


def positive_int(model: str, field: str, value: object) -> None:
    """InputError unless `value` is an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{model}: {field} must be an int of at least 1, got {value!r}")


def positive_ints(model: str, field: str, values: object) -> None:
    """InputError unless `values` is a sequence, perhaps empty, of ints of at least 1."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{model}: {field} must be a sequence of ints of at least 1, got {values!r}")
    for value in values:
        positive_int(model, f"each of {field}", value)


def positive(model: str, field: str, value: object) -> None:
    """InputError unless `value` is a finite number above 0."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise InputError(f"{model}: {field} must be a number above 0, got {value!r}")


def share(model: str, field: str, value: object) -> None:
    """InputError unless `value` is a number from 0 to below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise InputError(f"{model}: {field} must be a number from 0 to below 1, got {value!r}")


def images(model: str, images: jax.Array, smallest: tuple[int, int]) -> None:
    """InputError unless `images` is (N, H, W, C) with H and W at least `smallest`."""
    height, width = smallest
    if images.ndim != 4 or any(map(less, images.shape[1:3], smallest)):
        raise InputError(
            f"{model} expects images (N, H, W, C) of at least {height}x{width} pixels, got shape {images.shape}"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
