"""The notebooks: tidy as they lie in git, and true when they are run."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {"jupyter": {"outputs_hidden": True, "source_hidden": True}}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def prose(path):
    return "\n\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))


def code(path):
    """The source of each code cell without its lines of IPython magic."""
    return [re.sub(r"^%.*$", "", "".join(cell["source"]), flags=re.MULTILINE) for cell in cells(path, "code")]


def test_there_are_four():
    assert [path.name[0] for path in PATHS] == ["1", "2", "3", "4"]


@each_notebook
def test_is_valid(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


@each_notebook
def test_holds_no_results_and_nothing_of_the_machine_it_was_written_on(path):
    assert json.loads(path.read_text())["metadata"] == METADATA
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] in ({}, FOLDED)
    assert not re.search(r"(?<![\w.:/])/(home|mnt|root|tmp|Users)\b", path.read_text())


@each_notebook
def test_links_lead_somewhere(path):
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)}
    links = re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(path))
    assert len(links) >= 5
    for text, link in links:
        if link.startswith("#"):
            assert unquote(link[1:]) in headings, link
            continue
        target = path.parent / link
        assert target.is_file(), link
        if target.suffix == ".py":  # What is named is in the file that is linked.
            assert re.search(rf"\b{text.strip('`').split('.')[-1]}\b", target.read_text()) or "`" not in text, text


@each_notebook
def test_every_exercise_has_a_folded_answer(path):
    count = len(re.findall(r"^\*\*Exercise \d+\.\*\*", prose(path), flags=re.MULTILINE))
    assert count >= 3
    assert prose(path).count("<details><summary>Answer</summary>") == prose(path).count("</details>") == count


@each_notebook
def test_every_cell_is_python(path):
    for cell in code(path):
        ast.parse(cell)


@each_notebook
def test_uses_what_the_package_has_and_nothing_private(path):
    tree = ast.parse("\n".join(code(path)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "cnn_jax" in str(node.module)]
    parts = {alias.name for node in imports if node.module == "cnn_jax" for alias in node.names}
    used = [
        (f"cnn_jax.{node.value.id}", node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in parts
    ]
    used += [(node.module, alias.name) for node in imports if node.module != "cnn_jax" for alias in node.names]
    assert len(used) >= 5
    for module, name in used:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
        assert not name.startswith("_")


@pytest.mark.notebook
@pytest.mark.parametrize("path", [PATHS[i] for i in (3, 0, 2, 1)], ids=lambda path: path.stem)  # two workers take two
def test_runs_from_a_clean_kernel(path, own_folders, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nothing listens: there is no network
    before = set(path.parent.iterdir())
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert set(path.parent.iterdir()) == before

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    streams = {name: "".join(o.text for o in outputs if o.get("name") == name) for name in ("stdout", "stderr")}
    assert re.fullmatch(r"(cnn_jax: preparing digits in .*\n)?", streams["stderr"])
    if path.stem == "2_layers_by_hand":
        ends = re.findall(r"difference.* ([-+.\de]+)$", streams["stdout"], flags=re.MULTILINE)
        found = [float(end) for end in ends]
        assert len(found) >= 15
        assert max(found) < 1e-11
