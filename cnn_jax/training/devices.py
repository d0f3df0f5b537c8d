"""Which of JAX's devices a program runs on."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.errors import InputError


def current_device() -> jax.Device:
    """The device that new arrays are put on."""
    return jnp.zeros(()).devices().pop()


def select_device(name: str) -> None:
    """Makes JAX use the device of that name: a platform, as "cpu", "gpu" or "tpu", or one of several, as "gpu:1".

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
    jax.config.update("jax_default_device", device)
