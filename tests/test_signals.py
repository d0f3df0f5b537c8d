"""Whenever a signal comes, a command ends in one line and with 128 plus its number; what was to be ignored is."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnn_jax import command
from cnn_jax.runs.signals import Interrupts

ROOT = Path(__file__).parent.parent
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM", signal.SIGHUP: "stopped by SIGHUP"}


@dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.fixture
def main(monkeypatch, capsys):
    """Runs a function as a command in this process; returns (exit code, lines of standard error)."""

    def call(run):
        monkeypatch.setattr(sys, "argv", ["command"])
        before = [signal.getsignal(number) for number in SIGNALS], sys.unraisablehook
        code = 0
        try:
            command.main(run, Nothing)
        except SystemExit as stop:
            code = stop.code
        assert ([signal.getsignal(number) for number in SIGNALS], sys.unraisablehook) == before
        return code, capsys.readouterr().err.splitlines()

    return call


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_after_what_it_has_to_clear_away(main, number):
    cleared = []

    def run(_):
        try:
            signal.raise_signal(number)
            time.sleep(10)
        finally:
            cleared.append(True)

    assert main(run) == (128 + number, [LINES[number]])
    assert cleared == [True]


def test_a_signal_while_garbage_is_collected_is_not_lost(main):
    """Python throws away what is raised then, and JAX has it call functions of its own each time."""
    calls = []

    def collecting(phase, info):
        calls.append(phase)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(1000):
                pass

    def run(_):
        gc.callbacks.append(collecting)
        try:
            gc.collect()
            time.sleep(10)
            raise AssertionError("the signal was lost")
        finally:
            gc.callbacks.remove(collecting)

    assert main(run) == (143, ["stopped by SIGTERM"])


def test_a_signal_that_a_library_swallowed_is_told_in_the_end(main):
    def run(_):
        try:
            signal.raise_signal(signal.SIGINT)
            time.sleep(10)
        except BaseException:
            pass

    assert main(run) == (130, ["interrupted"])


def test_what_the_process_ignores_stays_ignored(main):
    """As SIGINT is in the background of a script, and SIGHUP under nohup."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:

        def run(_):
            with Interrupts() as interrupts:
                for number in SIGNALS:
                    os.kill(os.getpid(), number)
                    assert signal.getsignal(number) == signal.SIG_IGN
            assert interrupts.received is None

        assert main(run) == (0, [])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def test_a_signal_that_nobody_heeds_acts_when_training_is_over():
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert interrupts.received == signal.SIGINT
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGHUP)
        assert interrupts.heed() == signal.SIGHUP


# What a command does, in time with the test: begins, imports, works, and then a process of the system's keeps it busy.
SCRIPT = """
from cnn_jax import start
start.begin()
import time
def wait(seconds):  # in short sleeps: a signal that comes right before one is heeded after it
    for _ in range(10 * seconds): time.sleep(0.1)
print("importing", flush=True); wait({importing})
from cnn_jax import command
from dataclasses import dataclass
import hashlib
@dataclass
class Nothing: pass
def run(_):
    print("working", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**8 if {deaf} else 1)  # tens of seconds without Python
    wait({working})
command.main(run, Nothing)
print("over", flush=True); wait({ending})
"""


def begin(**seconds):
    code = SCRIPT.format(**{"importing": 0, "deaf": 0, "working": 0, "ending": 0} | seconds)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(process, word):
    while process.stdout.readline().strip() != word:
        assert process.poll() is None


@pytest.mark.parametrize(
    ("moment", "seconds", "times"),
    [
        ("importing", {"importing": 30}, 1),
        ("working", {"working": 30}, 1),
        ("working", {"deaf": 1}, 2),  # the second acts at once, though no Python runs
        ("over", {"ending": 30}, 1),
    ],
)
def test_a_real_process_at_each_moment(moment, seconds, times):
    process = begin(**seconds)
    wait_for(process, moment)
    for k in range(times):
        time.sleep(0.1 * k)
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=25)
    assert (process.returncode, said) == (130, "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["experiments/lenet5.py", "--no-report", "--epochs", "30"], ["-m", "cnn_jax", "describe", "lenet5"]]
)
def test_signals_at_any_moment(arguments, tmp_path):
    """From the first imports to the last evaluation; before that, Python itself has not begun."""
    draw = random.Random(0)
    for k in range(25):
        number = draw.choice(SIGNALS)
        out = ["--out", str(tmp_path / str(k))] if "--epochs" in arguments else []
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, *arguments, *out], cwd=ROOT, text=True, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(0.3 + 12 * draw.random() ** 2)
        process.send_signal(number)
        printed, said = process.communicate(timeout=120)
        if process.returncode == 0:
            continue  # it was over before
        lines = [line for line in said.splitlines() if not line.startswith("cnn_jax: preparing")]
        assert process.returncode == 128 + number, said
        assert lines == [LINES[number]] or (not lines and f"stopped by {number.name} after step" in printed)
