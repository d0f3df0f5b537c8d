"""Several seeds in one program: each is the run that it would be alone, however they are spread, stopped or resumed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.runs import CheckpointConfig, TrainingDivergedError, fit, replicas, seeds
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.folder import read_config
from tests.test_training_loop import SignalAt
from tests.tiny import (
    TRACES,
    assert_close,
    assert_same_bits,
    make_dataset,
    make_execution,
    make_folder,
    make_recipe,
    records,
    steps_kept,
)

pytestmark = pytest.mark.usefixtures("shared_engines")
TRAIN, TEST = make_dataset(70), make_dataset(30, seed=1, split="test")
# A third of the labels are wrong, so that the seeds differ and the best of each comes at another epoch.
LABELS = np.where(np.random.default_rng(0).random(70) < 1 / 3, (TRAIN.labels + 1) % 3, TRAIN.labels)
TRAIN = dataclasses.replace(TRAIN, labels=LABELS.astype(np.int32))
RECIPE = make_recipe(validation=0.2)
EXECUTION = make_execution(checkpoint=CheckpointConfig(every_steps=6, every_seconds=None))
SEEDS = (4, 5, 6)
TOTAL = 28  # ceil(4 epochs * 56 images / 8 a batch), 14 of the 70 being held out


def train_in(path: Path, resume: bool = False, **arguments):
    folder = make_folder(path, resume=resume, seeds=SEEDS)
    try:
        return train(folder=folder, **arguments)
    finally:
        folder.close()


def train(execution=EXECUTION, **arguments):
    return fit(RECIPE, TRAIN, seeds=SEEDS, test=TEST, execution=execution, **arguments)


@pytest.fixture(scope="module")
def together(tmp_path_factory, shared_engines):
    path = tmp_path_factory.mktemp("together")
    shared_engines.clear()
    TRACES.clear()
    result = train_in(path)
    # Initialisation, the train step and the evaluation step, whatever the number of seeds, splits and part batches.
    assert TRACES == [False, True, False]
    return path, result


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """By seed, the first and the last trained on their own, with validation images that `data.holdout` gave."""
    paths, results = {}, {}
    for seed in (SEEDS[0], SEEDS[-1]):
        rest, validation = data.holdout(TRAIN, 0.2, seed)
        paths[seed] = tmp_path_factory.mktemp("alone")
        folder = make_folder(paths[seed], seeds=(seed,))
        given = {"test": TEST, "validation": validation, "execution": EXECUTION, "folder": folder}
        results[seed] = fit(make_recipe(), rest, seeds=seed, **given)
        folder.close()
    return paths, results


def part(stacked, k: int):
    return jax.tree.map(lambda leaf: leaf[k], stacked)


def test_each_replica_is_the_run_alone(together, alone):
    result = together[1]
    assert result.seeds == SEEDS
    assert result.images_per_second > 0
    for seed, single in alone[1].items():
        k = SEEDS.index(seed)
        assert_close(part(result.state, k), single.state)
        expected = {name: value for name, (value,) in single.train.items()}
        assert {name: values[k] for name, values in result.train.items()} == pytest.approx(expected, rel=1e-4)
        assert set(result.evaluations) == set(single.evaluations) == {"validation", "test", "best"}
        for split, (expected,) in single.evaluations.items():
            found = result.evaluations[split][k]
            assert (found.accuracy, found.count) == (expected.accuracy, expected.count)
            assert (result.values(split)[k], result.values(split, "loss")[k]) == (found.accuracy, found.loss)
            assert found.loss == pytest.approx(expected.loss, rel=1e-4)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-4)
    kernels = np.asarray(result.state.params["conv"]["kernel"])
    assert not np.allclose(kernels[0], kernels[1], atol=1e-2)


def test_each_seed_leaves_the_folder_of_the_run_alone(together, alone):
    path, result = together
    assert {entry.name for entry in path.glob("seed-*")} == {"seed-4", "seed-5", "seed-6"}
    assert len({steps_kept(path / f"seed-{seed}", "best")[0] for seed in SEEDS}) == 3
    for seed, single in alone[0].items():
        k, own = SEEDS.index(seed), path / f"seed-{seed}"
        assert read_config(own)["seeds"] == [seed]
        assert steps_kept(own) == [TOTAL]
        assert steps_kept(own, "best") == steps_kept(single, "best")
        found, expected = records(own), records(single)
        assert [(r["split"], r["step"]) for r in found] == [(r["split"], r["step"]) for r in expected]
        for mine, theirs in zip(found, expected, strict=True):
            assert {k: v for k, v in mine.items() if k != "split"} == pytest.approx(
                {k: v for k, v in theirs.items() if k != "split"}, rel=1e-3, abs=1e-5
            )
        checkpoints = Checkpoints(own, read_config(own)["run"], read_only=True)
        state, progress = checkpoints.restore(alone[1][seed].state)
        checkpoints.close()
        assert_same_bits(state, part(result.state, k))
        (own_progress,) = progress["seeds"]
        assert own_progress["sums"]["accuracy"] / own_progress["steps"] == result.train["accuracy"][k]


def test_a_seed_s_folder_goes_on_as_a_run(together, alone, tmp_path):
    """It is finished, so resuming takes no step and gives the figures again."""
    path = shutil.copytree(together[0] / "seed-6", tmp_path / "seed-6")
    folder = make_folder(path, resume=True, seeds=(6,))
    result = fit(RECIPE, TRAIN, seeds=6, test=TEST, execution=EXECUTION, folder=folder)
    folder.close()
    assert_same_bits(result.state, part(together[1].state, SEEDS.index(6)))
    for split in alone[1][6].evaluations:
        assert result.values(split) == alone[1][6].values(split)


@pytest.mark.parametrize(("on_cpu", "steps"), [(True, 1), (False, 1), (False, 5)])
def test_mapped_as_on_accelerators_and_many_steps_a_call_it_is_the_same(
    together, shared_engines, monkeypatch, on_cpu, steps
):
    shared_engines.clear()  # before and after, as it is compiled for other devices
    monkeypatch.setattr(replicas, "_on_cpu", lambda mesh: on_cpu)
    result = train(make_execution(steps_per_call=steps))
    shared_engines.clear()
    assert_close(result.state, together[1].state)
    assert result.values().tolist() == together[1].values().tolist()
    np.testing.assert_allclose(result.train["loss"], together[1].train["loss"], rtol=1e-4)


def test_with_onednn_they_learn_the_same(together):
    result = train(make_execution(onednn=True))
    assert_close(result.state, together[1].state)


def assert_same_run(path: Path, result, together) -> None:
    assert result.interrupted is None
    assert_same_bits(result.state, together[1].state)
    for split in ("validation", "test", "best"):
        assert result.values(split).tolist() == together[1].values(split).tolist()
    assert {name: v.tolist() for name, v in result.train.items()} == {
        k: v.tolist() for k, v in together[1].train.items()
    }
    for seed in SEEDS:
        own, expected = path / f"seed-{seed}", together[0] / f"seed-{seed}"
        assert records(own) == records(expected)
        assert steps_kept(own, "best") == steps_kept(expected, "best")
        assert (own / "config.json").exists()


def test_interrupted_and_resumed_is_undisturbed(together, tmp_path):
    for step, number in ((1, signal.SIGINT), (11, signal.SIGTERM), (20, signal.SIGTERM)):
        stopped = train_in(tmp_path, resume=True, display=SignalAt(step, number))
        assert stopped.interrupted == number
        assert step <= int(stopped.state.step[0]) < TOTAL
        assert stopped.evaluations == {}
        assert not list(tmp_path.glob("seed-*/config.json")), "a seed is no run before the training has ended"
    assert_same_run(tmp_path, train_in(tmp_path, resume=True), together)


def test_a_crash_while_the_seeds_folders_are_written_is_made_good(together, tmp_path, monkeypatch):
    def crash(path, text):
        if path.parent.name == "seed-5":
            raise KeyboardInterrupt
        write(path, text)

    write = seeds.write_atomically
    monkeypatch.setattr(seeds, "write_atomically", crash)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path)
    assert [p.parent.name for p in tmp_path.glob("seed-*/config.json")] == ["seed-4"]
    monkeypatch.undo()
    written = (tmp_path / "seed-4" / "config.json").stat().st_mtime_ns
    assert_same_run(tmp_path, train_in(tmp_path, resume=True), together)
    assert (tmp_path / "seed-4" / "config.json").stat().st_mtime_ns == written


def start(script: str, *arguments: Path, **environment: str) -> subprocess.Popen:
    """Runs a script that has the names of this file, in a process of its own, with what has been compiled here."""
    environment |= {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nfrom tests.test_replicas import *\n{script}", *map(str, arguments)],
        cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def test_killed_and_resumed_is_undisturbed(together, tmp_path):
    """In the middle, and while the seeds are given their folders: two processes, forks of one that has imported."""
    path = tmp_path / "run"
    script = """
