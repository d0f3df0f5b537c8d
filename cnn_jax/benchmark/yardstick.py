"""What of PyTorch there is to compare with."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import NamedTuple

from cnn_jax.benchmark.timing import Contender

INSTALL = "pip install -e '.[bench]'"


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Why there is no PyTorch, and why there is no torch.compile, each in one line; None where there is.

    Attributes:
      torch, compile: the reasons.
      threads: number of threads that PyTorch computes with.
    """

    torch: str | None
    compile: str | None
    threads: int = 0


class Field(NamedTuple):
    """The contenders of a case, and for those left out the reason, by name."""

    contenders: list[Contender]
    skipped: dict[str, str]


def cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_yardstick(quick: bool) -> Yardstick:
    """Imports PyTorch where it is installed and gives it a thread a core."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # not installed, or installed for another machine, which ends in whatever it likes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Yardstick(torch=f"no PyTorch ({reason}); to compare with it: {INSTALL}", compile="no PyTorch")
    torch.set_num_threads(cores())
    return Yardstick(torch=None, compile="left out by --quick" if quick else None, threads=torch.get_num_threads())
