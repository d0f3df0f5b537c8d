"""What the numbers were measured on and with."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_jax.benchmark.yardstick import Yardstick
from cnn_jax.lowering.cores import cores


def describe_machine(yardstick: Yardstick, memory_kept: bool) -> dict[str, Any]:
    """Versions, processor, threads, memory and load average, as plain JSON values."""
    packages = ("cnn-jax", "jax", "jaxlib", "flax", "optax", "numpy") + (("torch",) if yardstick.torch is None else ())
    return {
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        "processor": _processor(),
        "cores": cores(),
        # XLA sizes its pool by the cores that the process may run on.
        "threads": {"jax": cores()} | ({"torch": yardstick.threads} if yardstick.torch is None else {}),
        "memory_kept": memory_kept,
        "onednn": yardstick.has_onednn,
        "load_average": list(os.getloadavg()),
    }


def say(machine: dict[str, Any]) -> str:
    """The same in a few lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = ", ".join(f"{name} {count}" for name, count in machine["threads"].items())
    load = " ".join(f"{value:.2f}" for value in machine["load_average"])
    memory = "kept by the process" if machine["memory_kept"] else "given back when freed"
    return (
        f"{versions}\n{machine['processor']}, {machine['cores']} cores; threads: {threads}; load average {load}\n"
        f"memory {memory}; ours with{'' if machine['onednn'] else 'out'} oneDNN"
    )


class Elsewhere:
    """Watches, while it is entered, how much of the machine goes to others: other processes, other machines' guests.

    Attributes:
      share: of all cores' time since it was entered; None where the system does not say.
    """

    share: float | None = None

    def __enter__(self) -> Elsewhere:
        self._before = _spent()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and (after := _spent()) is not None:
            wall, busy, own = (b - a for a, b in zip(self._before, after, strict=True))
            self.share = max(0.0, busy - own) / max(wall * (os.cpu_count() or 1), 1e-9)


def _spent() -> tuple[float, float, float] | None:
    """Seconds: on the wall, of all cores busy, and of this process and its finished children."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = ticks
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), busy, sum(os.times()[:4])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
