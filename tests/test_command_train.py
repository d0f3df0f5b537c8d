"""`cnn-jax train`: any model on any images, from the command line to the run's folder."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_jax.cli.train import DESCRIPTION
from cnn_jax.runs import load_run
from tests.commands import run_command
from tests.test_sources import draw
from tests.tiny import make_dataset

SMALL = ("--model", "convnet(filters=(4,))", "--batch-size", "8", "--epochs", "1", "--no-report")


@pytest.fixture(autouse=True)
def _here(own_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_arrays(tmp_path, monkeypatch, capsys):
    train, test = make_dataset(), make_dataset(30, seed=1, split="test")
    arrays = {f"{s.split}_{name}": getattr(s, name) for s in (train, test) for name in ("images", "labels")}
    np.savez("set.npz", **arrays)
    code, out, err = run_command(
        monkeypatch, capsys, "train", "--data", 'arrays("set.npz")', *SMALL, "--averaging", "ema(0.9)",
        "--groups", "group('bias', rate=0.5)", "--schedule", "warmup_stable_decay", "--optimizer", "muon(0.02)",
        "--accumulate", "2", "--precision", "bfloat16",
    )  # fmt: skip
    assert (code, err) == (0, "")
    [path] = (tmp_path / "runs").iterdir()
    assert path.name.startswith("convnet-")
    run = load_run(path)
    assert run.precision == "bfloat16"
    assert f"{run.evaluate(run.load_data('test')).accuracy:.2%} of 30" in out
    assert f"cnn-jax evaluate runs/{path.name}" in out


def test_a_folder_of_pictures(tmp_path, monkeypatch, capsys):
    images = make_dataset()
    for index, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        draw(f"photos/{images.class_names[label]}/{index}.png", image)
    code, out, _ = run_command(
        monkeypatch, capsys, "train", "--data", 'folder("photos")', *SMALL, "--validation", "0.2", "--patience", "2",
        "--out", "mine",
    )  # fmt: skip
    assert code == 0
    assert load_run(tmp_path / "mine").class_names == ("left", "right", "top")
    code, evaluated, _ = run_command(monkeypatch, capsys, "evaluate", "mine")
    assert code == 0
    assert "left" in evaluated
    assert "test (best by validation)" in out


def test_a_dry_run(tmp_path, monkeypatch, capsys):
    code, out, _ = run_command(monkeypatch, capsys, "train", *SMALL, "--dry-run")
    assert code == 0
    assert "parameters" in out
    assert list(tmp_path.glob("runs")) == []


def test_help_lists_the_options_of_an_experiment(monkeypatch, capsys):
    code, out, err = run_command(monkeypatch, capsys, "train", "--help")
    assert (code, err) == (0, "")
    assert " ".join(DESCRIPTION.split("\n\n")[0].split()) in " ".join(out.split())
    for option in ("--model", "--precision", "--groups", "--averaging", "--patience", "--init", "--dry-run", "--data"):
        assert f"\n  {option}" in out


@pytest.mark.parametrize("written", ["trian", "tain", "Train"])
def test_a_slip_in_its_name_is_told(monkeypatch, capsys, written):
    code, out, err = run_command(monkeypatch, capsys, written, "--epochs", "1")
    assert code == 2
    assert out == ""
    assert written in err
    assert "train" in err
    assert len(err.splitlines()) == 1


def test_a_slip_in_an_option_is_told(monkeypatch, capsys):
    code, _, err = run_command(monkeypatch, capsys, "train", "--epoch", "1")
    assert code == 2
    assert "--epochs" in err
    assert len(err.splitlines()) == 1
