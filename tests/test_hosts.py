"""Several processes on this machine that train one run; what each does is in `tests.hosts`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax import experiment
from cnn_jax.data.arrays import Arrays
from cnn_jax.errors import InputError, LostError, StorageError
from cnn_jax.models import ConvNet
from cnn_jax.runs import Execution, fit, greeting, hosts, load_run
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.digests import digest_arrays
from cnn_jax.runs.folder import read_config
from cnn_jax.runs.joint_folder import open_together
from cnn_jax.runs.last_word import last_word
from cnn_jax.runs.opening import contents_of
from cnn_jax.training import SGD
from tests import quick
from tests.hosts import DIVIDED, STREAMED, TEST, TRAIN, batches, run, variables_of
from tests.test_kill import OPTIONS, last_state, newest
from tests.test_training_loop import SignalAt
from tests.tiny import assert_close, make_execution, make_folder, make_recipe, records

ROOT = Path(__file__).parent.parent
ALONE = make_execution(steps_per_call=1, mesh="data=1")
MOST = 120  # seconds in which all processes are to end once one is lost


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(devices: int = 2) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices} {quick.flags()}"
    folder = str(jax.config.jax_compilation_cache_dir)
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": folder}


def begin(arguments: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, **options,
    )  # fmt: skip


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[str]:
    deadline, said = time.monotonic() + seconds, []
    try:
        for process in processes:
            said.append(process.communicate(timeout=max(deadline - time.monotonic(), 1))[0])
    finally:
        for process in processes:
            process.kill()
    return said


def wait_until(condition, processes, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    if not condition():
        pytest.fail("\n".join(finish(processes, 1)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory, shared_engines):
    """Every run of `tests.hosts` by one process on one device, undisturbed; and in `stopped` one that was not."""
    folder, found = tmp_path_factory.mktemp("alone"), {}
    for name, chosen in {"whole": STREAMED, "divided": DIVIDED}.items():
        with contextlib.closing(make_folder(folder / name)) as opened:
            found[name] = fit(chosen, TRAIN, test=TEST, execution=ALONE, folder=opened)
    with contextlib.closing(make_folder(folder / "stopped")) as opened:
        stop = SignalAt(6, signal.SIGTERM)
        stopped = fit(STREAMED, TRAIN, test=TEST, execution=ALONE, folder=opened, display=stop)
    assert stopped.interrupted == signal.SIGTERM
    return folder, {"stopped": found["whole"], "divided": found["divided"]}


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone):
    """The folder in which two processes of two devices each have done what `tests.hosts` says, and what each said.

    With what they printed until the last was killed, and all had ended.
    """
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(alone[0] / "stopped", folder / "stopped")
    arrays = {f"{split.split}_{name}": getattr(split, name) for split in (TRAIN, TEST) for name in ("images", "labels")}
    np.savez(folder / "set.npz", **arrays)
    port = free_port()
    processes = [begin(["-m", "tests.hosts", str(port), "2", str(k), str(folder)]) for k in range(2)]
    wait_until(lambda: processes[1].poll() is not None, processes)
    printed = finish(processes, MOST)
    assert processes[1].returncode == -signal.SIGKILL, "\n".join(printed)
    assert processes[0].returncode > 0 or processes[0].returncode == -signal.SIGABRT, "\n".join(printed)
    return folder, [json.loads((folder / f"said-{k}.json").read_text()) for k in range(2)], printed


@pytest.mark.parametrize("name", ["stopped", "divided"])
def test_several_processes_train_what_one_does(alone, together, name):
    """Also from a checkpoint of one process on."""
    folder, said, _ = together
    expected = alone[1][name]
    assert said[0][name] == said[1][name]
    for k in range(2):
        found, variables = dict(np.load(folder / f"{name}-{k}.npz")), variables_of(expected)
        assert found.keys() == variables.keys()
        assert len(found) > 3
        for path, leaf in variables.items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-4, atol=1e-5)
    for split, evaluations in expected.evaluations.items():
        for metric, value in evaluations[0].values().items():
            assert said[0][name]["evaluations"][split][metric] == pytest.approx(value, rel=1e-3, abs=1e-6)


def test_batches_are_the_same_bits_by_any_feed_in_any_process(together):
    folder = together[0]
    found = [dict(np.load(folder / f"batches-{feed}-{k}.npz")) for feed in ("resident", "streamed") for k in range(2)]
    assert {"0image", "1image", "0index", "0label", "0epoch"} <= found[0].keys()
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, values in other.items():
            np.testing.assert_array_equal(values, found[0][name])
    for mine, k in zip(batches("resident"), range(2), strict=True):
        for name, values in mine.items():
            np.testing.assert_array_equal(found[0][f"{k}{name}"], values)


def test_evaluation_reads_each_image_in_one_process(together):
    """As often as it is measured: with the last weights and with the best."""
    read = [one["read"] for one in together[1]]
    assert all(read)
    assert sorted(read[0] + read[1]) == sorted([*range(len(TEST))] * 2)
    assert not set(read[0]) & set(read[1])


def test_one_process_writes_the_folder_and_its_checkpoints_are_whole(alone, together):
    """Also those of which each process has a part alone; read here, with their digests, on one device."""
    folder, said, _ = together
    for name in alone[1]:
        identity = read_config(folder / name)["run"]
        with contextlib.closing(Checkpoints(folder / name, identity, read_only=True)) as kept:
            assert all(not fault for _, fault in kept.inspect())
        with contextlib.closing(Checkpoints(folder / name, identity, read_only=True)) as kept:
            restored, _ = kept.restore(alone[1][name].state)
        assert digest_arrays(restored) == said[0][name]["digests"]
        own, other = records(folder / name), records(alone[0] / {"stopped": "whole"}.get(name, name))
        assert [(line["split"], line["step"]) for line in own] == [(line["split"], line["step"]) for line in other]


def test_a_signal_to_one_stops_all_and_one_says_how_to_go_on(together):
    _, said, printed = together
    assert [one["code"] for one in said] == [128 + signal.SIGTERM] * 2
    [line] = [line for line in printed[0].splitlines() if "stopped by SIGTERM" in line]
    step = int(re.search(r"after step (\d+), saved in", line)[1])
    assert 5 <= step < 14
    assert "stopped" not in printed[1]


def test_all_end_when_one_is_killed_and_say_how_to_go_on(together):
    """What is left of the run is used and goes on in one process, and ends as one that nobody disturbed."""
    folder, _, printed = together
    for text in printed:  # by what outlives them
        [line] = [line for line in text.splitlines() if "when all have ended, start all again with --resume" in line]
        assert str(folder / "killed") in line
        assert "Traceback" not in text
    used = load_run(folder / "killed")
    assert used.step == newest(folder / "killed") < 24
    assert used.evaluate(used.load_data("test")).accuracy == 1.0
    results = [run(folder, "killed", resume=True), run(folder, "undisturbed")]
    assert results[0].interrupted is None
    assert_close(results[0].state, results[1].state)


def test_the_processes_find_each_other():
    port, faults = free_port(), []

    def come(index, count=3):
        try:
            greeting.meet(f"localhost:{port}", count, index, wait=20)
        except InputError as error:
            faults.append(str(error))

    threads = [threading.Thread(target=come, args=(k,)) for k in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize(
    ("comers", "message"),
    [
        ([(0, 3), (1, 3)], r"processes: expected 3 to meet at localhost:\d+ within 2 seconds, but 2 did not come; .*"),
        ([(0, 3), (1, 3), (1, 3)], r"process: expected each number once, got 1 twice"),
        ([(0, 2), (1, 3)], r"processes: expected the same number on all, got 2 of process 0 and 3 of 1"),
        ([(1, 2)], r"coordinator: expected process 0 at localhost:\d+ within 2 seconds, it did not answer \(.*\); .*"),
    ],
)
def test_a_wrong_or_missing_process_is_one_line_on_all(comers, message):
    port, faults = free_port(), []

    def come(index, count):
        try:
            greeting.meet(f"localhost:{port}", count, index, wait=2)
        except InputError as error:
            faults.append(str(error))

    threads = [threading.Thread(target=come, args=one) for one in comers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(faults) == len(comers)
    assert all(re.fullmatch(message, fault) for fault in faults), faults


def test_who_ends_while_others_are_awaited_is_named_at_once():
    address, faults = f"localhost:{free_port()}", []

    def come(index):
        try:
            greeting.meet(address, 4, index, wait=60)
        except LostError as error:
            faults.append(str(error))

    def call(index):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                line = socket.create_connection(greeting.parse_address(address))
                line.sendall(b'{"process": %d, "processes": 4}\n' % index)
                return line

    first = threading.Thread(target=come, args=(0,))
    first.start()
    with call(2) as other:
        call(1).close()
        said = other.makefile().readline()
    first.join()
    assert faults == ["processes: 1 came and ended before all had come; start all again"]
    for answer, fault in (
        (said, faults[0]),
        ("", f"coordinator: process 0 at {address} ended before all had come; start all again"),
    ):
        with socket.create_server(("", greeting.parse_address(address)[1])) as server:
            other = threading.Thread(target=come, args=(2,))
            other.start()
            with server.accept()[0] as line:
                line.makefile().readline()
                line.sendall(answer.encode())
            other.join()
        assert faults.pop() == fault


@pytest.mark.parametrize("address", ["nowhere", "nowhere:", ":1234", "host:0", "host:65536", "host:x"])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(InputError, match=r"^coordinator: expected the host of process 0 and a free port, .*, got '"):
        greeting.parse_address(address)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(
            InputError, match=rf"^coordinator: expected a free port of this host, .*'{address}' \(.*\)$"
        ):
            greeting.meet(address, 2, 0, wait=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes: expected a whole number >= 1 or None, got 0"),
        ({"process": 2, "processes": 2}, "process: expected a whole number from 0 to 1, of --processes, got 2"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        Execution(**options)


def test_all_three_options_are_needed():
    with pytest.raises(
        InputError, match=r"^coordinator, processes, process: expected all three or none, got None, 2, "
    ):
        hosts.join(None, 2, None)
    options = Execution(process=0)
    with pytest.raises(InputError, match=r"expected all three or none, got None, None, 0$"):
        hosts.join(options.coordinator, options.processes, options.process)


SLURM = {
    "SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "node[07-09]", "SLURM_NTASKS": "12", "SLURM_STEP_NUM_TASKS": "12",
    "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "found"),
    [(SLURM, (r"node07:\d+", 12, 5, [1])), (OPEN_MPI, (r"10\.96\.0\.1:\d+", 4, 2, [0]))],
)
def test_a_cluster_says_who_takes_part(monkeypatch, variables, found):
    assert not hosts._cluster()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hosts._cluster()
    address, *others = hosts._from_cluster()
    assert re.fullmatch(found[0], address)
    assert tuple(others) == found[1:]
    monkeypatch.setattr(greeting, "meet", None)
    hosts.join(None, 1, None)  # asks no cluster
    with pytest.raises(InputError, match=r"^processes: expected 1 with several seeds, or in a sweep, got 1?[24]; "):
        hosts.join(None, None, None, alone=True)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_task_alone_is_no_cluster(monkeypatch, name):
    for variable, value in ((SLURM | OPEN_MPI) | {name: "1"}).items():
        if variable.split("_")[0] == name.split("_")[0]:
            monkeypatch.setenv(variable, value)
    assert not hosts._cluster()


# What processes do without a device.
AGREEING = """
import sys
from cnn_jax.errors import InputError
from cnn_jax.runs import hosts

