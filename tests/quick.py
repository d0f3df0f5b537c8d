"""`jax.jit` for what a test runs once, where compiling takes all the time."""

from __future__ import annotations

import functools

import jax

# Without LLVM's optimisations, with the simpler of two ways of writing loops, in one piece: a quarter of the time.
# What XLA makes of a program before that stays as it is.
FAST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def jit(function, **options):
    """`jax.jit(function, **options)`, compiled quickly to what runs slowly."""
    return jax.jit(function, compiler_options=known(), **options)


@functools.cache
def known() -> dict[str, int | bool]:
    """Of `FAST` what this version of XLA has."""

    def has(name, value):
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for name, value in FAST.items() if has(name, value)}
