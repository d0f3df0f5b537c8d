"""Imports run one way, and importing the package costs no more than it must."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cnn_jax

PACKAGE = Path(cnn_jax.__file__).parent
# Each part may import itself and the parts before it.
ORDER = [
    "start", "parts", "lowering", "functional", "layers", "models", "describe", "augment", "terminal", "files", "data",
    "training", "runs", "detection", "pictures", "report", "sweeping", "experiment", "published", "options",
    "misread", "command", "cli", "benchmark", "__main__",
]  # fmt: skip
MATHEMATICS = ("lowering", "functional")
OUTSIDE_MATHEMATICS = {"jax", "numpy"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield (name[:-1] if name[-1] == "__init__" else name), path


def imported(name, path):
    """The dotted names that a file imports anywhere, also within functions, each as a tuple."""
    package = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                # `from cnn_jax import layers` imports a part, `from cnn_jax import __version__` a name.
                whole = base == ("cnn_jax",) and not alias.name.startswith("__")
                yield (*base, alias.name) if whole else base


def problems(name, path):
    part = name[1] if len(name) > 1 else None
    for target in imported(name, path):
        if target[0] == "cnn_jax":
            if part in (None, "errors"):
                yield f"{path.name} must import nothing of the package, imports {'.'.join(target)}"
            elif target == ("cnn_jax",) or target[1:2] == ("errors",):
                if part in MATHEMATICS and target != ("cnn_jax",):
                    yield f"{part} must import {MATHEMATICS} only, imports errors"
            elif ORDER.index(target[1]) > ORDER.index(part):
                yield f"{part} must not import {target[1]}, which comes after it"
        elif part in MATHEMATICS and target[0] not in OUTSIDE_MATHEMATICS | sys.stdlib_module_names:
            yield f"{part} must not import {target[0]}"


@pytest.mark.parametrize(("name", "path"), [pytest.param(*m, id=".".join(m[0])) for m in modules()])
def test_imports_run_one_way(name, path):
    assert len(name) == 1 or name[1] in (*ORDER, "errors"), f"{name[1]} has no place in the order of the parts"
    assert not list(problems(name, path))


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("functional", "import flax"),
        ("functional", "from cnn_jax.errors import InputError"),
        ("lowering", "from cnn_jax import functional"),
        ("lowering", "from ..functional import arguments"),
        ("layers", "import cnn_jax.models.lenet"),
        ("models", "def f():\n    from cnn_jax.runs import loop"),
        ("data", "from cnn_jax import cli"),
    ],
)
def test_the_rule_sees_what_breaks_it(part, line, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert list(problems(("cnn_jax", part, "module"), path))


@pytest.mark.parametrize("module", ["cnn_jax", "cnn_jax.layers", "cnn_jax.models"])
def test_importing_loads_nothing_heavy(module):
    heavy = ["tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "sklearn", "PIL", "torch"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"
