"""The main job on real MNIST."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest

from cnn_jax import command

SCRIPT = Path(__file__).parent.parent / "experiments" / "lenet5.py"


def run_lenet5(monkeypatch, *options: str) -> dict[str, list[dict]]:
    """Runs the experiment as its command line would, and returns the records of the run by split."""
    spec = importlib.util.spec_from_file_location("lenet5", SCRIPT)
    lenet5 = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lenet5", lenet5)
    spec.loader.exec_module(lenet5)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *options, "--no-report"])
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it for its process
    command.main(lenet5.main, lenet5.Config)
    out = Path(options[options.index("--out") + 1])
    found: dict[str, list[dict]] = {}
    for line in (out / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["split"], []).append(record)
    return found


def test_one_epoch_reads_most_digits(mnist_dir, tmp_path, monkeypatch):
    """Three fifths of the training images are enough for that."""
    options = ["--data.name", "mnist", "--data.dir", str(mnist_dir), "--out", str(tmp_path / "run"), "--epochs", "1"]
    test = run_lenet5(monkeypatch, *options, "--validation", "0.4")["test"]
    assert len(test) == 1
    assert test[-1]["accuracy"] > 0.97


@pytest.mark.slow
def test_ten_epochs_reach_99_percent_over_three_seeds(mnist_dir, tmp_path, monkeypatch):
    accuracies = []
    for seed in range(3):
        out = tmp_path / str(seed)
        options = ["--data.name", "mnist", "--data.dir", str(mnist_dir), "--out", str(out), "--seed", str(seed)]
        records = run_lenet5(monkeypatch, *options)
        assert len(records["train"]) <= 10
        accuracies.append(records["test"][-1]["accuracy"])
    print(f"accuracy {statistics.mean(accuracies):.4f} +- {statistics.stdev(accuracies):.4f} over seeds 0, 1, 2")
    assert statistics.mean(accuracies) >= 0.99


@pytest.mark.slow
def test_digits_reach_98_percent_over_five_seeds(tmp_path, monkeypatch):
    accuracies = []
    for seed in range(5):
        records = run_lenet5(monkeypatch, "--out", str(tmp_path / str(seed)), "--seed", str(seed))
        accuracies.append(records["test"][-1]["accuracy"])
    print(f"accuracy {statistics.mean(accuracies):.4f} +- {statistics.stdev(accuracies):.4f} over seeds 0 to 4")
    assert statistics.mean(accuracies) >= 0.98
