"""What the commands print beside tables of text."""

from __future__ import annotations

import json
import math
from typing import Any

from cnn_jax import terminal

WIDTH = 80  # columns that a matrix may take in a pipe or a file before it is summed up instead


def show_json(value: Any) -> None:
    """Prints a value as JSON; numbers that are not finite, for which JSON has no words, as null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    terminal.say(json.dumps(plain(value), indent=2))


def percent(share: float) -> str:
    """A share as 98.33%, one that is not defined as a dash."""
    return f"{share:.2%}" if math.isfinite(share) else "-"
