"""Activations by name, so that a model's configuration can be written down and read back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax

from cnn_jax import functional
from cnn_jax.errors import InputError

Activation = Literal["elu", "gelu", "leaky_relu", "relu", "scaled_tanh", "sigmoid", "silu", "softplus", "tanh"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "relu": jax.nn.relu,
    "scaled_tanh": functional.scaled_tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jax.nn.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The elementwise function called `name`; InputError with the choices for any other name."""
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}") from None
