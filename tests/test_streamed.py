"""The streamed feed gives what the resident one gives, bit for bit, from wherever it begins, however many read."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.augment import Flip
from cnn_jax.data.ahead import Ahead
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.feed import Resident
from cnn_jax.data.streamed import Streamed
from cnn_jax.errors import InputError
from cnn_jax.runs import fit
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.execution import Execution
from cnn_jax.runs.rehearsal import rehearse
from tests import quick
from tests.drawers import Drawers
from tests.tiny import assert_same_bits, make_dataset, make_execution, make_folder, make_recipe

TRAIN, TEST = make_dataset(), make_dataset(23, seed=1, split="test")
STEPS = 40
ROOT = Path(__file__).parent.parent


def encoded(dataset: data.Dataset, **options) -> data.Dataset:
    return dataclasses.replace(dataset, images=Encoded(Drawers(np.asarray(dataset.images), **options)))


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    with quick.everywhere():
        yield


def spread(arrays, after=0):
    return arrays[0] if len(arrays) == 1 else np.stack(arrays)


def feeds(rows: np.ndarray, seeds: tuple[int, ...], batch_size: int, workers: int = 0):
    options = {"with_epochs": True, "spread": spread}
    resident = Resident(TRAIN, rows, seeds, batch_size, share=jax.device_put, **options)
    return resident, Streamed(encoded(TRAIN), rows, seeds, batch_size, steps=STEPS, workers=workers, **options)


def assert_same_batches(resident, streamed, seeds: int, step: int, count: int, length: int):
    chunks = [feed.chunk(step, count, length) for feed in (resident, streamed)]
    for seed in range(seeds):
        for k in range(count):
            taken = []
            for feed, (shared, own) in zip((resident, streamed), chunks, strict=True):
                mine = jax.tree.map(lambda leaf, seed=seed: leaf[seed], own) if seeds > 1 else own
                taken.append(feed.take((shared, mine), k))
                assert feed.length((shared, mine)) == length
            assert taken[0].keys() == taken[1].keys()
            for name, values in taken[0].items():
                np.testing.assert_array_equal(values, taken[1][name])
                assert values.dtype == taken[1][name].dtype


@settings(deadline=None, max_examples=5)
@given(
    st.integers(1, 3),
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, STEPS - 5), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=4),
)
def test_batches_are_those_of_the_resident_feed(count, batch_size, chunks):
    """From any step on, in any order, for one seed and several that hold out other images."""
    seeds = tuple(range(count))
    rows = np.stack([data.holdout_indices(TRAIN, 0.2, seed)[0] for seed in seeds])
    resident, streamed = feeds(rows, seeds, batch_size)
    for step, number, more in chunks:
        for following in (step, step + number):  # what follows is read ahead
            if following + number <= STEPS:
                assert_same_batches(resident, streamed, count, following, number, number + more)
    aside = streamed.aside(1, 3)
    np.testing.assert_array_equal(aside[1]["index"], resident.aside(1, 3)[1]["index"])
    streamed.close()


def test_processes_read_the_same():
    resident, streamed = feeds(np.arange(len(TRAIN))[None], (5,), 16, workers=2)
    for step in (20, 21, 22, 23):  # as after a restart
        assert_same_batches(resident, streamed, 1, step, 1, 1)
    streamed.close()


RECIPE, SEEDS = make_recipe(augment=(Flip(),), validation=0.2, epochs=2), (3, 4)


@functools.cache
def resident_run():
    return fit(RECIPE, TRAIN, seeds=SEEDS, test=TEST, execution=make_execution(feed="resident"))


@pytest.mark.parametrize("images", ["array", "encoded"])
def test_a_streamed_run_is_the_resident_one(tmp_path, images):
    """State, figures and the best checkpoint, with a share held out and augmentation."""
    resident = resident_run()
    splits = [encoded(split) if images == "encoded" else split for split in (TRAIN, TEST)]
    execution = make_execution(feed="auto" if images == "encoded" else "streamed")
    folder = make_folder(tmp_path / "run", seeds=SEEDS)
    streamed = fit(RECIPE, splits[0], seeds=SEEDS, test=splits[1], execution=execution, folder=folder)
    folder.close()
    written = [path.read_text() for path in (tmp_path / "run").rglob("metrics.jsonl")]
    assert len(written) == len(SEEDS)
    assert all("seconds_data" in text for text in written)  # how long the steps waited for images
    assert_same_bits(streamed.state, resident.state)
    for name in ("validation", "test"):
        for found, expected in zip(streamed.evaluations[name], resident.evaluations[name], strict=True):
            assert found.values() == expected.values()
            np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(streamed.train["loss"], resident.train["loss"])


def test_a_run_changes_its_feed_when_it_is_resumed(tmp_path):
    recipe = make_recipe(epochs=2)
    whole = fit(recipe, TRAIN, execution=make_execution(feed="resident"))
    half = Engine(recipe, TRAIN, (0,), Execution(feed="streamed"), None, None)
    state, _ = half.train_steps(half.init(), 0, 5)
    half.close()
    rest = Engine(recipe, encoded(TRAIN), (0,), Execution(feed="resident"), None, None)
    state, _ = rest.train_steps(state, 5, 3)
    again = Engine(recipe, encoded(TRAIN), (0,), Execution(), None, None)
    for step in range(8, rest.total, 2):
        state, _ = again.train_steps(state, step, min(2, rest.total - step))
    again.close()
    assert_same_bits(state, whole.state)


def test_a_large_batch_is_a_chunk_of_its_own(monkeypatch):
    monkeypatch.setattr("cnn_jax.data.streamed._CHUNK", 2 * 8 * 6 * 6)
    engine = Engine(make_recipe(), TRAIN, (0,), Execution(feed="streamed"), None, None)
    assert engine.per_call == 2
    assert rehearse(make_recipe(), TRAIN, TEST, (0,), Execution(feed="streamed"))


def test_few_calls_are_under_way(monkeypatch):
    """So that the images of no more are in memory; what is read while steps are being taken is not waited for."""
    ready, unneeded = [], []
    wait = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda metrics: ready.append(wait(metrics)))
    monkeypatch.setattr("cnn_jax.runs.engine._are_ready", lambda metrics: len(taken) % 2 == 0)
    engine, taken = Engine(make_recipe(), TRAIN, (0,), Execution(feed="streamed"), None, None), []
    state = engine.init()
    for step in range(6):
        reading = contextlib.nullcontext(lambda step=step: unneeded.append(step))
        state, metrics = engine.train_steps(state, step, 1, reading)
        taken.append(metrics)
    engine.close()
    assert [id(metrics) for metrics in ready] == [id(metrics) for metrics in taken[:4]]
    assert unneeded == [1, 3, 5]


def test_a_damaged_record_is_one_line():
    engine = Engine(make_recipe(), encoded(TRAIN, damaged=7), (0,), Execution(), None, None)
    with pytest.raises(InputError, match=r"^drawer 7: expected a picture, it is damaged$"):
        engine.train_steps(engine.init(), 0, 8)  # which is an epoch
    engine.close()


def test_a_killed_worker_is_one_line():
    items = Drawers(np.zeros((9, 1, 1, 1), np.uint8), deadly=4)
    stream = Ahead(items, 2, workers=1)
    with pytest.raises(InputError, match=r"^workers: a process that reads .*exit code -9.*fewer than the 1 .*$"):
        list(stream)
    stream.close()


def test_processes_end_with_the_one_that_they_read_for():
    code = (
        "import multiprocessing, sys, time; import numpy as np\n"
        "from cnn_jax.data.ahead import Ahead; from tests.drawers import Drawers\n"
        "stream = Ahead(Drawers(np.zeros((99, 1, 1, 1), np.uint8)), 2, workers=1); next(stream)\n"
        "print(multiprocessing.active_children()[0].pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < deadline, "the process that reads is still there"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that nobody has waited for yet has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_evaluation_reads_each_image_once(monkeypatch):
    read = []
    monkeypatch.setattr(Drawers, "__getitem__", lambda self, index: (read.append(index), self.images[index])[1])
    monkeypatch.setattr("cnn_jax.runs.engine.EVAL_BATCH", 10)
    engine = Engine(make_recipe(), TRAIN, (0, 1), Execution(feed="streamed"), None, encoded(TEST))
    engine.evaluate(engine.init(), "test")
    assert sorted(read) == list(range(len(TEST)))
    read.clear()
    batches = list(data.eval_batches(encoded(TEST), 10))
    assert sorted(read) == list(range(len(TEST)))
    for found, expected in zip(batches, data.eval_batches(TEST, 10), strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_encoded_images_look_like_an_array():
    images = encoded(TRAIN).images
    assert (images.shape, images.dtype, images.ndim, len(images)) == (TRAIN.images.shape, np.uint8, 4, len(TRAIN))
    assert images.nbytes == TRAIN.images.nbytes
    for key in (3, np.int64(-1), slice(2, 9, 3), [4, 1, 4], np.array([[0, 1], [2, 3]]), np.arange(61) % 2 == 0):
        np.testing.assert_array_equal(images[key], TRAIN.images[key])
    np.testing.assert_array_equal(images, TRAIN.images)
    rest, held_out = data.holdout(dataclasses.replace(TRAIN, images=images), 0.2, 1)
    assert isinstance(rest.images, Encoded)
    np.testing.assert_array_equal(held_out.images, data.holdout(TRAIN, 0.2, 1)[1].images)
    np.testing.assert_array_equal(images.fitted((8, 9)), data.fit_images(TRAIN.images, (8, 9)))
    assert images.fitted((6, 6)) is images


@pytest.mark.parametrize(("field", "value"), [("feed", "lazy"), ("workers", -1)])
def test_options_are_checked(field, value):
    with pytest.raises(InputError, match=f"^{field}: expected .*{value}"):
        Execution(**{field: value})
