"""Replacing a run whose folders are links: they are kept and emptied, or nothing at all is deleted."""

from __future__ import annotations

import os

import pytest

from cnn_jax.errors import InputError
from cnn_jax.runs.folder import RunFolder
from cnn_jax.runs.outputs import check_output
from tests.tiny import make_folder
from tests.trained import tree_hash


@pytest.fixture
def run(tmp_path):
    """A run with something in each of its folders, and a disk elsewhere."""
    path = tmp_path / "run"
    make_folder(path).close()
    for name in ("checkpoints/3/state", "best/1/state", "tensorboard"):
        (path / name).mkdir(parents=True)
    (path / "tensorboard" / "events.out.tfevents.1").write_text("x")
    (path / "metrics.jsonl").write_text("old\n")
    (tmp_path / "disk").mkdir()
    return path


def move_away(path, name):
    """Moves a folder of a run to the other disk, and links to it."""
    target = path.parent / "disk" / name
    (path / name).rename(target)
    (path / name).symlink_to(target)
    return target


def refusal(path, **options):
    """The line; nothing has changed, on the other disk neither."""
    (path / ".lock").touch()
    before = tree_hash(path.parent)
    with pytest.raises(InputError) as caught:
        make_folder(path, **options)
    assert tree_hash(path.parent) == before
    assert "\n" not in str(caught.value)
    assert "None" not in str(caught.value)
    return str(caught.value)


def test_links_to_folders_are_kept_and_emptied(run):
    targets = [move_away(run, name) for name in ("checkpoints", "best", "tensorboard")]
    (targets[0] / "4.orbax-checkpoint-tmp").mkdir()
    make_folder(run, overwrite=True, seeds=(5,)).close()
    assert {entry.name for entry in run.iterdir()} == {"config.json", ".lock", "checkpoints", "best", "tensorboard"}
    assert all((run / target.name).is_symlink() and list(target.iterdir()) == [] for target in targets)


def test_files_that_a_run_names_as_its_own_go_with_it_and_none_outside(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "thesis.tex"
    contents = {"recipe": {}, "data": {}, "seeds": [0], "files": ["boxes.png", "..", "../thesis.tex", str(outside), 5]}
    RunFolder(run, contents).close()
    for path in (run / "metrics.jsonl", run / "boxes.png", run / "notes", outside):
        path.write_text("x")
    with pytest.raises(InputError, match="one of the run"):
        check_output(run / "boxes.png")
    make_folder(run, overwrite=True).close()
    assert {entry.name for entry in run.iterdir()} == {"config.json", ".lock", "notes"}
    assert outside.read_text() == "x"


@pytest.mark.parametrize("name", ["checkpoints", "best", "tensorboard"])
def test_what_is_not_the_run_s_behind_a_link_is_not_deleted(run, name):
    (move_away(run, name) / "thesis.tex").write_text("years of work")
    assert "'thesis.tex'" in refusal(run, overwrite=True)


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("name", ["checkpoints", "best", "tensorboard"])
def test_a_link_to_nothing_is_named(run, name, options):
    move_away(run, name).rename(run.parent / "disk" / "gone")
    assert f"{run / name}: expected a folder, it is a link to" in refusal(run, **options)


@pytest.mark.parametrize("name", ["checkpoints", "best", "tensorboard"])
def test_a_file_in_the_place_of_a_folder(run, name):
    target = move_away(run, name)
    target.rename(run.parent / "disk" / "gone")
    target.write_text("not ours")
    assert f"{run / name}: expected a folder" in refusal(run, resume=True)
    make_folder(run, overwrite=True).close()
    assert target.read_text() == "not ours"


def test_the_folder_itself_a_link(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run)
    make_folder(link, overwrite=True).close()
    assert {entry.name for entry in run.iterdir()} == {"config.json", ".lock"}
    link.unlink()
    link.symlink_to("nowhere")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match="expected a folder, it is a link to nowhere"):
            make_folder(link, **options)
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(InputError, match="expected a folder"):
        make_folder(link)


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(run):
    (run / ".lock").unlink()
    (run.parent / "notes").write_text("keep me")
    (run / ".lock").symlink_to(run.parent / "notes")
    make_folder(run, overwrite=True).close()
    assert (run.parent / "notes").read_text() == "keep me"


def test_what_may_not_be_deleted_is_refused_before_anything_is(run, monkeypatch):
    """As on a disk that is mounted to be read only."""
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not str(path).endswith("best/1"))
    assert "best/1: expected a folder whose contents may be deleted" in refusal(run, overwrite=True)


def test_another_disk_mounted_in_the_place_of_a_folder(run, monkeypatch):
    ismount = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path).endswith("/best") or ismount(path))
    make_folder(run, overwrite=True).close()
    assert {entry.name for entry in run.iterdir()} == {"config.json", ".lock", "best"}
    assert list((run / "best").iterdir()) == []
