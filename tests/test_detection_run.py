"""A detector from its training to `cnn-jax detect`, small: on the embedded digits, a few scenes, a few epochs."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import cli, command, data, detection, parts, pictures
from cnn_jax.cli import detect as cli_detect
from cnn_jax.detection import measure, source
from cnn_jax.errors import InputError
from cnn_jax.runs import Place
from tests import bars

SCRIPT = Path(__file__).parent.parent / "experiments" / "detect_digits.py"


def load_script(patch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("detect_digits", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, "detect_digits", script)
    spec.loader.exec_module(script)
    return script


def digits_and_nothing(digits, key, scenes, config):
    """In place of windows: the digits themselves, and as background what is left of them in a corner."""
    images, labels = digits.images[: 20 * scenes], digits.labels[: 20 * scenes]
    corners = np.roll(images, 16, axis=(1, 2)) * (np.arange(32) < 12)[:, None]
    return dataclasses.replace(
        digits, images=np.concatenate([images, corners]), labels=np.concatenate([labels, np.full_like(labels, 10)]),
        class_names=(*digits.class_names, "background"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What the experiment prints, and the folder of its run: one epoch of a few digits."""
    path = tmp_path_factory.mktemp("detector") / "run"
    with pytest.MonkeyPatch.context() as patch:
        # Windows and scales have tests of their own, and take long to compile.
        patch.setattr(source, "window_dataset", digits_and_nothing)
        patch.setattr(source, "TEST_SCENES", 16)
        patch.setattr(measure, "pyramid", lambda smallest, largest, side: (1.0,))
        script = load_script(patch)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            recipe = dataclasses.replace(script.Config().recipe, epochs=1)
            place = Place(out=path, report=False)
            script.main(script.Config(recipe=recipe, data=detection.Windows(scenes=16), place=place))
    return output.getvalue(), path


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs `cnn-jax` in this process; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cnn-jax", *map(str, arguments)])
        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # the command changes it for its process
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def detect(call, monkeypatch):
    """`cnn-jax detect` with the stand-in of `tests.bars` for a run."""
    monkeypatch.setattr(cli_detect, "load_run", lambda path: bars.run())
    return lambda *arguments: call("detect", "bars", *arguments)


def test_an_experiment_leaves_a_run_with_figures_and_a_picture(trained):
    printed, path = trained
    figures = json.loads((path / "detection.json").read_text())
    assert figures["scenes"] == 16
    assert [one["name"] for one in figures["classes"]] == list("0123456789")
    assert figures["digits"] == sum(one["digits"] for one in figures["classes"])
    rows = [line.split() for line in printed.splitlines()]
    for name, one in [*((one["name"], one) for one in figures["classes"]), ("all", figures)]:
        area = one.get("average_precision", figures["mean_average_precision"])
        shares = [f"{share:.2%}" if share is not None else "-" for share in (area, one["precision"], one["recall"])]
        assert [name, str(one["digits"]), *shares] in rows
    with Image.open(path / "detections.png") as picture:
        assert picture.width == 800


def test_evaluate_measures_a_detector_on_windows(trained, call, monkeypatch):
    _, path = trained
    monkeypatch.setattr(source, "TEST_SCENES", 16)
    monkeypatch.setattr(source, "window_dataset", digits_and_nothing)
    found = json.loads(call("evaluate", path, "--json")[1])
    assert [one["name"] for one in found["classes"]] == [*"0123456789", "background"]
    last = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["split"] == "test"
    assert found["accuracy"] == pytest.approx(last["accuracy"])


def test_windows_are_those_of_scenes_by_their_own_seed(monkeypatch, capsys):
    monkeypatch.setattr(source, "window_dataset", lambda digits, key, scenes, config: (digits, key, scenes))
    monkeypatch.setattr(source, "replace", lambda made, fingerprint: (*made, fingerprint))
    made = {
        (split, scenes, seed): detection.Windows(scenes=scenes, seed=seed)(split, (32, 32))
        for split in ("train", "test")
        for scenes in (None, 5)
        for seed in (0, 1)
    }
    for (split, scenes, seed), (digits, key, count, _) in made.items():
        assert (digits.split, digits.images.shape[1:3]) == (split, (32, 32))
        # Test scenes are the same for all.
        expected = ((seed, 1), scenes or 1000) if split == "train" else ((0, 2), source.TEST_SCENES)
        assert (key == jax.random.fold_in(jax.random.key(expected[0][0]), expected[0][1]), count) == (True, expected[1])
    # Splits of one source have one fingerprint, that of its training windows.
    marks = {split: [found[-1] for (own, *_), found in made.items() if own == split] for split in ("train", "test")}
    assert marks["train"] == marks["test"]
    assert len(set(marks["train"])) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("cutting windows out of 1,000 scenes\n") == 2
    with pytest.raises(InputError, match="whose input_size is a square"):
        detection.Windows()("train", (32, 28))


