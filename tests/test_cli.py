"""`cnn-jax evaluate | predict | describe` on a real run, against counts made by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnn_jax
from cnn_jax import cli, data, models
from cnn_jax.cli import evaluate as cli_evaluate
from cnn_jax.describe import describe
from cnn_jax.runs import Run, load_run
from cnn_jax.training import CalibrationError, Evaluation, SoftmaxCrossEntropy, TopK
from cnn_jax.training.evaluation import by_class
from tests import networks
from tests.trained import draw_page, trained, tree_hash


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return trained(tmp_path_factory)


@pytest.fixture(scope="module")
def run(path):
    return load_run(path)


@pytest.fixture(scope="module")
def test_split():
    return data.load("digits", "test")


@pytest.fixture
def cnn_jax_command(monkeypatch, capsys):
    """Runs the command in this process; returns (exit code, stdout, stderr)."""

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


def test_evaluate_counts_as_by_hand(cnn_jax_command, path, run, test_split):
    before = tree_hash(path)
    code, out, err = cnn_jax_command("evaluate", path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    probabilities = run.probabilities(test_split.images).astype(np.float64)
    predicted, labels = probabilities.argmax(axis=1), test_split.labels
    assert found["count"] == len(labels) == 360
    assert found["accuracy"] == pytest.approx((predicted == labels).mean())
    assert found["loss"] == pytest.approx(-np.log(probabilities[np.arange(360), labels]).mean(), rel=1e-4)
    confusion = np.zeros((10, 10), int)
    for true, taken in zip(labels, predicted, strict=True):
        confusion[true, taken] += 1
    assert found["confusion"] == confusion.tolist()
    for index, row in enumerate(found["classes"]):
        hits = ((predicted == index) & (labels == index)).sum()
        precision, recall = hits / (predicted == index).sum(), hits / (labels == index).sum()
        assert (row["name"], row["count"]) == (str(index), (labels == index).sum())
        assert row["precision"] == pytest.approx(precision)
        assert row["recall"] == pytest.approx(recall)
        assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert tree_hash(path) == before


def test_the_tables_of_evaluate_fit_a_terminal_and_say_the_same(cnn_jax_command, path):
    found = json.loads(cnn_jax_command("evaluate", path, "--json")[1])
    code, out, err = cnn_jax_command("evaluate", path)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert f"accuracy {found['accuracy']:.2%}" in out.splitlines()[-1]
    matrix = [line.split() for line in out.split("taken for")[1].splitlines()[2:12]]
    assert [[int(cell.replace(".", "0")) for cell in row[1:]] for row in matrix] == found["confusion"]


def test_evaluate_takes_another_split(cnn_jax_command, path):
    found = json.loads(cnn_jax_command("evaluate", path, "--split", "train", "--json")[1])
    assert (found["split"], found["count"]) == ("train", 1437)


def test_evaluate_takes_a_source_by_its_text_or_a_data_set_by_its_name(cnn_jax_command, path, test_split, tmp_path):
    arrays = {f"{split}_images": test_split.images for split in ("train", "test")}
    np.savez(tmp_path / "x.npz", **arrays, train_labels=test_split.labels, test_labels=(test_split.labels + 1) % 10)
    own = json.loads(cnn_jax_command("evaluate", path, "--json")[1])
    for text in ("digits", "digits:1.0.0", 'tfds("digits")', "TFDS()"):
        assert json.loads(cnn_jax_command("evaluate", path, "--data", text, "--json")[1]) == own
    found = json.loads(cnn_jax_command("evaluate", path, "--data", f"arrays({str(tmp_path / 'x.npz')!r})", "--json")[1])
    assert (found["data"], found["count"]) == ("x", 360)
    assert found["accuracy"] == pytest.approx(sum(own["confusion"][k][(k + 1) % 10] for k in range(10)) / 360)


def test_evaluate_prints_every_metric_and_the_floor_of_a_loss_of_smoothed_labels(cnn_jax_command, monkeypatch):
    statistics = data.Statistics(mean=(0.5,), std=(0.25,))
    run = Run(
        path=Path("run"), model=models.MLP(num_classes=2), variables={}, step=7, best=False, data_name="set",
        image_shape=(2, 2, 1), class_names=("a", "b"), statistics=statistics, loss=SoftmaxCrossEntropy(0.5),
        metrics=(TopK(2), CalibrationError()),
    )  # fmt: skip
    dataset = data.Dataset(
        name="set", version="1", split="test", images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.array([0, 0, 0, 1]),
        class_names=("a", "b"), statistics=statistics, fingerprint="",
    )  # fmt: skip
    values = {"top2": 1.0, "calibration_error": 0.125, "accuracy": 0.75, "cross_entropy": 0.5}
    scores = np.array([[1.0, 0.0]] * 4)
    monkeypatch.setattr(Run, "load_data", lambda *_: dataset)
    monkeypatch.setattr(Run, "evaluate", lambda *_: Evaluation(loss=0.625, metrics=values, count=4, scores=scores))
    monkeypatch.setattr(cli_evaluate, "load_run", lambda path: run)
    lines = cnn_jax_command("evaluate", "run")[1].splitlines()
    assert lines[-2] == "accuracy 75.00% (3 of 4), top2 100.00%, calibration_error 0.1250, cross_entropy 0.5000"
    floor = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert (
        lines[-1] == f"loss 0.6250, of softmax_cross_entropy(label_smoothing=0.5), which cannot fall below {floor:.4f}"
    )
    found = json.loads(cnn_jax_command("evaluate", "run", "--json")[1])
    assert {name: found[name] for name in values} == values
    assert found["loss"] == 0.625


def test_a_class_without_images_or_predictions_has_no_figures():
    classes, confusion = by_class(np.array([0, 0]), np.array([0, 1]), ("a", "b", "c"))
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert classes[0] == {"name": "a", "count": 2, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert np.isnan([classes[1]["recall"], classes[2]["precision"], classes[2]["recall"]]).all()


def test_many_classes_show_the_most_frequent_confusions(capsys):
    confusion = np.diag(np.full(100, 50))
    confusion[3, 70], confusion[9, 8], confusion[8, 9] = 17, 1234, 2
    cli_evaluate._show_confusion(confusion, tuple(f"class [{k}]" for k in range(100)))
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        [f"class [{a}]", f"class [{b}]", f"{n:,}", f"{n / confusion[a].sum():.2%}"]
        for a, b, n in [(9, 8, 1234), (3, 70, 17), (8, 9, 2)]
    ]


def test_long_names_are_numbered_to_keep_the_matrix_narrow(capsys):
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    cli_evaluate._show_confusion(np.full((10, 10), 5000), names)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[3].split()[:2] == ["1", "automobile"]


def test_predict_reads_the_test_digits_as_evaluate_does(cnn_jax_command, path, run, test_split, tmp_path):
    for index, image in enumerate(test_split.images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index:03d}.png")
    code, out, err = cnn_jax_command("predict", path, tmp_path, "--json", "--top", 10)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [entry["path"] for entry in found] == [str(tmp_path / f"{index:03d}.png") for index in range(360)]
    probabilities = run.probabilities(test_split.images)
    for entry, row in zip(found, probabilities, strict=True):
        given = [c["probability"] for c in entry["classes"]]
        assert given == sorted(given, reverse=True)
        assert sum(given) == pytest.approx(1, abs=1e-5)
        assert entry["classes"][0]["name"] == str(row.argmax())
        assert {c["name"]: c["probability"] for c in entry["classes"]} == pytest.approx(
            {str(k): p for k, p in enumerate(row)}, abs=1e-5
        )


def test_predict_names_broken_files_and_does_the_others(cnn_jax_command, path, test_split, tmp_path):
    good = tmp_path / "a [bold] ünï\ncode.jpg"
    Image.fromarray(draw_page(test_split.images[0])).save(good)
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:300])
    code, out, err = cnn_jax_command("predict", path, tmp_path, tmp_path / "missing.png", "--top", 2)
    assert code == 2
    assert "a [bold] ünï\\ncode.jpg" in out
    label = str(test_split.labels[0])
    assert out.splitlines()[2].split("code.jpg")[1].split()[0] == label
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)
    assert "broken.png" in err
    assert "missing.png: expected a readable picture, got: No such file or directory" in err


@pytest.mark.parametrize("top", [1, 3, 99])
def test_top(cnn_jax_command, path, test_split, tmp_path, top):
    Image.fromarray(test_split.images[0, ..., 0]).save(tmp_path / "x.png")
    [entry] = json.loads(cnn_jax_command("predict", path, tmp_path / "x.png", "--top", top, "--json")[1])
    assert len(entry["classes"]) == min(top, 10)
    assert sum(c["probability"] for c in entry["classes"]) <= 1 + 1e-5


@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_describe_prints_the_volume_table(cnn_jax_command, form):
    for name in networks.KINDS if form == "text" else ["lenet5"]:
        code, out, err = cnn_jax_command("describe", name, *([] if form == "text" else ["--format", form]))
        assert (code, err) == (0, "")
        model: Any = models.build(name)
        size = models.input_size(model) or (224, 224)  # of ImageNet
        assert out == f"{getattr(describe(model, (*size, networks.channels(name))), form)()}\n"


def test_describe_takes_a_run_and_other_sizes(cnn_jax_command, path):
    assert "51,902" in cnn_jax_command("describe", path)[1]
    out = cnn_jax_command("describe", "lenet5", "--size", 36, 40, "--channels", 3)[1]
    assert "36x40x3" in out
    assert "2x3x10" in out
    assert f"{51_902 + 2 * 150:,}" in out


OWN_MODEL = """
import flax.linen as nn

