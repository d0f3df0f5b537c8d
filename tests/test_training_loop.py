"""The loop: it learns, resumes to the same bits, keeps the right checkpoints, and stops when it diverges."""

from __future__ import annotations

import dataclasses
import json
import signal
import struct

import flax.linen as nn
import jax
import numpy as np
import pytest

from cnn_jax import layers
from cnn_jax.errors import InputError
from cnn_jax.runs import CheckpointConfig, TrainingDivergedError, fit
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.display import Display, duration
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.folder import read_config
from cnn_jax.training import SGD, CrossEntropy, create_state
from tests.tiny import (
    TRACES,
    TinyNet,
    assert_close,
    assert_same_bits,
    make_dataset,
    make_execution,
    make_folder,
    make_recipe,
    records,
    steps_kept,
)

pytestmark = pytest.mark.usefixtures("shared_engines")
TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")
TOTAL = 31  # ceil(4 epochs * 61 images / 8 a batch)


class SignalAt(Display):
    """Sends this process a signal at the first report at or after a step."""

    def __init__(self, step: int, number: signal.Signals):
        super().__init__(silent=True)
        self.step, self.number = step, number

    def update(self, step, *values):
        if self.step <= step:
            self.step = 10**9
            signal.raise_signal(self.number)


def train(recipe=None, execution=None, **arguments):
    given = {"test": TEST} | arguments
    return fit(recipe or make_recipe(), TRAIN, execution=execution or make_execution(), **given)


def train_in(path, recipe=None, execution=None, resume=False, **arguments):
    folder = make_folder(path, resume=resume)
    try:
        return train(recipe, execution, folder=folder, **arguments)
    finally:
        folder.close()