def test_windows_are_chosen_on_the_command_line(monkeypatch):
    script = load_script(monkeypatch)
    for arguments in (["--data.name", "mnist", "--data.scenes", "5"], ["--data", 'windows("mnist", scenes=5)']):
        windows = command.parse(script.Config, arguments).data
        assert windows == detection.Windows("mnist", scenes=5)
    text = parts.text(windows.here())
    assert text == "cnn_jax.detection.source:Windows(name='mnist', dir=None, strict=False, scenes=5, seed=0)"
    assert parts.parse(text, data.Source) == windows
    for wrong in (["--data.scenes", "0"], ["--data.seed", "-1"], ["--data.name", " "]):
        with pytest.raises(InputError, match=rf"^{wrong[0]}: expected"):
            command.parse(script.Config, wrong)


def test_the_figures_are_those_of_a_count_by_hand():
    """Scenes of a 1 and a 2: a 1 is found twice, a 2 is taken for a 1, and in the third the 2 is missed."""
    boxes = np.array([[[0, 0, 10, 10], [50, 50, 70, 60]]] * 3, np.float32)
    labels = np.array([[1, 2], [1, 2], [1, 2]])
    scenes = detection.Scene(np.zeros((3, 128, 128, 1), np.uint8), boxes, labels, np.ones((3, 2), bool))
    found = detection.Detections(
        boxes=boxes[:, [0, 1, 0]],
        labels=np.array([[1, 2, 1], [1, 1, 0], [1, 0, 0]]),
        scores=np.array([[0.9, 0.8, 0.7], [0.95, 0.6, -np.inf], [0.4, -np.inf, -np.inf]]),
    )
    hits = np.array([[0, 1, -1], [0, -1, -1], [0, -1, -1]])
    everything = detection.Found(scenes=scenes, detections=found, hits=hits)
    assert everything.missed(0.5).tolist() == [[False, False], [False, True], [True, True]]
    assert everything.missed(0.3).tolist() == [[False, False], [False, True], [False, True]]
    figures = detection.figures(everything, "012")
    nothing = {"name": "0", "digits": 0, "average_precision": None, "precision": None, "recall": None}
    one = {"name": "1", "digits": 3, "average_precision": pytest.approx((1 + 1 + 3 / 5) / 3), "precision": 0.5}
    two = {"name": "2", "digits": 3, "average_precision": pytest.approx(1 / 3), "precision": 1.0}
    recalls = {"1": pytest.approx(2 / 3), "2": pytest.approx(1 / 3)}
    assert figures["classes"] == [nothing, *(c | {"recall": recalls[c["name"]]} for c in (one, two))]
    assert figures["mean_average_precision"] == pytest.approx((2.6 / 3 + 1 / 3) / 2)
    assert (figures["precision"], figures["recall"]) == (pytest.approx(3 / 5), pytest.approx(0.5))
    pictures.detections(everything, "012").savefig(io.BytesIO(), format="svg")


