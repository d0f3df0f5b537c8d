"""Reports on several seeds, the command that writes one, and the report at the end of a run."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest

from cnn_jax import experiment, report
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.models import MLP
from cnn_jax.report import several, write, write_report
from cnn_jax.runs import Place, Result
from cnn_jax.training import Accuracy, Recipe, TrainState
from tests.commands import run_command
from tests.reports import Page, assert_self_contained, make_findings

ACCURACIES = {5: 0.90, 6: 0.99, 7: 0.95, 8: 0.93}


@pytest.fixture
def seeds(tmp_path, monkeypatch):
    found = make_findings(tmp_path / "run", test=False, seeds=(5, 6, 7, 8))
    for seed, accuracy in ACCURACIES.items():
        own = tmp_path / "run" / f"seed-{seed}"
        own.mkdir()
        (own / "config.json").write_text("{}")
        lines = [
            {"split": split, "step": step, "loss": 1 - accuracy, "accuracy": accuracy - (step < 9)}
            for split in ("train", "test")
            for step in (3, 9)
        ]
        (own / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = []
    monkeypatch.setattr(write, "gather", lambda path: asked.append(path) or found)
    monkeypatch.setattr(write.inside, "filters", lambda found: "")
    return tmp_path / "run", asked


def test_several_seeds_have_their_mean_their_spread_and_the_median_in_detail(seeds):
    path, asked = seeds
    out = write_report(path)
    assert out == path / "report.html"
    html = out.read_text()
    assert_self_contained(html)
    text = Page(html).text
    values = 100 * np.array(list(ACCURACIES.values()))
    mean, std = values.mean(), values.std(ddof=1)
    half = 3.182446 * std / 2  # Student's t, 3 degrees of freedom, 97.5 %
    assert f"{mean:.2f} ±\N{NO-BREAK SPACE}{std:.2f}\N{NO-BREAK SPACE}%" in text
    assert f"{mean - half:.2f} to {mean + half:.2f} %" in text
    rows = re.findall(r'<tr><td class="left">(\d)</td><td>([\d.]+)%</td><td>([\d.]+)</td></tr>', html)
    assert {int(seed): float(value) for seed, value, _ in rows} == {k: 100 * v for k, v in ACCURACIES.items()}
    # Of the two in the middle the worse.
    assert asked == [path / "seed-8"]
    assert "All below is of seed 8, whose test accuracy of 93.00% is the median." in text


def test_seeds_without_test_records_have_a_report_too(seeds):
    path, asked = seeds
    for seed in ACCURACIES:
        (path / f"seed-{seed}" / "metrics.jsonl").unlink()
    assert_self_contained(write_report(path).read_text())
    assert asked == [path / "seed-5"]


def test_seeds_that_are_not_all_there_are_refused(seeds):
    path, _ = seeds
    (path / "seed-7" / "config.json").unlink()
    with pytest.raises(InputError, match="expected a finished run of 4 seeds, seed-7 is not"):
        write_report(path)


@pytest.mark.parametrize("config", [{"seeds": [3]}, {"seeds": []}, {"seeds": ["3", "4"]}, {}])
def test_the_run_of_one_seed_is_no_run_of_several(config, tmp_path):
    assert several.read_seeds(tmp_path, config) == []


# The command, and the end of a run.


def test_the_command_prints_where_the_report_is(tmp_path, monkeypatch, capsys):
    found = make_findings(tmp_path / "run", test=False)
    monkeypatch.setattr(write, "gather", lambda path: found)
    monkeypatch.setattr(write.inside, "filters", lambda found: "")
    for options, expected in (
        ((), tmp_path / "run/report.html"),
        (("--out", tmp_path / "a.html"), tmp_path / "a.html"),
    ):
        assert run_command(monkeypatch, capsys, "report", tmp_path / "run", *options) == (0, f"{expected}\n", "")
        assert_self_contained(expected.read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: expected the folder of a run, there is no such folder"),
        (["run", "--out", "absent/a.html"], "absent/a.html: expected a file in an existing folder"),
        (["run", "--out", "."], ".: expected a file to write the report to, it is a folder"),
        (["run", "--out", "x" * 300], "expected a file that can be written, got: File name too long"),
        ([], "RUN"),
    ],
)
def test_what_cannot_be_reported_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    found = make_findings(tmp_path / "run", test=False)
    monkeypatch.setattr(write, "gather", lambda path: found)
    monkeypatch.setattr(write.inside, "filters", lambda found: "")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run_command(monkeypatch, capsys, "report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def finish(tmp_path, monkeypatch):
    """Ends a run, with `write_report` replaced, and returns what `run_experiment` returned."""
    state = TrainState(step=np.int32(1), params={}, batch_stats={}, opt_state=(), rng=jax.random.key(0))
    train = {"loss": np.array([1.0]), "accuracy": np.array([0.5])}
    result = Result(
        seeds=(0,), state=state, train=train, evaluations={}, measures={"accuracy": Accuracy()}, smooths=False,
        seconds=1.0, images_per_second=1.0,
    )  # fmt: skip
    monkeypatch.setattr(experiment, "fit", lambda *args, **options: result)

    def run(write_report, **options):
        monkeypatch.setattr(report, "write_report", write_report)
        place = Place(out=tmp_path / "run", overwrite=True, **options)
        config = Experiment(recipe=Recipe(model=MLP()), place=place)
        return experiment.run_experiment(config, "mlp") is result

    return run


def test_a_run_ends_with_its_report_unless_told_not_to(finish, tmp_path, capsys):
    written = []
    assert finish(lambda path: written.append(path) or path / "report.html")
    assert written == [tmp_path / "run"]
    assert "report.html" in capsys.readouterr().out.replace("\n", "")
    assert finish(written.append, report=False)
    assert len(written) == 1


def test_a_report_that_cannot_be_written_does_not_spoil_the_run(finish, capsys):
    def refuse(path):
        raise InputError("no room")

    def fail(path):
        raise ZeroDivisionError

    with pytest.raises(InputError, match=r"^no report: no room \(the run itself is complete, in "):
        finish(refuse)
    assert "run kept in" in capsys.readouterr().out
    with pytest.raises(ZeroDivisionError):  # a bug is seen as one; the run is on disk by then
        finish(fail)
    assert "run kept in" in capsys.readouterr().out
