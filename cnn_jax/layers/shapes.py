"""What several layers require of their fields and inputs."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from cnn_jax.functional import arguments


def kernel_window(caller: str, kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    return arguments.window(caller, "kernel_size", (kernel_size,) if isinstance(kernel_size, int) else kernel_size)


def channels_of(caller: str, inputs: jax.Array) -> int:
    if jnp.ndim(inputs) == 0:
        raise ValueError(f"{caller}: input must have a channel dimension, got a scalar")
    return jnp.shape(inputs)[-1]
