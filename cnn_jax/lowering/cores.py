"""How many cores a program for the CPU is computed by."""

from __future__ import annotations

import os


def cores() -> int:
    """How many cores this process may run on, which XLA's programs take all of."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
