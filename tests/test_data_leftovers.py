"""What a process that was killed while it prepared data has left goes the next time; names are looked at first."""

from __future__ import annotations

import os

import pytest

from cnn_jax import data
from cnn_jax.data import prepare
from cnn_jax.data.folders import parse_name
from cnn_jax.errors import InputError
from cnn_jax.files import scratch
from tests.small_sets import assert_nothing_left

pytest.importorskip("tensorflow_datasets")
LONG_AGO = 1_000_000_000


def make_old(path):
    for part in (*path.rglob("*"), path):
        os.utime(part, (LONG_AGO, LONG_AGO))


def test_what_killed_preparers_left_goes_with_the_next(own_folders):
    root = own_folders[1]
    killed, living = root / ".preparing-killed", root / ".preparing-living"
    for folder in (killed, living):
        (folder / "digits" / "1.0.0.incomplete").mkdir(parents=True)
        (folder / scratch._LOCK).touch()
        make_old(folder)
    with (living / scratch._LOCK).open("w") as lock:
        os.utime(living / scratch._LOCK, (LONG_AGO, LONG_AGO))
        scratch.hold(lock)
        data.load("digits", "test")
        assert {path.name for path in root.iterdir()} == {"digits", ".preparing-living"}
    cached = [path for path in own_folders[0].rglob("*") if path.name.startswith(".writing-")]
    assert cached == []


def test_downloads_that_were_cut_off_go_after_a_day(tmp_path):
    for name in ("old.tmp.01", "new.tmp.01", "whole"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    make_old(tmp_path)
    (tmp_path / "new.tmp.01" / "file").write_text("still coming")
    with prepare._no_leftovers(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"new.tmp.01", "whole"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnits", "did you mean mnist"),
        ("mnist:9.9.9", "3.0.1"),
        ("emnist/nope", "letters"),
        ("mnist", r"cannot be written; choose another by --data\.dir"),
    ],
)
def test_a_slip_in_the_name_is_told_where_nothing_can_be_written(name, expected, own_folders):
    root = own_folders[1]
    root.chmod(0o555)
    with pytest.raises(InputError, match=expected):
        prepare.prepare(parse_name(name), root)
    root.chmod(0o755)
    assert_nothing_left(root)
