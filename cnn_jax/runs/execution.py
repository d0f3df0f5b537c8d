"""`Execution` and `Place`: how fast and how safely a run goes, and where it is. Neither decides a number of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cnn_jax.errors import InputError
from cnn_jax.training.recipe import check


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often the state of a run is saved. It is always saved at the end and when the run is interrupted."""

    every_steps: int | None = None
    """Save every so many steps; by default, or with None, the clock alone decides."""
    every_seconds: float | None = 20.0
    """Save when so many seconds have gone by since the last save; with None the steps alone decide."""
    keep: int = 3
    """How many of the newest are kept. With validation images the best is kept besides."""

    def __post_init__(self) -> None:
        if self.every_steps is not None:
            check(self.every_steps >= 1, "checkpoint.every_steps", "a whole number >= 1 or None", self.every_steps)
        if self.every_seconds is not None:
            valid = math.isfinite(self.every_seconds) and self.every_seconds >= 0
            check(valid, "checkpoint.every_seconds", "a number >= 0 or None", self.every_seconds)
        check(self.keep >= 1, "checkpoint.keep", "a whole number >= 1", self.keep)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What decides how fast and how safely a run goes. All of it may change where a run is resumed.

    Equal bits are promised under equal execution; under another one, equality to rounding.
    """

    steps_per_call: int | None = None
    """Steps taken by one call of a compiled program, at most those of an epoch and of a second: between calls progress
    is shown, checkpoints are written and signals heeded. It changes the speed; 1 may round otherwise than more. By
    default, or with None, it is the most, but on CPU 1 where the model has convolutions of XLA's own, which are slow in
    loops."""
    onednn: bool = False
    """On a CPU compile the train steps with oneDNN's convolutions and products, if XLA has them. LeNet-5 gains 0 to
    10 %. Such a program rounds otherwise, and is compiled anew at every start: XLA cannot write it to the cache."""
    device: str | None = None
    """Device to run on, as JAX names it: cpu, gpu, tpu, or one of several, gpu:1. By default JAX's first. Replicas are
    spread over all devices, or all of the platform named; on cpu that is over its cores."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        if self.steps_per_call is not None:
            check(self.steps_per_call >= 1, "steps_per_call", "a whole number >= 1 or None", self.steps_per_call)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is, and what becomes of one that is there."""

    out: Path | None = None
    """Folder of the run; by default a new one, runs/EXPERIMENT-DATA-TIME."""
    resume: bool = False
    """Go on with the run in the folder given by `out` where it stopped; start it if there is none."""
    overwrite: bool = False
    """Replace the run in the folder given by `out`."""
    report: bool = True
    """Write report.html into the folder of the run when it has ended, as `cnn-jax report` does; it takes seconds."""
    dry_run: bool = False
    """Build and compile everything, say how large it is, and train nothing; nothing is written."""

    def __post_init__(self) -> None:
        both = self.resume and self.overwrite
        if both:
            raise InputError("resume, overwrite: expected at most one of the two, got both")
        if self.resume and self.out is None:
            raise InputError("resume: expected the folder of the run in `out`, got none")


def check_seeds(seed: int, replicas: int = 1) -> None:
    """Raises `InputError` unless there are as many seeds from `seed` on."""
    check(0 <= seed < 2**31, "seed", "a whole number from 0 to 2147483647", seed)
    check(1 <= replicas <= 2**31 - seed, "replicas", f"a whole number from 1 to {2**31 - seed}", replicas)
