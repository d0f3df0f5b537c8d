"""`jax.jit` for what a test runs once."""

from __future__ import annotations

import jax


def jit(function, **options):
    """Leaves out LLVM's optimisations, which take longer than all that the program then does; XLA's own are kept."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)