def figures(result):
    """Of the only seed: means over the last epoch."""
    return {name: float(value) for name, (value,) in result.train.items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    return path, train_in(path)


def test_it_learns(undisturbed):
    _, result = undisturbed
    assert int(result.state.step) == TOTAL
    (found,) = result.evaluations["test"]
    assert found.accuracy > 0.95
    assert found.count == 30
    assert result.images_per_second > 0
    assert result.interrupted is None


def test_scores_are_in_the_order_of_the_data(undisturbed):
    _, result = undisturbed
    (found,) = result.evaluations["test"]
    assert found.scores.shape == (30, 3)
    assert np.mean(found.scores.argmax(-1) == TEST.labels) == found.accuracy


def test_without_a_folder_the_bits_are_the_same(undisturbed, shared_engines):
    _, result = undisturbed
    shared_engines.clear()  # nor does it matter which engine it was
    assert_same_bits(train().state, result.state)


def test_another_seed_gives_another_result(undisturbed):
    _, result = undisturbed
    other = train(seeds=1).state
    assert not np.array_equal(other.params["conv"]["kernel"], result.state.params["conv"]["kernel"])


@pytest.mark.parametrize(
    ("steps", "number"), [((1,), signal.SIGINT), ((8,), signal.SIGTERM), ((5, 11, 17), signal.SIGTERM)]
)
def test_interrupted_and_resumed_is_undisturbed(undisturbed, tmp_path, steps, number):
    path, expected = undisturbed
    for step in steps:
        stopped = train_in(tmp_path, resume=True, display=SignalAt(step, number))
        assert stopped.interrupted == number
        assert step <= int(stopped.state.step) < TOTAL
        assert steps_kept(tmp_path)[-1] == int(stopped.state.step)
        assert stopped.evaluations == {}
    result = train_in(tmp_path, resume=True)
    assert result.interrupted is None
    assert_same_bits(result.state, expected.state)
    assert figures(result) == figures(expected)
    assert records(tmp_path) == records(path)


@pytest.fixture(scope="module")
def by_fives(tmp_path_factory):
    """Five steps a call, which divide neither an epoch nor what is between two checkpoints."""
    path = tmp_path_factory.mktemp("by_fives")
    return path, train_in(path, execution=many(5))


def many(steps: int | None):
    checkpoint = CheckpointConfig(every_steps=7, every_seconds=None, keep=100)
    return make_execution(steps_per_call=steps, checkpoint=checkpoint)


def test_many_steps_a_call_are_the_steps_one_by_one(by_fives, tmp_path):
    (path, result), expected = by_fives, train_in(tmp_path, execution=many(1))
    # A loop may round otherwise than the same steps on their own.
    assert_close(result.state, expected.state)
    assert figures(result) == pytest.approx(figures(expected), rel=1e-5)
    assert result.values() == expected.values()
    assert steps_kept(path) == steps_kept(tmp_path) == [7, 14, 21, 28, TOTAL]
    for line, reference in zip(records(path), records(tmp_path), strict=True):
        assert (line.pop("split"), line.pop("step")) == (reference.pop("split"), reference.pop("step"))
        assert line == pytest.approx(reference, rel=1e-4)


@pytest.mark.parametrize("steps", [2, 1000, None])
def test_how_many_steps_a_call_takes_changes_no_bit(by_fives, steps):
    """Of two and more: it is one program, told how many to take."""
    result = train(execution=many(steps))
    assert_same_bits(result.state, by_fives[1].state)
    assert figures(result) == figures(by_fives[1])
    assert result.images_per_second > 0


def test_resumed_with_other_steps_a_call_is_undisturbed(by_fives, tmp_path):
    path, expected = by_fives
    for steps, at in ((2, 1), (1000, 9)):
        stopped = train_in(tmp_path, execution=many(steps), resume=True, display=SignalAt(at, signal.SIGTERM))
        assert stopped.interrupted == signal.SIGTERM
        assert int(stopped.state.step) < TOTAL
    result = train_in(tmp_path, execution=many(5), resume=True)
    assert_same_bits(result.state, expected.state)
    assert figures(result) == figures(expected)
    assert records(tmp_path) == records(path)


def test_handlers_are_put_back(undisturbed, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train_in(tmp_path, display=SignalAt(3, signal.SIGTERM))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_resuming_a_finished_run_changes_nothing(undisturbed, tmp_path):
    train_in(tmp_path)
    before = records(tmp_path), steps_kept(tmp_path)
    result = train_in(tmp_path, resume=True)
    assert_same_bits(result.state, undisturbed[1].state)
    assert result.values() == undisturbed[1].values()
    assert (records(tmp_path), steps_kept(tmp_path)) == before


def test_the_newest_few_are_kept(tmp_path):
    checkpoint = CheckpointConfig(every_steps=5, every_seconds=None, keep=2)
    train_in(tmp_path, execution=make_execution(checkpoint=checkpoint))
    assert steps_kept(tmp_path) == [30, TOTAL]


def test_zero_seconds_saves_each_step(tmp_path):
    checkpoint = CheckpointConfig(every_seconds=0.0, keep=100)
    train_in(tmp_path, make_recipe(epochs=1), make_execution(steps_per_call=1, checkpoint=checkpoint))
    assert steps_kept(tmp_path) == list(range(1, 9))


def test_a_damaged_checkpoint_costs_only_itself(undisturbed, tmp_path, capsys):
    train_in(tmp_path, display=SignalAt(17, signal.SIGTERM))
    newest = steps_kept(tmp_path)[-1]
    damaged = [file for file in (tmp_path / "checkpoints" / str(newest) / "state").rglob("*") if file.is_file()]
    for file in damaged:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    result = train_in(tmp_path, resume=True)
    assert f"checkpoint {newest} in" in capsys.readouterr().err
    assert_same_bits(result.state, undisturbed[1].state)
    assert records(tmp_path) == records(undisturbed[0])


def test_no_readable_checkpoint_is_said_in_a_line(tmp_path):
    train_in(tmp_path, display=SignalAt(17, signal.SIGTERM))
    for step in steps_kept(tmp_path):
        for file in (tmp_path / "checkpoints" / str(step) / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")
    with pytest.raises(InputError, match="expected a readable checkpoint, but none of the") as caught:
        train_in(tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_the_best_is_chosen_by_validation(tmp_path):
    """A validation split whose labels are shuffled prefers some middle epoch; the test split has no say."""
    draw = np.random.default_rng(5)
    noise = dataclasses.replace(make_dataset(40, seed=3), labels=draw.integers(0, 3, 40).astype(np.int32))
    result = train_in(tmp_path, make_recipe(epochs=8), validation=noise)
    measured = [r for r in records(tmp_path) if r["split"] == "validation"]
    assert len(measured) == 8
    best = max(measured, key=lambda r: (r["accuracy"], -r["loss"], -r["step"]))
    assert steps_kept(tmp_path, "best") == [best["step"]]
    assert set(result.evaluations) == {"validation", "test", "best"}
    assert [r["split"] for r in records(tmp_path)].count("test") == 1
    # What is kept as best measures on the validation split as it did then.
    checkpoints = Checkpoints(tmp_path, read_config(tmp_path)["run"], read_only=True)
    state, _ = checkpoints.restore(result.state, best=True)
    checkpoints.close()
    assert int(state.step) == best["step"]
    scores = TinyNet().apply(state.variables, (noise.images / np.float32(255) - 0.3) / 0.25)
    assert np.mean(scores.argmax(-1) == noise.labels) == best["accuracy"]


def test_the_first_metric_chooses_the_best_by_its_own_direction(tmp_path):
    """Of a metric that is better when lower the lowest; the labels being shuffled, it rises later on."""
    draw = np.random.default_rng(5)
    noise = dataclasses.replace(make_dataset(40, seed=3), labels=draw.integers(0, 3, 40).astype(np.int32))
    train_in(tmp_path, make_recipe(epochs=8, metrics=(CrossEntropy(),)), validation=noise)
    measured = [r for r in records(tmp_path) if r["split"] == "validation"]
    assert all({"loss", "cross_entropy", "accuracy"} <= record.keys() for record in measured)
    best = min(measured, key=lambda r: (r["cross_entropy"], r["step"]))
    assert best["step"] < measured[-1]["step"]
    assert steps_kept(tmp_path, "best") == [best["step"]]


def test_no_validation_no_best(undisturbed):
    path, _ = undisturbed
    assert steps_kept(path, "best") == []


@pytest.mark.parametrize("rate", [1e6, 1e30])
def test_divergence_stops_and_spares_the_good_checkpoints(tmp_path, rate):
    recipe = make_recipe(optimizer=SGD(rate, momentum=0.0), epochs=40)
    execution = make_execution(checkpoint=CheckpointConfig(every_steps=1, every_seconds=None, keep=1))
    with pytest.raises(TrainingDivergedError) as caught:
        train_in(tmp_path, recipe, execution)
    message = str(caught.value)
    kept = steps_kept(tmp_path)
    assert len(kept) <= 1
    assert f"last good checkpoint: {f'step {kept[0]}' if kept else 'none'};" in message
    assert " at step " in message
    assert "learning rate" in message
    assert "\n" not in message
    if kept:
        like = create_state(TinyNet(), recipe.optimizer(lambda count: 1.0), (6, 6, 1), 0)
        checkpoints = Checkpoints(tmp_path, read_config(tmp_path)["run"], read_only=True)
        state, _ = checkpoints.restore(like)
        checkpoints.close()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_nan_names_the_step_it_came_at(tmp_path):
    """Infinite statistics make the very first loss NaN."""
    broken = dataclasses.replace(TRAIN, statistics=dataclasses.replace(TRAIN.statistics, mean=(float("inf"),)))
    with pytest.raises(TrainingDivergedError, match=r"loss is nan at step 1 of 31; last good checkpoint: none"):
        fit(make_recipe(), broken)


def test_nan_in_the_middle_of_a_call_names_its_step():
    recipe = make_recipe(optimizer=SGD(1e30, momentum=0.0), epochs=40)
    messages = set()
    for steps in (1, None):  # as many as an epoch has
        with pytest.raises(TrainingDivergedError) as caught:
            train(recipe, make_execution(steps_per_call=steps))
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert 1 < int(messages.pop().split(" at step ")[1].split()[0]) < 7


@pytest.mark.parametrize("steps", [1, 5])
def test_each_step_is_compiled_once(steps, shared_engines):
    shared_engines.clear()
    TRACES.clear()
    train(execution=make_execution(steps_per_call=steps), validation=make_dataset(300, seed=2))
    # Initialisation, the train step and the evaluation step, though epochs and splits end in part batches.
    assert TRACES == [False, True, False]


def test_with_onednn_it_learns_the_same():
    plain, other = (train(execution=make_execution(onednn=onednn)) for onednn in (False, True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain.state.params, other.state.params
    )


def test_records_tell_the_epochs(undisturbed):
    path, result = undisturbed
    lines = records(path)
    ends = [int(np.ceil(epoch * 61 / 8)) for epoch in (1, 2, 3, 4)]
    for split in ("train", "test"):
        assert [line["step"] for line in lines if line["split"] == split] == ends
    assert [lines[-1]["accuracy"]] == result.values()
    assert [line["step"] for line in lines if line["split"] == "batch"] == [16]
    first = next(line for line in lines if line["split"] == "batch")
    assert {"loss", "accuracy", "grad_norm", "learning_rate"} <= first.keys()


def read_events(path):
    """(step, tag, value) of the scalars in TensorBoard event files: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(path.glob("events*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack("<Q", content[at : at + 8])
            event = Event.FromString(content[at + 12 : at + 12 + length])
            yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)
            at += length + 16


def test_events_are_the_records(undisturbed):
    path, _ = undisturbed
    events = {(step, tag): value for step, tag, value in read_events(path / "tensorboard")}
    wanted = {
        (line["step"], f"{line['split']}/{name}"): value
        for line in map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        for name, value in line.items()
        if name not in ("split", "step")
    }
    assert events.keys() == wanted.keys()
    assert all(events[key] == pytest.approx(value, rel=1e-6) for key, value in wanted.items())


class WideNet(nn.Module):
    """A convolution that is left to XLA, in both directions."""

    input_size = (9, 9)

    @nn.compact
    def __call__(self, images, train=False):
        x = layers.Conv(17, (3, 3))(layers.Conv(17, (3, 3))(images))
        return nn.Dense(3)(x.reshape(len(images), -1))


class StockNet(nn.Module):
    """A convolution of Flax, which is XLA's own, and so are its gradients."""

    input_size = (6, 6)

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(nn.Conv(4, (3, 3))(images).reshape(len(images), -1))


@pytest.mark.parametrize(
    ("model", "asked", "images", "expected"),
    [
        (TinyNet(), None, 61, 8),
        (TinyNet(), None, 5, 1),
        (TinyNet(), 3, 61, 3),
        (TinyNet(), 100, 61, 8),
        (WideNet(), None, 61, 8),
        (StockNet(), None, 61, 1),
        (StockNet(), 3, 61, 3),
    ],
)
def test_a_call_takes_what_is_asked_for_or_suits_the_program(model, asked, images, expected):
    """Batches of eight: never more than the longest epoch has; on CPU one where a loop would be slow."""
    recipe, execution = make_recipe(model=model), make_execution(steps_per_call=asked)
    engine = Engine(recipe, make_dataset(images), (0,), execution, None, None)
    _, metrics = jax.eval_shape(lambda: engine.train_steps(engine.init(), 0, 1))
    assert engine.per_call == expected
    assert metrics["loss"].shape == (expected,)


def test_a_torn_record_is_dropped(undisturbed, tmp_path):
    train_in(tmp_path, display=SignalAt(17, signal.SIGTERM))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "step": 30, "loss": 9.9}\n{"split": "tra')
    train_in(tmp_path, resume=True)
    assert records(tmp_path) == records(undisturbed[0])


def test_a_batch_larger_than_the_data(tmp_path):
    result = train_in(tmp_path, make_recipe(batch_size=100))
    assert int(result.state.step) == 3  # ceil(4 * 61 / 100)
    assert result.evaluations["test"][0].count == 30


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3599.6, "1:00:00"), (7325, "2:02:05")])
def test_durations(seconds, text):
    assert duration(seconds) == text