def test_pictures_of_any_size_and_polarity_give_the_same_boxes(detect, tmp_path):
    image = bars.picture()
    Image.fromarray(image).save(tmp_path / "small.png")
    shade = np.linspace(1.0, 0.7, 120)
    page = Image.fromarray((shade * (230 - 0.8 * image)).astype(np.uint8)).resize((240, 200), Image.Resampling.BICUBIC)
    page.convert("RGB").save(tmp_path / "page.jpg", quality=90)
    Image.new("L", (60, 40), 255).save(tmp_path / "blank.png")
    code, out, err = detect(tmp_path, "--json", "--draw", tmp_path / "drawn")
    assert (code, err) == (0, "")
    blank, large, small = json.loads(out)
    assert blank == {"path": str(tmp_path / "blank.png"), "height": 40, "width": 60, "found": []}
    assert (large["height"], large["width"]) == (200, 240)
    for picture, factor in ((large, 2), (small, 1)):
        boxes = np.array([[one[edge] for edge in ("top", "left", "bottom", "right")] for one in picture["found"]])
        # Here bars of any length from 14 pixels on are looked for.
        expected = [*bars.BARS.tolist(), bars.LONG_BAR, *([bars.TICK] if factor == 2 else [])]
        np.testing.assert_allclose(sorted(boxes.tolist()), factor * np.array(sorted(map(list, expected))), atol=3.5)
        scores = [one["score"] for one in picture["found"]]
        assert scores == sorted(scores, reverse=True)
        assert {one["name"] for one in picture["found"]} == {"bar"}
    with Image.open(tmp_path / "drawn" / "page.png") as drawn, Image.open(tmp_path / "page.jpg") as original:
        assert drawn.size == (720, 600)  # small pictures are enlarged before anything is written on them
        changed = (np.asarray(drawn) != np.asarray(original).repeat(3, axis=0).repeat(3, axis=1)).any(axis=-1)
    for one in large["found"]:
        top, left, bottom, right = (round(3 * one[edge]) for edge in ("top", "left", "bottom", "right"))
        assert changed[top:bottom, left - 1].all()
        assert changed[top - 1, left:right].all()
        assert not changed[top + 20 : bottom, left:right].any()  # its name may reach in from above
    assert changed.mean() < 0.1
    table = detect(tmp_path / "small.png", tmp_path / "blank.png")[1].splitlines()
    assert len(table) == 2 + 4 + 1
    assert table[2].split()[1] == "bar"
    assert table[-1].split() == [str(tmp_path / "blank.png"), "nothing"]
    assert len(detect(tmp_path / "small.png", "--least", 1)[1].splitlines()) == 2 + 1


def test_what_cannot_be_used_is_refused_in_one_line(detect, tmp_path):
    picture = tmp_path / "a.png"
    Image.fromarray(bars.picture()).save(picture)
    before = picture.read_bytes()
    (tmp_path / "broken.png").write_bytes(before[:50])
    for arguments, message in [
        ([], "IMAGE: expected at least one picture"),
        ([picture, "--least", 0], "--least: expected a score above 0 and at most 1, got 0"),
        ([picture, "--least", "nan"], "--least: expected a score above 0 and at most 1, got nan"),
        ([picture, "--draw", picture], "--draw: expected a new file, got the picture"),
        ([picture, "--draw", tmp_path], "--draw: expected a new file, got the picture"),
        ([picture, picture, "--draw", tmp_path / "b.png"], "--draw: expected a folder for 2 pictures"),
        ([tmp_path / "broken.png"], "broken.png: expected a readable picture"),
    ]:
        code, out, err = detect(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
        assert picture.read_bytes() == before


def test_pictures_of_one_name_are_drawn_to_files_of_their_own(detect, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("L", (40, 40)).save(tmp_path / folder / "x.png")
    assert detect(tmp_path / "a", tmp_path / "b", "--draw", tmp_path / "drawn")[0] == 0
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == ["x-2.png", "x.png"]


def test_only_runs_with_a_background_find_things(call, monkeypatch, tmp_path):
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    without = dataclasses.replace(bars.run(), class_names=("bar", "blot"))
    monkeypatch.setattr(cli_detect, "load_run", lambda path: without)
    message = "bars: expected a run with 'background' as its last class, its classes are bar, blot"
    code, out, err = call("detect", "bars", tmp_path / "x.png")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    with pytest.raises(InputError, match=message):
        detection.find_in_test_scenes(without, data.load("digits", "test"))


@pytest.mark.slow
def test_mean_average_precision_on_mnist_is_at_least_95_percent_over_three_seeds(mnist_dir, tmp_path, monkeypatch):
    script = load_script(monkeypatch)
    found = []
    for seed in range(3):
        windows = detection.Windows("mnist", str(mnist_dir), seed=seed)
        place = Place(out=tmp_path / str(seed), report=False)
        script.main(script.Config(seed=seed, data=windows, place=place))
        found.append(json.loads((tmp_path / str(seed) / "detection.json").read_text()))
        assert found[-1]["scenes"] >= 200
    means = [figures["mean_average_precision"] for figures in found]
    print(f"mean average precision {np.mean(means):.4f} +- {np.std(means, ddof=1):.4f} over seeds 0, 1, 2")
    assert np.mean(means) >= 0.95