import time
for moment in ("checkpoints/1?", "seed-5/checkpoints/*"):
    process = os.fork()
    if not process:
        train_in(Path(sys.argv[1]), resume=True)
        os._exit(0)
    while (status := os.waitpid(process, os.WNOHANG)) == (0, 0) and not any(Path(sys.argv[1]).glob(moment)):
        time.sleep(0.001)
    assert status == (0, 0), f"it ended before {moment}"
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
"""
    process = start(script, path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_same_run(path, train_in(path, resume=True), together)


def test_spread_over_devices_is_the_same(together, tmp_path):
    """Of four devices six replicas take three, by twos; five take one."""
    script = """
from cnn_jax import runs
from tests.engines import shared
assert [runs.replica_mesh(n).size for n in range(1, 9)] == [1, 2, 3, 4, 1, 3, 1, 4]
six = range(4, 10)
folder = make_folder(Path(sys.argv[2]), seeds=six)
with shared():
    found = fit(RECIPE, TRAIN, seeds=six, test=TEST, execution=EXECUTION, folder=folder)
    folder.close()
    folder = make_folder(Path(sys.argv[2]), seeds=six, resume=True)
    again = fit(RECIPE, TRAIN, seeds=six, test=TEST, execution=EXECUTION, folder=folder)
assert_same_bits(again.state, found.state)
kernel = found.state.params["conv"]["kernel"]
assert len(kernel.devices()) == 3
assert all(shard.data.shape[0] == 2 for shard in kernel.addressable_shards)
figures = {"accuracies": found.values("best"), "losses": found.train["loss"]}
np.savez(sys.argv[1], *jax.tree.leaves(found.state.params), **figures)

