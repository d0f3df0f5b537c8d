"""What the README shows is true when pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import augment, command, data, models, parts, training
from cnn_jax.experiment import Experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = dict(re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", README, flags=re.DOTALL))
PYTHON_BLOCKS = [
    block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if block not in FILES.values()
]


@pytest.fixture
def my_parts(tmp_path):
    """A folder with the README's own parts in it."""
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        (tmp_path / "mine" / name).write_text(text)
    return tmp_path / "mine"


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.split("\n")[0])
def test_python_runs(block, capsys, my_parts, monkeypatch):
    monkeypatch.syspath_prepend(my_parts)
    namespace: dict = {}
    block = re.sub(r"(?<=epochs=)\d+", "3", block)  # enough for digits to be read; else as a reader pastes it
    exec(compile(block, "README.md", "exec"), namespace)
    if "result" in namespace:
        [accuracy] = namespace["result"].values("test", "accuracy")
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
    elif "found" in namespace:
        values = 100 * namespace["found"].values("test", "accuracy")
        assert capsys.readouterr().out == f"{values.mean():.2f} ± {values.std(ddof=1):.2f} %\n"
        assert namespace["found"].values("test", "confidence").shape == (3,)
    elif "kept" in namespace:
        assert isinstance(namespace["kept"], bool)  # what it does is seen in test_memory.py, in a process of its own
    else:
        assert namespace["maps"].shape == (14, 14, 6)
        assert namespace["pooled"].shape == (7, 7, 6)


def test_there_is_python_to_run():
    assert len(PYTHON_BLOCKS) == 6
    assert FILES.keys() == {"my_parts.py", "more_parts.py"}


def test_parts_of_a_file_are_trained_and_evaluated_anywhere(my_parts, tmp_path):
    """By the README's command, on digits; afterwards the files are gone, and the run is read from another folder."""
    [line] = re.findall(r"<!-- my_parts line -->\n```bash\n(.*?)```", README, flags=re.DOTALL)
    python, script, *options = shlex.split(line.replace("\\\n", " "))
    assert python == "python"

    def run(folder, *arguments):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    trained = run(my_parts, str(ROOT / script), *options, "--epochs", "1", "--no-report", "--out", "run")
    assert "confidence" in trained
    for name in FILES:
        (my_parts / name).unlink()
    (tmp_path / "elsewhere").mkdir()
    run_folder = my_parts / "run"
    evaluated = run(tmp_path / "elsewhere", "-m", "cnn_jax", "evaluate", str(run_folder))
    [accuracy] = re.findall(r"^test .* ([\d.]+%) of 360$", trained, flags=re.MULTILINE)
    assert accuracy in evaluated


def test_the_parts_named_are_those_there_are():
    cells = re.findall(r"^\| `--([\w-]+)` \|.*\| (.*) \|$", README, flags=re.MULTILINE)
    named = {option: [text.partition("(")[0] for text in re.findall("`(.*?)`", texts)] for option, texts in cells}
    bases = {
        "loss": training.Loss,
        "metrics": training.Metric,
        "optimizer": training.Optimizer,
        "schedule": training.Schedule,
        "groups": training.Group,
        "augment": augment.Augmentation,
        "averaging": training.Averaging,
        "data-init": training.DataInit,
        "selection": training.Selection,
        "test-time": training.View,
        "data": data.Source,
    }
    there = {"model": sorted(models.MODELS)} | {option: list(parts.registry(base)) for option, base in bases.items()}
    assert {option: sorted(names) for option, names in named.items()} == there


@pytest.mark.parametrize("marker", ["run line", "test line"])
def test_the_two_lines_are_one_line_each(marker):
    [line] = re.findall(rf"<!-- {marker} -->\n```bash\n(.*)\n```", README)
    words = shlex.split(line)
    assert words[:3] == ["python3", "-m", "venv"]
    for word in words:
        if word.endswith(".py"):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize(("marker", "count"), [("train lines", 2), ("recipe lines", 7), ("sweep lines", 2)])
def test_the_lines_that_train_are_taken(marker, count, monkeypatch):
    """They are not run here: each part has tests of its own."""
    [block] = re.findall(rf"<!-- {marker} -->\n```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for line in block.splitlines() if line.startswith("cnn-jax train ")]
    assert len(lines) == count
    for line in lines:
        program, verb, *options = shlex.split(line, comments=True)
        monkeypatch.setattr("sys.argv", [program, verb, *options])
        config = command.parse(Experiment, options, "About it.")
        assert config != Experiment()


def test_the_places_named_exist():
    places = re.findall(r"^\| `([^`-][^`]*)` \|", README, flags=re.MULTILINE)
    assert len(places) >= 8
    for place in places:
        assert (ROOT / place).exists(), place


def test_the_extras_named_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert named <= extras.keys()
    assert {"cuda", "tpu", "prepare", "test"} <= named
