"""The base of all parts, and what they ask of their numbers."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from cnn_jax.errors import InputError

_LEAST, _GREATEST = 2.0**-126, 2.0**128 - 2.0**104  # normal numbers of float32


class Part:
    """The base of the base classes of all kinds but models."""

    def check(self, field: str, is_valid: Callable[[Any], bool], expected: str) -> None:
        """Raises `InputError` unless the field's value is valid. A traced value, as in a sweep, is not looked at."""
        value = getattr(self, field)
        if is_concrete(value) and not is_valid(value):
            raise InputError(f"{snake(type(self).__name__)}: expected {field} to be {expected}, got {value!r}")

    def __or__(self, other: Any) -> tuple[Any, ...]:
        return (self, *other) if isinstance(other, tuple) else (self, other)

    def __ror__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*other, self)


def snake(name: str) -> str:
    """A class's name as texts have it: SoftmaxCrossEntropy is softmax_cross_entropy, AdamW adamw, SGD sgd."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name).lower()


def is_concrete(value: Any) -> bool:
    """Whether a value is known now, and not traced by a transformation of JAX."""
    jax = sys.modules.get("jax")
    return jax is None or not isinstance(value, jax.core.Tracer)


def is_held(value: float) -> bool:
    """Whether float32, which runs compute in, holds a number as neither 0 nor infinity, unless it is 0."""
    return not value or _LEAST <= abs(value) <= _GREATEST


def is_positive(value: float) -> bool:
    """Whether a number is above 0, finite, and held by float32."""
    return math.isfinite(value) and value > 0 and is_held(value)


def is_non_negative(value: float) -> bool:
    """Whether a number is 0 or more, finite, and held by float32."""
    return math.isfinite(value) and value >= 0 and is_held(value)


def is_share(value: float) -> bool:
    """Whether a number is from 0 to below 1."""
    return 0 <= value < 1
