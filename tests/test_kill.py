"""A run that is killed again and again ends in the same bits as one that was never disturbed."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.tiny import records

ROOT = Path(__file__).parent.parent
OPTIONS = [
    "--model", "convnet(filters=(2,), features=(4,))", "--epochs", "5", "--batch-size", "32", "--validation", "0.1",
    "--checkpoint.every-steps", "18", "--checkpoint.every-seconds", "None", "--no-report",
]  # fmt: skip


def environment() -> dict[str, str]:
    """On a GPU some of XLA's kernels add in no fixed order unless they are told to; elsewhere nothing changes."""
    return os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()}


def start(out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "experiments" / "lenet5.py"), "--out", str(out), *OPTIONS, *options]
    return shell(shlex.join(command))


def shell(command: str) -> subprocess.Popen:
    """What a shell makes of a line, in its place, so that signals go to the command."""
    return subprocess.Popen(
        f"exec {command}", shell=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(),
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    return output


def last_state(out: Path) -> tuple[int, list[np.ndarray]]:
    """The newest checkpoint's step and every leaf of its state: parameters, optimiser moments, random key, step."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # it may have been saved from others
    with ocp.CheckpointManager(out.absolute() / "checkpoints") as manager:
        step = manager.latest_step()
        args = ocp.args.Composite(state=ocp.args.StandardRestore(fallback_sharding=here))
        state = manager.restore(step, args=args)["state"]
    state["rng"] = jax.random.key_data(state["rng"])
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(out)
    output = finish(process)
    assert process.returncode == 0, output
    return out


def newest(out: Path) -> int:
    """The step of the newest checkpoint whose folder has its final name; 0 where there is none."""
    return max((int(entry.name) for entry in out.glob("checkpoints/*") if entry.name.isdigit()), default=0)


def assert_same(out: Path, expected: Path) -> None:
    step, leaves = last_state(out)
    expected_step, expected_leaves = last_state(expected)
    assert step == expected_step
    assert len(leaves) == len(expected_leaves) > 20
    for leaf, reference in zip(leaves, expected_leaves, strict=True):
        assert leaf.dtype == reference.dtype
        assert leaf.tobytes() == reference.tobytes()
    assert records(out) == records(expected)
    assert [p.name for p in (out / "best").iterdir()] == [p.name for p in (expected / "best").iterdir()]


def test_killed_runs_end_in_the_same_bits(undisturbed, tmp_path):
    out, seed = tmp_path / "run", random.randrange(10**6)
    draw = random.Random(seed)
    # One kill while the process starts; then, past steps drawn from the first half of the run's 202, one at any moment
    # of a step and one right after Orbax has begun to write a checkpoint. The steps have a checkpoint between them.
    kinds, steps = draw.sample(["any", "writing"], 2), (draw.randrange(1, 37), draw.randrange(55, 100))
    moments = [("starting", 0), *zip(kinds, steps, strict=True)]
    print(f"seed {seed}: {moments}")
    for kind, step in moments:
        process = start(out, "--resume")
        if kind == "starting":
            time.sleep(draw.uniform(0.2, 2.5))
        while kind != "starting" and process.poll() is None and newest(out) < step:
            time.sleep(0.002)
        if kind == "any":
            time.sleep(draw.uniform(0.0, 0.1))
        before = set(out.glob("checkpoints/*tmp*"))
        while kind == "writing" and process.poll() is None and set(out.glob("checkpoints/*tmp*")) <= before:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        output = finish(process)
        assert process.returncode == -signal.SIGKILL, f"the kill {kind} {step} came too late: {output}"
    process = start(out, "--resume")
    output = finish(process)
    assert process.returncode == 0, output
    assert_same(out, undisturbed)


def test_a_signal_saves_and_says_how_to_go_on(undisturbed, tmp_path):
    out, before = tmp_path / "a run", 0
    process = start(out)
    for number in (signal.SIGTERM, signal.SIGINT):
        while process.poll() is None and newest(out) <= before:
            time.sleep(0.01)
        process.send_signal(number)
        output = finish(process)
        assert process.returncode == 128 + number, output
        assert "Traceback" not in output
        before, _ = last_state(out)
        assert f"stopped by {number.name} after step {before}, saved in" in output
        process = shell(output.rstrip().splitlines()[-1].strip())
    output = finish(process)
    assert process.returncode == 0, output
    assert_same(out, undisturbed)