class Tiny(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(nn.Conv(self.width, (3, 3))(images).mean(axis=(1, 2)))
"""


def test_describe_takes_the_text_of_a_model(cnn_jax_command, tmp_path, monkeypatch):
    out = cnn_jax_command("describe", "mlp(features=(7,))")[1]
    assert out == f"{describe(models.MLP(features=(7,)), (*models.MLP.input_size, 1)).text()}\n"
    monkeypatch.chdir(tmp_path)
    Path("my_model.py").write_text(OWN_MODEL)
    assert "--size: expected height and width" in cnn_jax_command("describe", "my_model.py:Tiny")[2]
    out = cnn_jax_command("describe", "my_model.py:Tiny(width=5)", "--size", 8, 9)[1]
    assert "8x9x5" in out
    assert f"{3 * 3 * 5 + 5 + 5 * 3 + 3}" in out


def test_help_names_all_models_and_version_is_the_package_s(cnn_jax_command):
    assert cnn_jax_command("--version")[1] == f"cnn-jax {cnn_jax.__version__}\n"
    for arguments in ([], ["evaluate"], ["predict"], ["describe"]):
        code, out, _ = cnn_jax_command(*arguments, "--help")
        assert code == 0
        assert max(map(len, out.splitlines())) <= 100
    assert all(name in out for name in models.MODELS)


def test_help_does_not_wait_for_jax():
    start = "import sys; sys.argv = ['cnn-jax', '--help']; from cnn_jax import cli"
    help_text = "try: cli.main()\nexcept SystemExit: pass"
    check = "heavy = {'jax', 'flax', 'PIL', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run(
        [sys.executable, "-c", f"{start}\n{help_text}\n{check}"], check=True, capture_output=True, timeout=60
    )
