"""Whatever happens to a run on disk, reading it gives the bits that were saved or one line, and never others."""

from __future__ import annotations

import collections
import random
import shutil

import pytest

from cnn_jax.errors import InputError
from cnn_jax.runs import load_run
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.folder import read_config
from tests.damage import BEST, KINDS, NEWEST, Place, initial, make_run
from tests.tiny import assert_same_bits
from tests.trained import tree_hash


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs without a best checkpoint, two with: each the other's other."""
    base = tmp_path_factory.mktemp("runs")
    return [(make_run(base / f"{n}a", 2 * n, n == 1), make_run(base / f"{n}b", 2 * n + 1, n == 1)) for n in range(2)]


def read_trained(saved, path):
    """As evaluate, predict, report, detect and describe do: which checkpoint was read."""
    run = load_run(path)
    kind = "best" if run.best else "checkpoints"
    assert_same_bits(run.variables, saved.states[kind, run.step].variables)
    assert (run.class_names, run.statistics.mean) == (("left", "right", "top"), (0.3,))
    return kind, run.step


def read_to_resume(saved, path, kind="checkpoints"):
    checkpoints = Checkpoints(path, read_config(path)["run"], read_only=True)
    try:
        found = checkpoints.restore(initial(), best=kind == "best")
    finally:
        checkpoints.close()
    if found is None:
        raise InputError("no checkpoint")
    state, progress = found
    step = int(state.step)
    assert_same_bits(state, saved.states[kind, step])
    assert progress == saved.progress[kind, step]
    return kind, step


def outcome(read, saved, copy, expected, capfd):
    """refused, older or harmless; an assertion fails where the bits are wrong, nothing is said, or too much."""
    before = tree_hash(copy)
    capfd.readouterr()
    found, message = None, ""
    try:
        found = read(saved, copy)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    lines = capfd.readouterr().err.splitlines()
    assert all(line.startswith("checkpoint ") for line in lines), lines
    assert tree_hash(copy) == before
    assert found in (None, expected) or lines, f"{found} was read and nothing said"
    return "refused" if found is None else "harmless" if found == expected else "older"


def damage_all(count, runs, tmp_path, capfd):
    results = collections.Counter()
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        draw = random.Random(number)
        with_best = draw.random() < 0.4
        saved, other = runs[with_best]
        copy = shutil.copytree(saved.path, tmp_path / "run")
        KINDS[kind](Place(copy, other.path, draw))
        expected = ("best", BEST) if with_best else ("checkpoints", NEWEST)
        try:
            result = outcome(read_trained, saved, copy, expected, capfd)
            if number % 2:  # The newest may be gone without a trace, then training takes its steps again.
                newest = max((int(p.name) for p in (copy / "checkpoints").iterdir() if p.name.isdigit()), default=None)
                outcome(read_to_resume, saved, copy, ("checkpoints", newest), capfd)
        except BaseException as error:
            error.add_note(f"damage {number}: {kind}")
            raise
        results[result] += 1
        shutil.rmtree(copy)
    return results


def test_a_whole_run_is_read_to_the_bit(runs, capfd):
    for (saved, _), expected in zip(runs, (("checkpoints", NEWEST), ("best", BEST)), strict=True):
        assert read_trained(saved, saved.path) == expected
        assert read_to_resume(saved, saved.path) == ("checkpoints", NEWEST)
    assert capfd.readouterr().err == ""


def test_no_damage_is_silent(runs, tmp_path, capfd):
    """One of each kind."""
    results = damage_all(len(KINDS), runs, tmp_path, capfd)
    assert results["refused"] > 3
    assert results["older"] > 10


@pytest.mark.slow
def test_no_damage_of_400_is_silent(runs, tmp_path, capfd):
    results = damage_all(400, runs, tmp_path, capfd)
    with capfd.disabled():
        print(f"\n400 damages of {len(KINDS)} kinds: {dict(results)}, none silent")
