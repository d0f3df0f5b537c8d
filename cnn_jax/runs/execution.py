"""`Execution` and `Place`: how fast and how safely a run goes, and where it is. Neither decides any of its numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cnn_jax.errors import InputError
from cnn_jax.training.recipe import check

Feed = Literal["auto", "resident", "streamed"]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often the state of a run is saved. It is always saved at the end and when the run is interrupted."""

    every_steps: int | None = None
    """Save whenever this many steps have been taken; by default, or with None, only the clock decides."""
    every_seconds: float | None = 20.0
    """Save when this many seconds have passed since the last save; with None, only the steps decide."""
    keep: int = 3
    """How many of the newest to keep. With validation images the best one is kept as well."""

    def __post_init__(self) -> None:
        if self.every_steps is not None:
            check(self.every_steps >= 1, "checkpoint.every_steps", "a whole number >= 1 or None", self.every_steps)
        if self.every_seconds is not None:
            valid = math.isfinite(self.every_seconds) and self.every_seconds >= 0
            check(valid, "checkpoint.every_seconds", "a number >= 0 or None", self.every_seconds)
        check(self.keep >= 1, "checkpoint.keep", "a whole number >= 1", self.keep)


@dataclass(frozen=True, kw_only=True)
class MeshShape:
    """How many devices there are along each axis of a mesh. Batches are divided over all of them."""

    data: int = 1
    """Devices, or groups of devices, that hold the whole state each."""
    fsdp: int = 1
    """Devices over which large kernels are divided, with all that the optimiser and averages keep of them."""

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return f"data={self.data}" if self.fsdp == 1 else f"data={self.data}, fsdp={self.fsdp}"

    @classmethod
    def parse(cls, text: str) -> MeshShape:
        """The shape that a text such as "data=8" or "data=4, fsdp=2" names; an axis that is left out has one device.

        Raises:
            InputError: it is none.
        """
        found = [re.fullmatch(r"\s*(data|fsdp)\s*=\s*([1-9][0-9]{0,8})\s*", axis) for axis in text.split(",")]
        sizes = {match[1]: int(match[2]) for match in found if match}
        if len(sizes) < len(found):
            raise InputError(f"mesh: expected numbers of devices, as data=8 or 'data=4, fsdp=2', got {text!r}")
        return cls(**sizes)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What decides how fast and how safely a run goes. All of it may change when a run is resumed.

    Equal bits are promised under equal execution; otherwise, equality to rounding.
    """

    steps_per_call: int | None = None
    """Steps taken by one call of a compiled program, at most an epoch's and a second's worth: between calls progress is
    shown, checkpoints are written and signals are acted on. It affects speed only; 1 may round differently from more.
    By default, or with None, as many as possible, but on a CPU 1 where the model has convolutions of XLA's own, which
    are slow in loops."""
    onednn: bool = False
    """On a CPU, compile the train steps with oneDNN's convolutions and products, if XLA has them. LeNet-5 gains 0 to
    10 %. Such a program rounds differently and is recompiled at every start: XLA cannot write it to the cache."""
    device: str | None = None
    """Device to run on, as JAX names it: cpu, gpu, tpu, or one of several, gpu:1. By default, all that JAX sees; with
    the name of a platform, all of those; on cpu, replicas are spread over its cores."""
    mesh: str | None = None
    """Devices that share the batches of one seed, as data=8; with 'data=4, fsdp=2' pairs of them also share the large
    kernels and what the optimiser and averages keep of these, which saves memory. By default, or with None, batches
    are divided over as many devices as divide them evenly. Several seeds are spread over the devices instead."""
    profile: bool = False
    """Trace ten steps, the first after those that compile, into the folder `profile` of the run, which TensorBoard's
    profiler and ui.perfetto.dev show: on the device by parts of a step (augment, model, optimizer), on the host by
    purpose. Such an epoch takes longer."""
    feed: Feed = "auto"
    """How images reach the device: resident, all are on it, or streamed, batches are decoded ahead of the steps and
    sent. By default, or with auto, they are streamed where all of them decoded would take more than half of the memory
    that is free, on the host or on the device."""
    workers: int = 0
    """Processes that decode streamed images, with a thread a core between them; with 0, threads of this process do,
    which get in each other's way from some eight cores on: there take half as many processes as cores."""
    coordinator: str | None = None
    """Host and free port at which several processes meet that train together, each with its own devices, as
    node-1:9876: the host is that of process 0. By default, or with None, SLURM, Open MPI, GKE or Cloud TPU is asked
    where one of them started the process."""
    processes: int | None = None
    """How many processes train together; 1 asks no cluster."""
    process: int | None = None
    """Which of them this is, from 0 on. All have the same options otherwise, and share the folder of the run."""
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        check(self.feed in get_args(Feed), "feed", f"one of {', '.join(get_args(Feed))}", self.feed)
        check(self.workers >= 0, "workers", "a whole number >= 0", self.workers)
        if self.processes is not None:
            check(self.processes >= 1, "processes", "a whole number >= 1 or None", self.processes)
        if self.process is not None and self.processes is not None:  # `hosts.join` says what is missing
            valid, last = 0 <= self.process < self.processes, self.processes - 1
            check(valid, "process", f"a whole number from 0 to {last}, of --processes", self.process)
        if self.steps_per_call is not None:
            check(self.steps_per_call >= 1, "steps_per_call", "a whole number >= 1 or None", self.steps_per_call)
        if self.mesh is not None:
            MeshShape.parse(self.mesh)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run is kept, and what happens to one that is already there."""

    out: Path | None = None
    """Folder of the run; by default a new one, runs/EXPERIMENT-DATA-TIME."""
    resume: bool = False
    """Continue the run in the folder given by `out` from where it stopped; start it if there is none."""
    overwrite: bool = False
    """Replace the run in the folder given by `out`."""
    report: bool = True
    """Write report.html into the folder of the run at the end, as `cnn-jax report` does; it takes seconds."""
    dry_run: bool = False
    """Build and compile everything and show its size, but train and write nothing."""

    def __post_init__(self) -> None:
        both = self.resume and self.overwrite
        if both:
            raise InputError("resume, overwrite: expected at most one of the two, got both")
        if self.resume and self.out is None:
            raise InputError("resume: expected the folder of the run in `out`, got none")


def check_seeds(seed: int, replicas: int = 1) -> None:
    """Raises `InputError` unless there are that many seeds from `seed` on."""
    check(0 <= seed < 2**31, "seed", "a whole number from 0 to 2147483647", seed)
    check(1 <= replicas <= 2**31 - seed, "replicas", f"a whole number from 1 to {2**31 - seed}", replicas)
