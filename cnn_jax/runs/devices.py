"""Which of JAX's devices a program runs on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.errors import InputError
from cnn_jax.lowering.cores import cores

_OPTIONS: Any = jax.config  # some versions of JAX declare its options to type checkers, some do not
_SPLIT: list[bool] = []  # one entry once `split_cpu` has made devices of the cores


def current_device() -> jax.Device:
    """The device that new arrays are put on."""
    return jnp.zeros(()).devices().pop()


def usable_devices() -> list[jax.Device]:
    """The devices that a program may be spread over: what `select_device` named, else all of JAX's."""
    selected = _OPTIONS.jax_default_device
    return [selected] if isinstance(selected, jax.Device) else jax.devices(selected)


def batch_devices() -> list[jax.Device]:
    """Those that the batches of one seed may be divided over: the same, but for cores that `split_cpu` made devices.

    One device of a CPU already uses all of its cores.
    """
    devices = usable_devices()
    return devices[:1] if _SPLIT and devices[0].platform == "cpu" else devices


def select_device(name: str) -> None:
    """Makes JAX use the devices of a platform, as "cpu", "gpu" or "tpu", or one of several, as "gpu:1".

    Raises:
        InputError: JAX sees no such device; the message lists those it sees.
    """
    platform, _, index = name.partition(":")
    try:
        # JAX takes "" for its own choice and Python takes -1 for the last; both are slips here.
        device = jax.devices(platform or "none")[int(f"+{index or 0}")]
    except (RuntimeError, ValueError, IndexError):
        seen = ", ".join(sorted({d.platform for d in jax.devices()} | {"cpu"}))
        raise InputError(f"device: expected one that JAX sees ({seen}), got {name!r}") from None
    jax.config.update("jax_default_device", device if index else platform)


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16; where nobody says, it has none."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return any(name in flags for name in ("avx512_bf16", "amx_bf16"))
    return False


def split_cpu() -> None:
    """Makes each core of the CPU a device of JAX, so that replicas spread over them.

    A small network gives one core little to share with another, but two replicas keep two cores busy. Only possible
    before JAX first looks for its devices: later, and where the environment sets their number, nothing changes.
    """
    chosen = _OPTIONS.jax_num_cpu_devices > 0 or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cores())
            _SPLIT.append(True)