def refuse():
    raise InputError("not this")

k = int(sys.argv[2])
hosts.join(f"localhost:{sys.argv[1]}", 2, k)
assert hosts.agree(lambda: [k]) == [0]
assert hosts.of_each(k) == [0, 1]
try:
    hosts.by_first(refuse)
except InputError as error:
    assert k == 0 and str(error) == "not this"
except SystemExit as end:
    assert k == 1 and end.code == 2
try:
    with hosts.first_before_others():
        if k == 1:
            refuse()
except InputError as error:
    assert str(error) == ("not this" if k == 1 else "process 1: not this")
    sys.exit(2)
"""


def test_processes_agree_and_end_together_where_one_refuses():
    port = str(free_port())
    processes = [begin(["-c", AGREEING, port, str(k)]) for k in range(2)]
    said = finish(processes)
    assert [process.returncode for process in processes] == [2, 2], said
    assert not [line for line in "".join(said).splitlines() if line and "Gloo" not in line]


@pytest.mark.parametrize(
    ("changes", "seeds", "fingerprint", "named"),
    [
        ({}, (0,), "a", None),
        ({"optimizer": SGD(0.1)}, (0,), "a", "optimizer"),
        ({"epochs": 5}, (0,), "a", "epochs"),
        ({}, (1,), "a", "seed"),
        ({}, (0,), "b", "fingerprint"),
    ],
)
def test_a_process_with_another_recipe_seed_or_data_is_refused(
    monkeypatch, tmp_path, changes, seeds, fingerprint, named
):
    def contents(changes, seeds, fingerprint):
        train = dataclasses.replace(TRAIN, fingerprint=fingerprint)
        return contents_of(make_recipe(model=ConvNet(), **changes), train, Arrays("set.npz"), seeds, Execution())

    told, refusals = [], []  # by process 0 to this one, and by this one to it
    monkeypatch.setattr(hosts, "agree", lambda make: told.append(json.loads(json.dumps(make()))) or told[-1])
    open_together(lambda: tmp_path / "run", contents({}, (0,), "a")).close()
    monkeypatch.setattr(hosts, "agree", lambda make: told[0])
    monkeypatch.setattr(hosts, "by_first", lambda act: {"path": str(tmp_path / "run"), "run": "name"})
    monkeypatch.setattr(hosts, "of_each", lambda value, key=None: refusals.append(value) or [None, value])
    monkeypatch.setattr(hosts, "index", lambda: 1)
    if named is None:
        assert open_together(lambda: None, contents(changes, seeds, fingerprint)).path == tmp_path / "run"
        return
    with pytest.raises(
        InputError, match=f"^process: expected the options and data of process 0, but those of 1 differ in .*{named}"
    ):
        open_together(lambda: None, contents(changes, seeds, fingerprint))
    monkeypatch.setattr(hosts, "of_each", lambda value, key=None: [None, *refusals])
    with pytest.raises(InputError, match=f"^process 1: process: expected .*{named}"):  # by process 0
        open_together(lambda: None, contents({}, (0,), "a"))


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("1.jpg: gone"), 2), (StorageError("full"), 74), (jax.errors.JaxRuntimeError("lost"), 75)],
)
def test_who_cannot_go_on_says_why_and_waits_for_nobody(monkeypatch, capsys, tmp_path, error, code):
    """An ordinary end waits for the others, who wait for what this one was to compute with them."""
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "index", lambda: 1)
    monkeypatch.setattr(experiment, "last_word", lambda word: contextlib.nullcontext())
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end, experiment._never_silent(tmp_path, tmp_path):
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_one_process_agrees_with_itself():
    hosts.join(None, 1, None)
    assert hosts.count() == 1
    assert hosts.is_first()
    assert hosts.agree(lambda: (1, 2)) == (1, 2)
    assert hosts.of_each("a") == ["a"]
    assert hosts.signalled(None) is None
    assert hosts.signalled(signal.SIGINT) == signal.SIGINT


def test_the_last_word_is_said_of_a_process_that_is_killed(capfd):
    code = (
        "import os, runpy; word = runpy.run_path('cnn_jax/runs/last_word.py')['last_word']\n"
        "with word('gone'): os.kill(os.getpid(), 9)"
    )
    assert begin(["-c", code]).communicate(timeout=60)[0] == "gone\n"
    with last_word("not said"):
        pass
    assert capfd.readouterr().err == ""


# Runs a script in which a process is missed earlier than in a true one.
SOON = (
    "import runpy, sys; from cnn_jax.runs import greeting, hosts; hosts.HEARTBEAT = 10; greeting.WAIT = 60; "
    "sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def test_a_process_is_missed_in_time():
    assert hosts.HEARTBEAT + hosts.LEAVE < MOST


LONGER = ["--epochs", "10", "--checkpoint.every-steps", "8"]
STEPS = 405  # of such a run


def begin_all(out: Path, count: int, *options: str) -> list[subprocess.Popen]:
    shared = [str(ROOT / "experiments" / "lenet5.py"), *OPTIONS, *LONGER, "--out", str(out), *options]
    meeting = ["--coordinator", f"localhost:{free_port()}", "--processes", str(count), "--process"]
    return [begin(["-c", SOON, *shared, *meeting, str(k)]) for k in range(count)]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path):
    """Of one process of two or four, each time."""
    seed = random.randrange(10**6)
    draw, out, kills = random.Random(seed), tmp_path / "run", 0
    while kills < 20 and newest(out) < STEPS - 30:
        processes, before = begin_all(out, draw.choice([2, 4]), "--resume"), newest(out)
        victim = draw.choice(processes)
        if draw.random() < 0.8:  # while it trains, else at any moment
            wait_until(lambda least=before + 1: newest(out) >= least, processes)
            time.sleep(draw.uniform(0.0, 0.2))
        else:
            time.sleep(draw.uniform(0.2, 8.0))
        alive = victim.poll() is None
        victim.kill()
        began = time.monotonic()
        said = finish(processes, MOST)
        kills += 1
        print(
            f"seed {seed}, kill {kills}: {processes.index(victim)} of {len(processes)} after step {before}; "
            f"the others ended {time.monotonic() - began:.0f} s later with {[one.returncode for one in processes]}"
        )
        assert alive, said
        assert all(process.returncode for process in processes), said
        assert newest(out) >= before
    processes = begin_all(out, 4, "--resume")
    said = finish(processes, 900)
    assert [process.returncode for process in processes] == [0] * 4, said
    whole = tmp_path / "whole"
    [text] = finish(
        [begin([str(ROOT / "experiments" / "lenet5.py"), *OPTIONS, *LONGER, "--out", str(whole), "--mesh", "data=1"])]
    )
    (step, leaves), (expected_step, expected) = last_state(out), last_state(whole)
    assert step == expected_step == STEPS, text
    for leaf, reference in zip(leaves, expected, strict=True):
        np.testing.assert_allclose(leaf, reference, rtol=1e-3, atol=1e-4)
