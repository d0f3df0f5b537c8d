"""What the loop knows besides the state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Progress:
    """The loop's running sums of one seed; they travel in the checkpoints as JSON.

    Attributes:
        steps: steps taken in the epoch so far.
        sums: of the loss and each metric over those steps, by name.
        best: the first metric, the higher the better, and the negative loss on the validation images after the best
            epoch so far.
        stale: epochs since then.
        seconds: time spent so far, over all starts.
    """

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: list[float] = field(default_factory=list)
    stale: int = 0
    seconds: float = 0.0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Counts one step."""
        self.steps += 1
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def new_epoch(self) -> None:
        """Forgets the steps of the last epoch."""
        self.steps, self.sums = 0, {}

    def means(self) -> dict[str, float]:
        """Means over the epoch so far."""
        return {name: total / max(self.steps, 1) for name, total in self.sums.items()}


def to_json(progress: Sequence[Progress]) -> dict[str, Any]:
    """The progress of each seed as JSON values."""
    return {"seeds": [dataclasses.asdict(one) for one in progress]}


def from_json(values: dict[str, Any]) -> list[Progress]:
    """What `to_json` was given."""
    return [Progress(**fields) for fields in values["seeds"]]
