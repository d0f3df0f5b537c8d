"""What a run prints, whatever its output is: in ASCII, with hostile names, without a reader, and as it is stopped."""

from __future__ import annotations

import importlib.machinery
import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from cnn_jax import data, experiment, report
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import MLP
from cnn_jax.runs import Place, fit, load_run
from cnn_jax.runs.display import Display
from cnn_jax.terminal import output
from cnn_jax.terminal.signals import Stopped
from cnn_jax.training import Recipe, SoftmaxCrossEntropy
from tests.tiny import make_dataset, make_execution, make_folder, make_recipe, records, steps_kept

pytestmark = pytest.mark.usefixtures("shared_engines")


def smoothed(**options) -> Recipe:
    """A small recipe with smoothed labels."""
    return Recipe(model=MLP(features=(4,)), loss=SoftmaxCrossEntropy(label_smoothing=0.1), batch_size=256, **options)


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # an experiment changes it for its process
    yield
    output._lost.clear()


def test_replicas_in_ascii_in_a_folder_with_a_hostile_name(monkeypatch, tmp_path):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    path = tmp_path / "[/red]é\x1b[31m\n:smile:"
    config = Experiment(recipe=smoothed(epochs=1), replicas=2, place=Place(out=path, report=False))
    result = run_experiment(config, "mlp")
    printed = stream.buffer.getvalue().decode("ascii")
    assert "run kept in " + str(tmp_path / "[/red]\\xe9\\x1b[31m\\n:smile:") in printed
    assert not set(printed) & {"\x1b", "\r"}
    assert f"{result.summary().percent().replace('±', '+-')} (mean +- standard deviation" in printed
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    means = [result.values("test", name).mean() for name in ("loss", "cross_entropy")]
    assert rows["mean"][1:3] == [f"{mean:.4f}" for mean in means]
    assert {"95% >=", "95% <="} <= set(rows)
    last = records(path / "seed-1")[-1]
    assert (last["split"], last["cross_entropy"]) == ("test", result.evaluations["test"][1].metrics["cross_entropy"])


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path):
    """TensorStore takes paths in UTF-8 alone."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff"))
    with pytest.raises(InputError, match="valid UTF-8"):
        make_folder(path)
    with pytest.raises(InputError, match="valid UTF-8"):
        load_run(path)
    assert not list(tmp_path.iterdir())


class Left(io.StringIO):
    """A pipe whose reader, head, leaves after a line."""

    lines = 0

    def write(self, text):
        self.lines += 1
        if self.lines > 1:
            raise BrokenPipeError
        return len(text)


def test_a_run_goes_on_without_its_reader(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", Left())
    config = Experiment(recipe=smoothed(epochs=2), place=Place(out=tmp_path, report=False))
    result = run_experiment(config, "mlp")
    assert result.interrupted is None
    assert steps_kept(tmp_path)[-1] == 12  # 2 epochs of 1,437 images
    # The cross-entropy stands beside the loss with smoothed labels; by NumPy in float64:
    [found], labels = result.evaluations["test"], data.load("digits", "test").labels
    logs = log_softmax(found.scores.astype(np.float64), axis=1)
    right = logs[np.arange(len(labels)), labels]
    assert found.metrics["cross_entropy"] == pytest.approx(-right.mean(), rel=1e-5)
    assert found.loss == pytest.approx(-(0.9 * right + 0.1 * logs.mean(axis=1)).mean(), rel=1e-5)
    assert records(tmp_path)[-1]["cross_entropy"] == found.metrics["cross_entropy"]


def test_how_to_go_on_is_said_on_standard_error_where_the_reader_was_stopped_too(monkeypatch, capsys, tmp_path):
    """Ctrl-C stops all of `lenet5.py | tee log`."""
    monkeypatch.setattr(sys, "argv", ["lenet5.py", "--epochs", "3"])
    result = fit(make_recipe(epochs=1), make_dataset(8), execution=make_execution())
    monkeypatch.setattr(sys, "stdout", Left())
    sys.stdout.lines = 1
    experiment._say_how_to_resume(result, tmp_path / "a b" / "row", tmp_path / "a b")
    said = capsys.readouterr().err
    assert f"saved in {tmp_path}/a b/row; resume with" in said
    assert said.rstrip().endswith(f"lenet5.py --epochs 3 --out '{tmp_path}/a b' --resume")


def test_how_to_go_on_calls_a_module_as_it_was_called(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["cnn-jax", "train", "--resume"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", importlib.machinery.ModuleSpec("cnn_jax.__main__", None))
    assert experiment._resuming(tmp_path).endswith(f" -m cnn_jax train --out {tmp_path} --resume")


def test_a_signal_during_the_report_says_that_the_run_is_whole(monkeypatch, capsys, tmp_path):
    def write_report(path):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(report, "write_report", write_report)
    with pytest.raises(Stopped):
        experiment._report(tmp_path)
    assert capsys.readouterr().out.rstrip().endswith(f"cnn-jax report {tmp_path}")


class SignalAfterLastEpoch(Display):
    """Sends a signal between training and the last evaluation."""

    def __init__(self, epochs):
        super().__init__(silent=True)
        self.left = epochs

    def epoch(self, epoch, evaluations, remark=""):
        if epoch == self.left:
            signal.raise_signal(signal.SIGHUP)


def test_a_signal_after_the_last_step_stops_before_the_last_evaluations(tmp_path):
    splits = {"test": make_dataset(30, seed=1, split="test"), "validation": make_dataset(20, seed=2)}
    images = make_dataset()

    def train(path, **options):
        folder = make_folder(path, resume=bool(options))
        try:
            recipe, execution = make_recipe(epochs=1), make_execution()
            return fit(recipe, images, execution=execution, folder=folder, **splits, **options)
        finally:
            folder.close()

    train(tmp_path / "whole")
    stopped = train(tmp_path / "stopped", display=SignalAfterLastEpoch(1))
    assert (stopped.interrupted, stopped.evaluations) == (signal.SIGHUP, {})
    resumed = train(tmp_path / "stopped", display=Display(silent=True))
    assert set(resumed.evaluations) == {"validation", "test", "best"}
    assert records(tmp_path / "stopped") == records(tmp_path / "whole")
    assert all("cross_entropy" not in record for record in records(tmp_path / "whole"))  # nothing was smoothed
