"""When in a run something is due: ends of epochs, ends of calls, saves."""

from __future__ import annotations

from dataclasses import dataclass

from cnn_jax.runs.execution import CheckpointConfig

FETCH_EVERY = 16  # steps; fetching metrics waits for the device, so it is done this often or less
LONGEST_CALL = 1.0  # seconds that one call should take at most: signals and the clock are looked at between calls


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """The dates of a run.

    Attributes:
        images: training images of a seed.
        batch_size: images a step.
        epochs: passes over the images.
        total: steps.
        checkpoint: when the state is saved.
    """

    images: int
    batch_size: int
    epochs: int
    total: int
    checkpoint: CheckpointConfig

    def epochs_after(self, step: int) -> int:
        """Whole epochs in that many steps, and the one that the end of the run cuts off.

        A step may reach into another epoch, which does not count.
        """
        seen = max(step, 0) * self.batch_size
        return min(-(-seen // self.images) if step == self.total else seen // self.images, self.epochs)

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch has ended with the step of this number, counted from 1."""
        return self.epochs_after(step) > self.epochs_after(step - 1)

    def next_call(self, step: int, per_call: int, steps_per_second: float) -> int:
        """Steps of the next call: up to the end of the epoch, of the run, or where a checkpoint is due, if it can be.

        Args:
            step: steps taken.
            per_call: steps that a call can take.
            steps_per_second: how fast they are taken; 0 where that is not known yet.
        """
        epoch_ends = -(-(step * self.batch_size // self.images + 1) * self.images // self.batch_size)
        most = max(1, int(steps_per_second * LONGEST_CALL)) if steps_per_second else FETCH_EVERY
        stops = [step + min(most, per_call), epoch_ends, self.total]
        if self.checkpoint.every_steps is not None:
            stops.append((step // self.checkpoint.every_steps + 1) * self.checkpoint.every_steps)
        return min(stops) - step

    def save_is_due(self, step: int, elapsed: float) -> bool:
        """Whether to save the state after that many steps, that many seconds after the last save."""
        every_steps, every_seconds = self.checkpoint.every_steps, self.checkpoint.every_seconds
        return (every_steps is not None and step % every_steps == 0) or (
            every_seconds is not None and elapsed >= every_seconds
        )
