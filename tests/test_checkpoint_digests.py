"""What the digests of checkpoints say: to readers, and to `cnn-jax verify`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xxhash

from cnn_jax.errors import InputError
from cnn_jax.runs import checkpoints, digests, fit, load_run
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.folder import read_config
from tests.commands import run_command
from tests.damage import DATA, NEWEST, flip, initial, make_run
from tests.tiny import make_dataset, make_folder, make_recipe, steps_kept
from tests.trained import tree_hash


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("digests") / "run", 0, with_best=True)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run.path, tmp_path / "run")


def call(monkeypatch, capsys, *arguments):
    code, out, error = run_command(monkeypatch, capsys, *arguments)
    rows = (line.strip().split(maxsplit=1) for line in out.splitlines()[2:])
    return code, dict(rows), error


@pytest.mark.parametrize("block", [1, 24, 4096])
def test_digests_are_of_blocks_in_c_order(block):
    draw = np.random.default_rng(0)
    tree = {
        "a": [jnp.asarray(draw.normal(size=(3, 5)), jnp.float32), jnp.zeros((0, 2))],
        "b": jnp.asarray(draw.normal(size=7), jnp.bfloat16),
        "key": jax.random.key(5),
        "step": jnp.int32(3),
    }
    found = digests.digest_arrays(tree, block)
    raw = {
        "a/0": np.asarray(tree["a"][0]).tobytes(),
        "a/1": b"",
        "b": np.asarray(tree["b"]).tobytes(),
        "key": np.asarray(jax.random.key_data(tree["key"])).tobytes(),
        "step": (3).to_bytes(4, sys.byteorder),
    }
    assert found.keys() == raw.keys()
    for name, content in raw.items():
        parts = [content[start : start + block] for start in range(0, len(content), block)]
        assert found[name]["blocks"] == [xxhash.xxh3_128_hexdigest(part) for part in parts]
    assert (found["b"]["shape"], found["b"]["dtype"]) == ([7], "bfloat16")


def test_large_arrays_are_hashed_by_threads_in_the_same_order(monkeypatch):
    monkeypatch.setattr(digests, "BLOCK", 64)
    tree = {"a": np.arange(1000, dtype=np.int32), "b": np.arange(3, dtype=np.uint8)}
    content = tree["a"].tobytes()
    expected = [xxhash.xxh3_128_hexdigest(content[start : start + 64]) for start in range(0, len(content), 64)]
    found = digests.digest_arrays(tree, 64)
    assert found["a"]["blocks"] == expected
    assert found["b"]["blocks"] == [xxhash.xxh3_128_hexdigest(bytes([0, 1, 2]))]


def test_no_step_waits_for_the_digests(tmp_path, monkeypatch):
    threads, may_go_on = [], threading.Event()

    def make(*arguments, **keywords):
        threads.append(threading.current_thread())
        assert may_go_on.wait(60)
        return digests.make_record(*arguments, **keywords)

    monkeypatch.setattr(checkpoints, "make_record", make)
    with contextlib.closing(Checkpoints(tmp_path, "run")) as saving:
        saving.save(1, initial(), {})
        assert steps_kept(tmp_path) == []  # the checkpoint is not complete without them
        may_go_on.set()
        saving.wait()
        assert steps_kept(tmp_path) == [1]
    assert threads
    assert threading.main_thread() not in threads


def test_what_does_not_match_is_named(copy, monkeypatch, capsys):
    """The arrays are in one file, so the one of the largest is changed by writing other values beside the digests."""
    import orbax.checkpoint as ocp

    state = initial()
    with ocp.StandardCheckpointer() as checkpointer:
        for step in (10, 20, NEWEST):
            shutil.rmtree(copy / "checkpoints" / str(step) / "state")
            checkpointer.save(copy / "checkpoints" / str(step) / "state", state)
    shutil.rmtree(copy / "best" / "20")
    (copy / "checkpoints" / "40.orbax-checkpoint-tmp").mkdir()
    before = tree_hash(copy)
    with pytest.raises(InputError, match="expected a readable checkpoint, but none of the 3 there is; put back"):
        load_run(copy)
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith(f"checkpoint {NEWEST} in {copy / 'checkpoints'} cannot be read (step, params/")
    assert line.endswith("more do not match their digests)")
    resuming = Checkpoints(copy, read_config(copy)["run"], keep=3)
    with contextlib.closing(resuming), pytest.raises(InputError, match="expected a readable checkpoint"):
        resuming.restore(initial())
    assert tree_hash(copy) == before


def test_verify_tells_what_is_whole(copy, monkeypatch, capsys):
    rows = {f"{copy}/{name}": "whole" for name in ("checkpoints/10", "checkpoints/20", "checkpoints/30", "best/20")}
    assert call(monkeypatch, capsys, "verify", copy) == (0, rows, "")
    before = tree_hash(copy)
    shutil.rmtree(copy / "checkpoints" / "10" / "digests")
    rows[f"{copy}/checkpoints/10"] = "its digests are missing"
    shutil.rmtree(copy / "best" / "20")
    del rows[f"{copy}/best/20"]
    rows[f"{copy}/best"] = "missing"
    (copy / "checkpoints" / "30").rename(copy / "checkpoints" / "31")
    del rows[f"{copy}/checkpoints/30"]
    rows[f"{copy}/checkpoints/31"] = "it was saved as checkpoints/30"
    assert call(monkeypatch, capsys, "verify", copy) == (2, rows, "")
    assert tree_hash(copy) != before
    edited = (copy / "config.json").read_text().replace(DATA["class_names"][0], "light")
    (copy / "config.json").write_text(edited)
    code, rows, error = call(monkeypatch, capsys, "verify", copy)
    assert (code, rows) == (2, {})
    assert "config.json: expected what the run wrote there, but it has been changed" in error


def test_verify_looks_into_the_seeds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    make_folder(path, seeds=(0, 1, 2)).close()
    for seed in (0, 1):
        make_run(path / f"seed-{seed}", seed, with_best=False)
    (path / "seed-2").mkdir()  # whose records have begun
    code, rows, _ = call(monkeypatch, capsys, "verify", path)
    assert (code, set(rows.values())) == (0, {"whole"})
    assert rows.keys() == {f"{path}/seed-{seed}/checkpoints/{step}" for seed in (0, 1) for step in (10, 20, NEWEST)}
    swapped = path / "seed-0" / "checkpoints" / "20"
    shutil.rmtree(swapped)
    shutil.copytree(path / "seed-1" / "checkpoints" / "20", swapped)
    code, rows, _ = call(monkeypatch, capsys, "verify", path)
    assert (code, rows[str(swapped)]) == (2, "it is of another run than config.json")


def test_the_newest_stands_in_for_the_best(copy, capsys):
    flip(copy / "best" / "20" / "digests" / "values.json", random.Random(0))
    found = load_run(copy)
    assert (found.step, found.best) == (NEWEST, False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"checkpoint 20 in {copy / 'best'} cannot be read (its digests are damaged)"
    assert lines[1] == "checkpoint of the best epoch: missing or damaged; taking the newest instead"


def test_a_run_whose_best_is_lost_keeps_the_best_from_there_on(tmp_path, capsys):
    """A first part of two epochs, a best that is damaged, and two epochs more."""
    validation = make_dataset(30, seed=1)

    def train(epochs):
        with contextlib.closing(make_folder(tmp_path / "run", resume=True)) as folder:
            return fit(make_recipe(epochs=epochs), make_dataset(), validation=validation, folder=folder)

    train(2)
    (best,) = steps_kept(tmp_path / "run", "best")
    flip(tmp_path / "run" / "best" / str(best) / "progress" / "metadata", random.Random(0))
    train(4)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"checkpoint {best} in {tmp_path / 'run' / 'best'} cannot be read (")
    assert lines[1:] == ["checkpoint of the best epoch: missing or damaged; the best from here on is kept"]
    (later,) = steps_kept(tmp_path / "run", "best")
    assert later > best


def test_in_python_only_our_own_lines_are_shown(copy):
    """To the end of the process: Orbax leaves tasks of a damaged checkpoint behind, which Python and asyncio show."""
    for file in (copy / "checkpoints" / "30" / "state").rglob("*"):
        if file.is_file() and "/d/" in str(file):
            file.unlink()
    shutil.rmtree(copy / "best" / "20" / "progress")
    script = f"""
import pathlib
from cnn_jax.runs import load_run
run = load_run(pathlib.Path({str(copy)!r}))
assert run.step == 20 and not run.best
import absl.logging
absl.logging.get_absl_logger().warning("not ours to hide")
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=environment, check=True
    )
    lines = found.stderr.splitlines()
    assert [line.split(" cannot be read (")[0] for line in lines[:2]] == [
        f"checkpoint 20 in {copy / 'best'}",
        f"checkpoint 30 in {copy / 'checkpoints'}",
    ]
    assert lines[2] == "checkpoint of the best epoch: missing or damaged; taking the newest instead"
    assert lines[3].startswith(f"checkpoint 20 is the newest of {copy}, but its records go on to step 30: ")
    assert len(lines) == 5
    assert lines[4].endswith("not ours to hide")
