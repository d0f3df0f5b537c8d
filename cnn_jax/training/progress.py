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
        loss: sum of the losses of those steps.
        accuracy: sum of the accuracies of those steps.
        best: accuracy and negative loss on the validation split after the best epoch so far.
        seconds: time spent so far, over all starts.
    """

    steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    best: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Counts one step."""
        self.steps += 1
        self.loss += metrics["loss"]
        self.accuracy += metrics["accuracy"]

    def new_epoch(self) -> None:
        """Forgets the steps of the last epoch."""
        self.steps, self.loss, self.accuracy = 0, 0.0, 0.0

    def means(self) -> dict[str, float]:
        """Means over the epoch so far."""
        steps = max(self.steps, 1)
        return {"loss": self.loss / steps, "accuracy": self.accuracy / steps}


def to_json(progress: Sequence[Progress]) -> dict[str, Any]:
    """The progress of each seed as JSON values: of one seed its fields, of several a list of them."""
    fields = [dataclasses.asdict(one) for one in progress]
    return fields[0] if len(fields) == 1 else {"replicas": fields}


def from_json(values: dict[str, Any]) -> list[Progress]:
    """What `to_json` was given."""
    return [Progress(**fields) for fields in values.get("replicas", [values])]
