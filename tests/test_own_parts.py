"""A file of a user's, with a part of each kind: all that a run can do works for it without a change of the package."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import run_command
from tests.tiny import records

FILE = Path(__file__).parent / "my_experiment.py"
OPTIONS = ["--validation", "0.2", "--checkpoint.every-steps", "25", "--checkpoint.every-seconds", "None", "--no-report"]


def run(folder: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A run that was never disturbed, and one that was killed and resumed; in a folder of the user's."""
    folder = tmp_path_factory.mktemp("users folder")
    shutil.copy(FILE, folder)
    run(folder, FILE.name, "--out", "calm", *OPTIONS)
    command = [sys.executable, FILE.name, "--out", "killed", *OPTIONS]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and len(list((folder / "killed").glob("checkpoints/[0-9]*"))) < 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    run(folder, FILE.name, "--out", "killed", "--resume", *OPTIONS)
    return folder / "calm", folder / "killed"


def test_a_killed_run_ends_as_one_that_was_not(trained):
    calm, killed = trained
    assert records(calm) == records(killed)
    last = [record for record in records(calm) if record["split"] == "validation"][-1]
    assert last["accuracy"] > 0.8
    assert last["sureness"] > 0.5


def test_parts_are_named_by_their_texts_and_their_file_is_kept(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    recipe = config["recipe"]
    assert recipe["model"] == "my_experiment.py:Tiny(width=4, num_classes=2)"
    assert recipe["augment"] == "my_experiment.py:Noise(deviation=0.1)"
    assert recipe["optimizer"] == "my_experiment.py:Heavy(learning_rate=0.004, mass=0.9)"
    assert config["source"] == "my_experiment.py:Shapes(count=600)"
    assert (trained[0] / config["code"]["my_experiment.py"]["copy"]).read_bytes() == FILE.read_bytes()


def test_evaluated_predicted_reported_and_described_from_elsewhere(trained, tmp_path, monkeypatch, capsys):
    """In a process that has not seen the file."""

    def command(*arguments: object) -> str:
        code, out, err = run_command(monkeypatch, capsys, *arguments)
        assert code == 0, out + err
        return out

    elsewhere = shutil.copytree(trained[1], tmp_path / "moved" / "run")
    monkeypatch.chdir(tmp_path)
    found = json.loads(command("evaluate", elsewhere, "--json"))
    assert found["accuracy"] > 0.8
    assert found["sureness"] > 0.5

    row, column = np.mgrid[:20, :20]
    Image.fromarray(np.uint8(255 * (np.maximum(abs(row - 9), abs(column - 9)) <= 5))).save(tmp_path / "square.png")
    read = json.loads(command("predict", elsewhere, "square.png", "--json"))
    assert read[0]["classes"][0]["name"] == "square"

    command("report", elsewhere, "--out", "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Tiny" in page
    assert "sureness" in page
    assert "Conv_0" in command("describe", elsewhere)


def test_a_run_does_not_go_on_with_another_file(trained, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(trained[0].parent, folder)
    (folder / FILE.name).write_text(FILE.read_text().replace("self.margin + scores", "2 + scores"))
    command = [sys.executable, FILE.name, "--out", "calm", "--resume", *OPTIONS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "my_experiment.py: has changed since the run calm began" in done.stderr
    assert len(done.stderr.splitlines()) == 1
