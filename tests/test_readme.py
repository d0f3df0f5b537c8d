"""What the README shows is true when pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.split("\n")[0])
def test_python_runs(block, capsys):
    namespace: dict = {}
    exec(compile(block, "README.md", "exec"), namespace)  # the point is to run what a reader pastes
    if "result" in namespace:
        accuracy = namespace["result"].evaluations["test"].accuracy
        assert accuracy > 0.9
        assert f"{accuracy:.2%} of 360 digits" in capsys.readouterr().out
    elif "table" in namespace:
        assert capsys.readouterr().out.startswith("60000 340908\nS4 Field(size=16, stride=4")
    elif "conv" in namespace:
        x = jnp.ones((1, 9, 9, 3))
        assert "cnn_conv" in str(jax.make_jaxpr(namespace["conv"].init_with_output)(jax.random.key(0), x))
        assert namespace["pool"](x, (2, 2), strides=(2, 2)).shape == (1, 4, 4, 3)
        variables = namespace["conv"].init(jax.random.key(0), x)
        np.testing.assert_allclose(namespace["apply"](variables, x), namespace["conv"].apply(variables, x), atol=1e-5)
    elif "kept" in namespace:
        assert isinstance(namespace["kept"], bool)  # what it does is seen in test_memory.py, in a process of its own
    else:
        assert namespace["maps"].shape == (14, 14, 6)
        assert namespace["pooled"].shape == (7, 7, 6)


def test_there_is_python_to_run():
    assert len(PYTHON_BLOCKS) == 5


@pytest.mark.parametrize("marker", ["run line", "test line"])
def test_the_two_lines_are_one_line_each(marker):
    [line] = re.findall(rf"<!-- {marker} -->\n```bash\n(.*)\n```", README)
    words = shlex.split(line)
    assert words[:3] == ["python3", "-m", "venv"]
    for word in words:
        if word.endswith(".py"):
            assert (ROOT / word).is_file()


def test_the_places_named_exist():
    places = re.findall(r"^\| `([^`]+)` \|", README, flags=re.MULTILINE)
    assert len(places) >= 8
    for place in places:
        assert (ROOT / place).exists(), place


def test_the_extras_named_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert named <= extras.keys()
    assert {"cuda", "tpu", "prepare", "test"} <= named
