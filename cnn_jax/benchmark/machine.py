"""What the numbers were measured on and with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_jax.benchmark.yardstick import Yardstick, cores


def describe_machine(yardstick: Yardstick) -> dict[str, Any]:
    """Versions, processor, threads and load average, as plain JSON values."""
    packages = ("cnn-jax", "jax", "jaxlib", "flax", "optax", "numpy") + (("torch",) if yardstick.torch is None else ())
    return {
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        "processor": _processor(),
        "cores": cores(),
        # XLA sizes its pool by the cores that the process may run on.
        "threads": {"jax": cores()} | ({"torch": yardstick.threads} if yardstick.torch is None else {}),
        "load_average": list(os.getloadavg()),
    }


def say(machine: dict[str, Any]) -> str:
    """The same in a few lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = ", ".join(f"{name} {count}" for name, count in machine["threads"].items())
    load = " ".join(f"{value:.2f}" for value in machine["load_average"])
    return f"{versions}\n{machine['processor']}, {machine['cores']} cores; threads: {threads}; load average {load}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
