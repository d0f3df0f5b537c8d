"""Bad command lines of an experiment: each ends in one clear line and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnn_jax import command

SCRIPT = Path(__file__).parent.parent / "experiments" / "lenet5.py"
NOT_WHOLE = ["", "x", "1.5", "1e3", "nan", "0x10", "--", "⅕", "9" * 400 + "x"]
NOT_NUMBERS = ["", "x", "1,5", "0.1.2", "--", "one"]
NOT_POSITIVE = ["0", "-1", "nan", "inf", "-inf"]

CASES: list[list[str]] = [
    *([option, value] for option in ("--epochs", "--batch-size", "--seed") for value in NOT_WHOLE),
    *([option, value] for option in ("--optimizer.learning-rate", "--data.validation") for value in NOT_NUMBERS),
    *(["--optimizer.learning-rate", value] for value in NOT_POSITIVE),
    *(["--optimizer.clip-norm", value] for value in [*NOT_POSITIVE, "x"]),
    *(["--optimizer.weight-decay", value] for value in ("-1", "nan", "inf", "x")),
    *(["--optimizer.momentum", value] for value in ("-0.1", "1", "nan", "x")),
    *(["--optimizer.name", value] for value in ("", "Adam", "sdg", "adam ", "adamw,sgd")),
    *(["--schedule.name", value] for value in ("", "linear", "Cosine")),
    *(["--schedule.warmup", value] for value in ("-0.1", "1", "nan", "x")),
    *(["--schedule.decay-at", *values] for values in (["0.5", "0.2"], ["0"], ["1"], ["nan"], ["x"], ["0.5", "0.5"])),
    *(["--schedule.decay-factor", value] for value in ("0", "-1", "2", "nan")),
    *(["--loss.name", value] for value in ("", "mse", "cross_entropy")),
    *(["--loss.label-smoothing", value] for value in ("-0.1", "1", "nan", "x")),
    ["--loss.name", "squared_error", "--loss.label-smoothing", "0.1"],
    *(["--checkpoint.every-steps", value] for value in ("0", "-1", "1.5", "x")),
    *(["--checkpoint.every-seconds", value] for value in ("-1", "nan", "inf", "x")),
    *(["--checkpoint.keep", value] for value in ("0", "-1", "x")),
    *(["--epochs", "-1"], ["--batch-size", "0"], ["--batch-size", "-8"], ["--seed", "-1"], ["--seed", str(2**31)]),
    *(["--replicas", value] for value in ("0", "-1", "1.5", "x", str(2**31 + 1))),
    *(["--data.validation", value] for value in ("-1", "1.5", "nan", "inf", "1437", "99999")),
    *(
        ["--data.name", value]
        for value in ("", " ", "digit", "mnits", "../mnist", "mnist:9.9.9", "digits/x", "a b", "é")
    ),
    *(["--device", value] for value in ("", "gpu", "tpu", "cpu:1", "cpu:x", "cpu:-7", "nvidia", "CPU0")),
    *(["--model.activation", value] for value in ("", "Tanh", "relu6")),
    *([option] for option in ("--epochs", "--data.name", "--out", "--optimizer", "--unknown", "-x", "junk")),
    ["--resume"],
    ["--resume", "--overwrite", "--out", "x"],
    ["--epochs", "1", "2"],
    ["--data.nmae", "mnist"],
    ["--model.num-classes", "3"],
]


@pytest.fixture(scope="module")
def lenet5():
    spec = importlib.util.spec_from_file_location("lenet5_fuzzed", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["lenet5_fuzzed"] = module
    spec.loader.exec_module(module)
    return module


def run(lenet5, monkeypatch, capsys, options) -> str:
    """Runs the command line, which is to be refused; returns the line that says why."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it for its process
    with pytest.raises(SystemExit) as stop:
        command.main(lenet5.main, lenet5.Config)
    captured = capsys.readouterr()
    assert stop.value.code == 2, f"{options}: exit code {stop.value.code}"
    lines = [line for line in captured.err.splitlines() if not line.startswith("cnn_jax: preparing digits")]
    assert len(lines) == 1, f"{options}: {captured.err}"
    assert lines[0].startswith("error: ")
    assert len(lines[0]) > len("error: ") + 10
    assert captured.out == ""
    return lines[0]


def test_there_are_enough_cases():
    assert len({tuple(case) for case in CASES}) >= 100


@pytest.mark.parametrize("options", CASES, ids=lambda options: " ".join(options)[:40])
def test_bad_options(lenet5, monkeypatch, capsys, tmp_path, options):
    monkeypatch.chdir(tmp_path)
    line = run(lenet5, monkeypatch, capsys, options)
    assert list(tmp_path.iterdir()) == [], "something was left behind"
    # It names the option or the value, so that one sees what to change.
    words = [word.lstrip("-").replace("-", "_") for word in options if word.strip("- ")]
    if words and len(words[-1]) < 80:
        said = line.replace("-", "_")
        assert any(part in said for word in words for part in re.split(r"[./]", word) if part), line


def test_random_mixtures(lenet5, monkeypatch, capsys, tmp_path):
    """A bad option among good ones, in any order, is refused all the same."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    good = [["--epochs", "3"], ["--seed", "7"], ["--optimizer.name", "sgd"], ["--data.name", "digits"]]
    for _ in range(40):
        bad = draw.choice([case for case in CASES if len(case) == 2 and case[0].startswith("--")])
        options = [part for part in draw.sample(good, 2) if part[0] != bad[0]] + [bad]
        draw.shuffle(options)
        run(lenet5, monkeypatch, capsys, [word for option in options for word in option])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"]])
def test_an_occupied_folder_keeps_its_contents(lenet5, monkeypatch, capsys, tmp_path, options):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "thesis.tex" in run(lenet5, monkeypatch, capsys, ["--out", str(tmp_path), *options])
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_real_process_ends_with_code_2(tmp_path):
    command_line = [sys.executable, str(SCRIPT), "--epochs", "many"]
    found = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert "many" in found.stderr


def test_help_is_worth_reading(tmp_path):
    found = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0
    for word in ("--data.name", "--optimizer.learning-rate", "--resume", "--checkpoint.every-seconds", "LeNet-5"):
        assert word in found.stdout
    assert "MISSING" not in found.stdout
