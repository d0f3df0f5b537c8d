"""What a command writes beside its tables: never over a file of a run, and a failure costs nothing but that file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import detection, experiment
from cnn_jax.cli import detect as command
from cnn_jax.cli import report as reporting
from cnn_jax.data import loading
from cnn_jax.detection import Detections
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.models import MLP
from cnn_jax.report import write
from cnn_jax.runs import Place, Result
from cnn_jax.runs.folder import FORMAT, seed_folder
from cnn_jax.runs.outputs import check_output, write_output
from cnn_jax.training import Accuracy, Recipe, TrainState
from tests.reports import write_config
from tests.tiny import make_dataset
from tests.trained import tree_hash

PARTS = (
    "config.json", "metrics.jsonl", "checkpoints/7/state", "checkpoints/new", "best/x", "detection.json", ".lock",
    "tensorboard/x", "config.json.tmp",
)  # fmt: skip


def make_run(path: Path, replicas: int = 1) -> Path:
    """Looks like a run's folder."""
    path.mkdir(parents=True)
    write_config(
        path,
        {
            "format": FORMAT,
            "recipe": {},
            "data": {},
            "seeds": list(range(3, 3 + replicas)),
            "files": [*detection.FILES],
        },
    )
    (path / "metrics.jsonl").write_text('{"step": 1}\n')
    (path / "checkpoints" / "7").mkdir(parents=True)
    (path / "checkpoints" / "7" / "state").write_text("numbers")
    return path


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_output_takes_the_place_of_what_a_run_is_made_of(tmp_path, replicas):
    run = make_run(tmp_path / "run", replicas)
    places = [run]
    if replicas > 1:
        places.append(make_run(run / seed_folder(3)))
        (run / seed_folder(4)).mkdir()  # of a seed that is being trained
        (run / seed_folder(4) / "metrics.jsonl").touch()
        places.append(run / seed_folder(4))
    links = tmp_path / "links"
    links.mkdir()
    before = tree_hash(run)
    for number, place in enumerate(places):
        for name in PARTS:
            link = links / f"{number}-{name.replace('/', '-')}"
            link.symlink_to(place / name)
            for path in (place / name, place / "checkpoints" / ".." / name, link):
                with pytest.raises(InputError, match="expected a new file, it is one of the run"):
                    write_output(path, "x", own="report.html")
        with pytest.raises(InputError):
            check_output(place / "report.html")
        check_output(place / "report.html", own="report.html")
        check_output(place / "mine.html")
    assert tree_hash(run) == before
    write_output(run / "report.html", "x", own="report.html")
    assert (run / "report.html").read_text() == "x"
    (tmp_path / "config.json").write_text("{}")  # anybody's, in a folder that is none of a run
    write_output(tmp_path / "config.json", "x")


@pytest.fixture
def quick_report(monkeypatch):
    """`report` with a page that costs nothing."""
    run = type("Run", (), {"data_name": "d", "model": MLP()})
    found = type("Found", (), {"run": run, "detection": None})
    monkeypatch.setattr(write, "gather", lambda path: found)
    monkeypatch.setattr(write, "_one", lambda found: [])
    for name in ("summary", "learning", "origin", "configuration"):
        monkeypatch.setattr(write.sections, name, lambda *_: "")


def test_a_report_goes_where_it_is_asked_to(tmp_path, quick_report, capfd):
    run = make_run(tmp_path / "run")
    reporting.report(run, None)
    assert capfd.readouterr().out == f"{run / 'report.html'}\n"
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    reporting.report(run, Path("/dev/stdout"))
    assert capfd.readouterr().out == page  # and nothing after it
    reporting.report(run, Path("/dev/null"))
    assert capfd.readouterr().out == ""
    (tmp_path / "link.html").symlink_to("page.html")
    reporting.report(run, tmp_path / "link.html")
    assert (tmp_path / "page.html").read_text() == page
    before = tree_hash(run)
    for out in ("metrics.jsonl", "checkpoints", "config.json/x", "report.html/x", "a/b"):
        with pytest.raises(InputError, match="in an existing folder" if out == "a/b" else "one of the run"):
            reporting.report(run, run / out)
    assert tree_hash(run) == before


