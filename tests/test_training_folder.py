"""The folder of a run: who may start into it, and what it says when not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax.errors import InputError
from cnn_jax.runs import Place
from cnn_jax.runs.code import code_of
from cnn_jax.runs.folder import FORMAT, RunFolder, environment, read_config
from cnn_jax.runs.texts import to_json
from cnn_jax.training import Mirror, Recipe
from tests.tiny import make_folder

CONTENTS = {"recipe": {"optimizer": "sgd()", "epochs": 3}, "data": {"name": "d"}, "seeds": [0], "source": "tfds()"}


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refusal(path: Path, **options) -> str:
    """The refusal to start; nothing in the folder has changed by it."""
    before = tree(path) if path.is_dir() else None
    with pytest.raises(InputError) as caught:
        make_folder(path, **options)
    assert before is None or {k: v for k, v in tree(path).items() if k != ".lock"} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_folder_gets_its_configuration(tmp_path):
    path = tmp_path / "some" / "where"
    make_folder(path).close()
    found = read_config(path)
    assert found.pop("run") != "" != found.pop("digest")
    assert found == {
        "format": FORMAT, "recipe": {"model": "tiny()"}, "data": {"name": "bars"}, "seeds": [0], "code": {}
    }  # fmt: skip


def test_an_occupied_folder_is_refused(tmp_path):
    make_folder(tmp_path).close()
    (tmp_path / ".lock").unlink()
    assert "holds a run: give --resume to continue it, --overwrite to replace it" in refusal(tmp_path)


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path):
    make_folder(tmp_path).close()
    for name in ("checkpoints/3", "best/1", "tensorboard", "notes"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("old\n")
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    make_folder(tmp_path, overwrite=True, seeds=(5,)).close()
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", ".lock", "notes"}
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"
    assert read_config(tmp_path)["seeds"] == [5]


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_something_else_is_refused(tmp_path, options):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "'thesis.tex'" in refusal(tmp_path, **options)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_file_is_refused(tmp_path, options):
    (tmp_path / "file").write_text("x")
    assert "expected a folder" in refusal(tmp_path / "file", **options)
    assert "expected a folder" in refusal(tmp_path / "file" / "below", **options)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_what_a_crash_before_the_configuration_leaves_is_started_into(tmp_path, options):
    (tmp_path / "config.json.tmp").write_text('{"conf')
    (tmp_path / ".lock").touch()
    make_folder(tmp_path, **options).close()
    assert read_config(tmp_path)["seeds"] == [0]


def test_resume_names_the_options_that_differ(tmp_path):
    RunFolder(tmp_path, CONTENTS).close()
    changed = CONTENTS | {"recipe": {"optimizer": "adam()", "epochs": 3}, "seeds": [1], "data": {"name": "e"}}
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, changed, resume=True)
    said = "differ in optimizer (run 'sgd()', now 'adam()'), data.name (run 'd', now 'e'), seeds (run [0], now [1]);"
    assert said in str(caught.value)
    assert "epochs" not in str(caught.value)


def test_a_run_of_an_earlier_version_has_the_defaults_of_fields_since_then(tmp_path):
    recipe = to_json(Recipe())
    old = {name: value for name, value in recipe.items() if name not in ("selection", "test_time", "steps")}
    RunFolder(tmp_path, CONTENTS | {"recipe": old}).close()
    RunFolder(tmp_path, CONTENTS | {"recipe": recipe}, resume=True).close()
    with pytest.raises(InputError, match=r"differ in test_time \(run 'none', now 'mirror\(\)'\); repeat"):
        RunFolder(tmp_path, CONTENTS | {"recipe": to_json(Recipe(test_time=(Mirror(),)))}, resume=True)


def test_resume_allows_other_places_and_other_saving(tmp_path):
    one = {"source": "tfds('d')", "execution": {"checkpoint": {"keep": 3}}, "command": ["one"]}
    two = {"source": "tfds('d', 'x')", "execution": {"checkpoint": {"keep": 9}}, "command": ["two"]}
    RunFolder(tmp_path, CONTENTS | one).close()
    RunFolder(tmp_path, CONTENTS | two, resume=True).close()
    assert one.items() <= read_config(tmp_path).items()


@pytest.mark.parametrize("text", ['{"config": {}, "model": {}, "data": {}}', '{"format": 3, "recipe": {}}'])
def test_a_run_in_another_format_is_named(tmp_path, text):
    make_folder(tmp_path).close()
    (tmp_path / ".lock").unlink()
    (tmp_path / "config.json").write_text(text)
    number = json.loads(text).get("format", 1)
    said = refusal(tmp_path, resume=True)
    assert f"config.json: expected a run in format {FORMAT}, " in said
    assert f"got one in format {number}, which another version of cnn_jax reads" in said
    make_folder(tmp_path, overwrite=True).close()
    assert read_config(tmp_path)["format"] == FORMAT


def test_files_of_the_user_s_are_copied_and_belong_to_the_run(tmp_path):
    files = {name: tmp_path / name for name in ("mine.py", "other/mine.py")}
    (tmp_path / "other").mkdir()
    for number, file in enumerate(files.values()):
        file.write_text(f"NUMBER = {number}\n")
    path = tmp_path / "run"
    RunFolder(path, CONTENTS, code=files).close()
    copies = code_of(path, read_config(path))
    assert {name: copy.read_text() for name, copy in copies.items()} == {
        "mine.py": "NUMBER = 0\n", "other/mine.py": "NUMBER = 1\n"
    }  # fmt: skip
    assert all(copy.is_relative_to(path) for copy in copies.values())
    RunFolder(path, CONTENTS, resume=True, code=files).close()
    files["mine.py"].write_text("NUMBER = 2\n")
    with pytest.raises(InputError, match=r"mine\.py: has changed since the run .* began") as caught:
        RunFolder(path, CONTENTS, resume=True, code=files)
    assert "\n" not in str(caught.value)
    copies["mine.py"].write_text("NUMBER = 3\n")
    with pytest.raises(InputError, match=r"expected the run's copy of mine\.py, but it has been changed"):
        code_of(path, read_config(path))
    copies["mine.py"].unlink()
    with pytest.raises(InputError, match=r"expected the run's copy of mine\.py, got: No such file"):
        code_of(path, read_config(path))
    RunFolder(path, CONTENTS, overwrite=True).close()
    assert not (path / "code").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"config": 1}', "\x00\x01", "[" * 10**5], ids=lambda text: ascii(text)[:12]
)
def test_a_damaged_configuration_is_named(tmp_path, text):
    make_folder(tmp_path).close()
    (tmp_path / ".lock").unlink()
    (tmp_path / "config.json").write_text(text)
    assert "config.json: expected" in refusal(tmp_path, resume=True)


def test_two_processes_do_not_share_a_run(tmp_path):
    first = make_folder(tmp_path)
    script = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from tests.tiny import make_folder\n"
        "make_folder(pathlib.Path(sys.argv[1]), resume=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).parent.parent
    second = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert second.returncode == 1
    assert "in use by another process" in second.stderr
    first.close()
    assert subprocess.run(command, cwd=root, capture_output=True, timeout=120).returncode == 0


def test_the_environment_is_json_with_versions_and_commit():
    found = json.loads(json.dumps(environment()))
    assert {"cnn_jax", "python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"} <= found["versions"].keys()
    assert found["device"]["platform"] in ("cpu", "gpu", "tpu")
    assert "git_commit" in found


def test_resume_needs_to_know_where():
    with pytest.raises(InputError, match="resume: expected the folder of the run in `out`, got none"):
        Place(resume=True)
    with pytest.raises(InputError, match="at most one of the two"):
        Place(resume=True, overwrite=True, out=Path("x"))