def combine(own, shared):
    return {"sum": own["x"] + shared + own["both"], "key": jax.random.fold_in(own["key"], 1)}

own = {"x": jnp.arange(8.0), "key": jax.random.split(jax.random.key(0), 8), "both": jnp.ones(2)}
axes = ({"x": 0, "key": 0, "both": None}, None)
expected = jax.jit(jax.vmap(combine, axes))(own, 3.0)
for on_cpu in (True, False):
    replicas._on_cpu = lambda mesh: on_cpu
    spread = jax.jit(runs.map_replicas(combine, axes))(own, 3.0)
    assert len(spread["sum"].devices()) == 4
    assert_same_bits(spread, expected)
"""
    devices = "--xla_force_host_platform_device_count=4"
    process = start(script, tmp_path / "found.npz", tmp_path / "run", JAX_PLATFORMS="cpu", XLA_FLAGS=devices)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    found = np.load(tmp_path / "found.npz")
    assert found["accuracies"][:3].tolist() == together[1].values("best").tolist()
    np.testing.assert_allclose(found["losses"][:3], together[1].train["loss"], rtol=1e-4)
    for seed in SEEDS:
        assert steps_kept(tmp_path / "run" / f"seed-{seed}", "best") == steps_kept(together[0] / f"seed-{seed}", "best")
    for index, leaf in enumerate(jax.tree.leaves(together[1].state.params)):
        np.testing.assert_allclose(found[f"arr_{index}"][:3], leaf, rtol=1e-4, atol=1e-5)


def test_one_seed_that_diverges_is_named(monkeypatch):
    def poisoned(program):
        state = init(program)
        return state.replace(params=jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), state.params))

    init = Engine.init
    monkeypatch.setattr(Engine, "init", poisoned)
    with pytest.raises(
        TrainingDivergedError, match="training of seed 5 diverged: loss is nan at step 1 of 28"
    ) as caught:
        train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("replicas", [0, -1, 2**31 - 3])
def test_bad_numbers_of_replicas_are_named(replicas):
    with pytest.raises(InputError, match=f"replicas: expected a whole number from 1 to 2147483644, got {replicas}$"):
        Experiment(seed=4, replicas=replicas)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((), "seeds: expected one or more, each once, got none"),
        ((3, 4, 3), "seeds: expected one or more, each once, got 3, 4, 3"),
        ((0, -1), "seed: expected a whole number from 0 to 2147483647, got -1"),
        (2**31, "seed: expected a whole number from 0 to 2147483647, got 2147483648"),
    ],
)
def test_bad_seeds_are_named(chosen, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        fit(RECIPE, TRAIN, seeds=chosen)


def test_validation_images_are_given_or_held_out_and_not_both():
    with pytest.raises(InputError, match=r"^validation: expected 0 as the data have validation images .*, got 0\.2$"):
        fit(RECIPE, TRAIN, validation=TEST)


@pytest.mark.parametrize("validation", [-0.1, 70, 1.5, float("nan")])
def test_bad_validation_is_named(validation):
    with pytest.raises(InputError, match="validation: expected"):
        fit(make_recipe(validation=validation), TRAIN, seeds=(0, 1))
