"""Muon for kernels that are held at a norm."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from cnn_jax.errors import InputError
from cnn_jax.parts import is_positive, is_share
from cnn_jax.training.optimizers import Optimizer
from cnn_jax.training.state import path_of

# Of the quintic a x + b x^3 + c x^5 that a Newton-Schulz step applies to the singular values (Jordan et al. 2024).
_QUINTIC = 3.4445, -4.7750, 2.0315
_HALF = jnp.bfloat16  # what the iteration is taken in


@dataclass(frozen=True)
class NormedMuon(Optimizer):
    """Muon for kernels that are held at a norm, in place of decay: airbench94_muon of KellerJordan/cifar10-airbench.

    Each step brings a kernel (*window, I, O) to the norm sqrt(O), and moves it against SGD's Nesterov momentum, whose
    singular values are brought to about 1 in bfloat16, as those of a matrix (O, I times window). There is no factor for
    its shape. Biases and the parameters of norms need an optimiser of their own, by a group.
    """

    learning_rate: float = 0.24
    """Peak learning rate; the schedule scales it."""
    momentum: float = 0.6
    """Share of the sum of gradients that is kept."""
    ns_steps: int = 3
    """Steps of the Newton-Schulz iteration."""
    kernels_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check("learning_rate", is_positive, "a positive number that float32 holds")
        self.check("momentum", is_share, "a number from 0 to below 1")
        self.check("ns_steps", lambda steps: steps >= 1, "a whole number >= 1")

    def __call__(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """As `Optimizer`; `init` raises InputError for parameters of one dimension."""
        orthogonal = functools.partial(jax.tree.map, functools.partial(_orthogonal, steps=self.ns_steps))
        return optax.chain(
            optax.trace(self.momentum, nesterov=True),
            optax.stateless(lambda updates, _: orthogonal(updates)),
            optax.scale_by_learning_rate(schedule),
            optax.GradientTransformation(_only_kernels, _from_the_sphere),
        )


def _orthogonal(update: jax.Array, steps: int) -> jax.Array:
    """An update (*window, I, O) as a matrix of the same singular vectors, its singular values near 1."""
    a, b, c = _QUINTIC
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    x = update.reshape(-1, update.shape[-1]).astype(_HALF)
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x  # for the smaller of its two Gram matrices
    x /= jnp.linalg.norm(x) + 1e-7
    for _ in range(steps):
        gram = product(x, x.T).astype(x.dtype)
        # Coefficients in bfloat16, as Optax's own iteration has them here, would be off by up to 0.2 %.
        polynomial = b * gram.astype(jnp.float32) + c * product(gram, gram)
        x = (a * x.astype(jnp.float32) + product(polynomial.astype(x.dtype), x)).astype(x.dtype)
    return (x.T if is_tall else x).reshape(update.shape).astype(update.dtype)


def _from_the_sphere(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
    """Updates that begin at kernels of norm sqrt(O) instead of the kernels that there are."""

    def moved(update: jax.Array, kernel: jax.Array) -> jax.Array:
        return update + kernel * (jnp.sqrt(kernel.shape[-1]) / jnp.linalg.norm(kernel.ravel()) - 1)

    return jax.tree.map(moved, updates, params), state


def _only_kernels(params: Any) -> optax.EmptyState:
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if leaf.ndim < 2:
            raise InputError(
                f"normed_muon: expected kernels alone, got {path_of(path)}; give it an optimiser of its own by groups, "
                "such as group('bias', optimizer='sgd()')"
            )
    return optax.EmptyState()