@pytest.fixture
def quick_detect(monkeypatch, tmp_path, capsys):
    """`detect` with one picture, `page.png`, in which it finds a seven."""
    run = type("Run", (), {"class_names": ("7", "background")})
    one = Detections(np.array([[1.0, 2.0, 30.0, 40.0]]), np.array([0]), np.array([0.8]))
    monkeypatch.setattr(command, "load_run", lambda path: run)
    monkeypatch.setattr(detection, "check_finds", lambda run: None)
    monkeypatch.setattr(detection, "find_in_picture", lambda *_: one)
    Image.new("L", (60, 60), 255).save(tmp_path / "page.png")

    def call(draw: Path, *, as_json: bool = False):
        fine = command.detect(tmp_path, (tmp_path / "page.png",), 0.5, draw, as_json)
        return fine, *capsys.readouterr()

    return call


def test_a_drawing_that_cannot_be_written_leaves_the_old_one_and_the_table(quick_detect, tmp_path, monkeypatch):
    drawing = tmp_path / "drawn.png"
    fine, table, err = quick_detect(drawing)
    assert (fine, err) == (True, "")
    old = drawing.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for target in (drawing, tmp_path / "new.jpg", tmp_path / "folder"):
        fine, out, err = quick_detect(target)
        assert not fine
        assert out == table
        assert err.startswith("error: --draw: ")
        assert err.count("\n") == 1
        assert "No space left on device" in err
    assert json.loads(quick_detect(drawing, as_json=True)[1])[0]["found"][0]["name"] == "7"
    assert drawing.read_bytes() == old
    assert not (tmp_path / "new.jpg").exists()
    monkeypatch.undo()


@pytest.mark.parametrize("place", ["page.png/below", "/dev/full"])
def test_a_place_for_no_drawing_costs_no_table(quick_detect, tmp_path, place):
    target = tmp_path / place
    if place == "/dev/full":
        (tmp_path / "full.png").symlink_to(place)
        target = tmp_path / "full.png"
    fine, out, err = quick_detect(target)
    assert not fine
    assert "80.00%" in out
    assert "expected a file that can be written" in err


def test_a_drawing_does_not_take_the_place_of_a_run(quick_detect, tmp_path):
    run = make_run(tmp_path / "run")
    before = tree_hash(run)
    for target in (run / "detections.png", run / "checkpoints"):
        with pytest.raises(InputError, match="one of the run"):
            quick_detect(target)
    assert tree_hash(run) == before


def test_runs_started_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    state = TrainState(step=np.int32(1), params={}, batch_stats={}, opt_state=(), rng=jax.random.key(0))
    train = {"loss": np.array([1.0]), "accuracy": np.array([0.5])}
    result = Result(
        seeds=(0,), state=state, train=train, evaluations={}, measures={"accuracy": Accuracy()}, smooths=False,
        seconds=1.0, images_per_second=1.0,
    )  # fmt: skip
    config = Experiment(recipe=Recipe(model=MLP(features=(4,))), place=Place(report=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "fit", lambda *args, **options: result)
    monkeypatch.setattr(loading, "load", lambda name, split, **_: make_dataset(split=split))
    monkeypatch.setattr(experiment.time, "strftime", lambda form: "now")
    for _ in range(3):
        experiment.run_experiment(config, "mlp")
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert folders == ["mlp-digits-now", "mlp-digits-now-2", "mlp-digits-now-3"]
    monkeypatch.setattr(loading, "load", lambda *_, **__: {}["no such data"])
    with pytest.raises(KeyError):  # nothing is made for a run that cannot begin
        experiment.run_experiment(config, "mlp")
    assert len(list((tmp_path / "runs").iterdir())) == 3
