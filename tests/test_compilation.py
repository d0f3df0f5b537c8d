"""What is compiled is kept from one process to the next, and no fault of the cache stops a run."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

from cnn_jax.runs import compilation

ROOT = Path(__file__).parent.parent
# Counts what JAX asks its cache for, and what it finds there.
SCRIPT = """
import collections
import jax
from cnn_jax.runs.compilation import keep_compiled

events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
keep_compiled()
PROGRAMS
print(events["compile_requests_use_cache"], events["cache_hits"])
"""
TRAINING = """
from cnn_jax.runs import fit
from tests.tiny import make_dataset, make_recipe

fit(make_recipe(epochs=1), make_dataset(), test=make_dataset(30, split="test"))
"""


def run(cache: Path, programs: str = "jax.jit(lambda x: x + 1)(1)", **environment: str) -> tuple[int, int, str]:
    """Compiles in a process of its own; returns how many programs were asked for, how many found, and what was said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    script = SCRIPT.replace("PROGRAMS", programs)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=kept | {"CNN_JAX_CACHE": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked, found = map(int, done.stdout.split())
    return asked, found, done.stderr


def entries(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "compiled").glob("*-cache")}


def test_a_second_process_compiles_nothing(tmp_path):
    asked, _, said = run(tmp_path, TRAINING)
    assert asked > 5
    assert said == ""
    kept = entries(tmp_path)

    # But for what a kill cut off while it was written: that is compiled again, once.
    name = next(name for name in kept if "train_steps" in name)
    (tmp_path / "compiled" / name).write_bytes(kept[name][: len(kept[name]) // 2])
    assert run(tmp_path, TRAINING) == (asked, asked - 1, "")
    again = entries(tmp_path)
    assert run(tmp_path, TRAINING) == (asked, asked, "")
    assert entries(tmp_path) == again
    assert again == kept | {name: again[name]}


def test_a_folder_of_the_user_s_own_is_used(tmp_path):
    run(
        tmp_path / "ours",
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "own"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    assert not (tmp_path / "ours").exists()
    assert list((tmp_path / "own").glob("*-cache"))


def test_a_folder_that_cannot_be_written_is_said_in_a_line(tmp_path):
    tmp_path.chmod(0o500)
    _, found, said = run(tmp_path)
    tmp_path.chmod(0o700)
    assert found == 0
    assert (
        said == f"cnn_jax: the cache folder {tmp_path} cannot be written; programs are compiled afresh at every start\n"
    )
    assert not list(tmp_path.iterdir())


def test_the_cache_is_bounded_and_rid_of_what_is_cut_off(tmp_path, monkeypatch):
    whole = zlib.compress(os.urandom(1000))
    for number in range(10):
        path = tmp_path / f"{number}-cache"
        path.write_bytes(whole)
        os.utime(path, (number, number))
    for name, content in (("cut-cache", whole[:-1]), ("empty-cache", b""), ("wrong-cache", b"?" + whole[1:])):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "other").write_bytes(b"left alone")
    monkeypatch.setattr(compilation, "LIMIT", 4 * len(whole))
    compilation._tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["6-cache", "7-cache", "8-cache", "9-cache", "other"]


def test_forbidden_is_forbidden(tmp_path):
    assert run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0") == (0, 0, "")
    assert not list(tmp_path.iterdir())
