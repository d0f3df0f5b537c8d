"""Working memory stays with the process from call to call, unless its environment says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A program that works in 100 MB, called a few times; prints whether memory is kept, and page faults per call.
SCRIPT = """
import resource
import jax
import jax.numpy as jnp
from cnn_jax.runs import keep_memory

kept = keep_memory()
product = jax.jit(lambda a, b, c: (a @ b) @ c)
arrays = jnp.ones((5000, 4)), jnp.ones((4, 5000)), jnp.ones((5000, 1))
faults = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert float(product(*arrays)[0, 0]) == 20000
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, min(faults))
"""
NAMES = ("GLIBC_TUNABLES", "MALLOC_", "JAX_CPU_ENABLE_ASYNC_DISPATCH")


def run(**environment: str) -> tuple[bool, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMES)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=kept | {"JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, faults = done.stdout.split()
    return said == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only the GNU C library is told to keep memory")
def test_a_program_called_again_finds_its_memory():
    kept, faults = run()
    if not kept:
        pytest.skip("this C library cannot be told to keep memory")
    assert faults < 1000  # 100 MB are 24,400 pages of 4 kB


@pytest.mark.parametrize(
    "environment", [{"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, {"JAX_CPU_ENABLE_ASYNC_DISPATCH": "1"}]
)
def test_the_environment_is_obeyed(environment):
    assert run(**environment)[0] is False
