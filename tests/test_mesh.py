"""One seed on several devices; what needs them is in `tests.meshes`, which runs in a process that has eight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cnn_jax.errors import InputError
from cnn_jax.runs import Execution
from cnn_jax.runs.execution import MeshShape


def test_on_eight_devices():
    """All of `tests.meshes`."""
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    }
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=8", "tests/meshes.py"],
        cwd=Path(__file__).parent.parent, env=os.environ | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("text", ["data=8", "data=4, fsdp=2", "data=1", "data=1, fsdp=8"])
def test_the_shape_of_a_mesh_is_read_from_its_text(text):
    assert str(MeshShape.parse(text)) == text
    assert Execution(mesh=text).mesh == text


@pytest.mark.parametrize("text", ["", "8", "data=0", "data=-1", "data=2, data=4", "model=2", "data=2;fsdp=2", "data=x"])
def test_a_text_that_is_no_shape_is_named(text):
    with pytest.raises(InputError, match=f"^mesh: expected numbers of devices, .* got {text!r}$"):
        Execution(mesh=text)
