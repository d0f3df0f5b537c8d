"""Whether contenders compute the same thing, up to the rounding of float32."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

UNIT = float(np.finfo(np.float32).eps) / 2
# Rounding errors of a sum of n terms add up like a random walk: with probability 1 - 2 exp(-l^2 / 2) they stay below
# l sqrt(n) u times the sum of the terms' magnitudes (Higham and Mary, "A new approach to probabilistic rounding error
# analysis", 2019, Theorem 2.4). With two sums compared and millions of numbers looked at, l = 8 leaves no false alarm.
WALK = 8.0

Numbers = Mapping[str, np.ndarray]


class DisagreementError(Exception):
    """Two contenders of a case do not compute the same thing: a bug of one of them."""


def typical(terms: int) -> float:
    """The typical rounding error of a sum of that many terms, relative to the sum of the terms' magnitudes."""
    return math.sqrt(terms) * UNIT


def rounding(magnitudes: np.ndarray, terms: int) -> np.ndarray:
    """How far apart two sums of that many terms may lie, given the sums of the terms' magnitudes."""
    return WALK * typical(terms) * magnitudes


def check_elements(case: str, name: str, found: Numbers, expected: Numbers, tolerance: Numbers) -> None:
    """DisagreementError unless each number lies within its tolerance of the expected one.

    Args:
      case, name: of the case and of the contender, for the message.
      found, expected, tolerance: arrays of the same names and shapes.
    """
    for key, reference in expected.items():
        _check_shape(case, name, key, found[key], reference)
        error = np.abs(found[key] - reference)
        if not (error <= tolerance[key]).all():
            worst = np.unravel_index(np.argmax(error - tolerance[key]), error.shape)
            raise DisagreementError(
                f"{case}: {key} of {name} is {found[key][worst]:.9g} at {tuple(map(int, worst))}, expected "
                f"{reference[worst]:.9g} within {np.broadcast_to(tolerance[key], error.shape)[worst]:.3g}"
            )


def check_norms(case: str, name: str, found: Numbers, expected: Numbers, tolerance: Mapping[str, float]) -> None:
    """DisagreementError unless the norm of each array's difference from the expected one is within its tolerance."""
    for key, reference in expected.items():
        _check_shape(case, name, key, found[key], reference)
        error = float(np.linalg.norm(np.asarray(found[key] - reference, np.float64)))
        if not error <= tolerance[key]:
            raise DisagreementError(
                f"{case}: {key} of {name} is off by {error:.3g} (norm), expected at most {tolerance[key]:.3g}; "
                f"the norm of {key} is {float(np.linalg.norm(reference)):.3g}"
            )


def _check_shape(case: str, name: str, key: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise DisagreementError(f"{case}: {key} of {name} has shape {found.shape}, expected {expected.shape}")
