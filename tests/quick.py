"""For what a test runs once, where compiling takes all the time: `jax.jit`, and all that compiles."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

import jax
import pytest

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


@contextlib.contextmanager
def everywhere() -> Iterator[None]:
    """Compiles every program quickly, those of the package and single operations, and those of processes started."""
    from jax._src import compiler  # no public option is for all programs

    options, plain = known(), compiler.get_compile_options

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        return plain(*args, env_options_overrides=options | (env_options_overrides or {}), **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", get_compile_options)
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {flags()}".strip())  # read where XLA begins
        yield


def flags() -> str:
    """The same for `XLA_FLAGS`, where whole processes are to compile quickly."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in known().items())


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
