"""A disk that takes no more: one line that names the last good checkpoint, and the same command goes on later."""

from __future__ import annotations

import contextlib
import errno
import os
import resource

import pytest

from cnn_jax import command
from cnn_jax.errors import StorageError
from cnn_jax.runs import CheckpointConfig, Place, checkpoints, fit
from cnn_jax.runs.digests import make_record
from cnn_jax.runs.display import Display
from cnn_jax.runs.folder import write_atomically
from cnn_jax.runs.records import Records
from cnn_jax.runs.storage import storing
from tests.tiny import assert_same_bits, make_dataset, make_execution, make_folder, make_recipe, records, steps_kept

TRAIN, TEST = make_dataset(), make_dataset(30, seed=1, split="test")
EXECUTION = make_execution(steps_per_call=1, checkpoint=CheckpointConfig(every_steps=5, every_seconds=None))


@contextlib.contextmanager
def small_files(size):
    """While entered, no file grows beyond `size` bytes: writing more fails as on a full disk, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NEXT = "training goes on, and the next is tried"


class At(Display):
    """Calls a function at the first report at or after a step."""

    def __init__(self, step, call):
        super().__init__(silent=True)
        self.step, self.call = step, call

    def update(self, step, *values):
        if self.step <= step:
            self.step = 10**9
            self.call()


def train_in(path, **arguments):
    with contextlib.closing(make_folder(path, resume=True)) as folder:
        return fit(make_recipe(), TRAIN, test=TEST, execution=EXECUTION, folder=folder, **arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed")
    return path, train_in(path)


def test_a_checkpoint_that_does_not_fit(undisturbed, tmp_path, capfd):
    path = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        full = At(12, lambda: stack.enter_context(small_files(4500)))  # enough for records
        with pytest.raises(StorageError) as caught:
            train_in(path, display=full)
    assert "\n" not in str(caught.value)
    assert "checkpoints: a checkpoint cannot be written (File too large)" in str(caught.value)
    assert f"last good checkpoint: step {steps_kept(path)[-1]}; " in str(caught.value)
    told = f"{path}/checkpoints: a checkpoint cannot be written (File too large); {NEXT}\n"
    assert capfd.readouterr().err == told  # of the first; with the second, the run ended
    result = train_in(path)
    assert_same_bits(result.state, undisturbed[1].state)
    assert records(path) == records(undisturbed[0])


class Full:
    """In place of `make_record`, a part of every checkpoint: fails for some steps, as on a full disk."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, *arguments, step, **keywords):
        if step in self.steps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make_record(*arguments, step=step, **keywords)


def test_after_a_checkpoint_that_fails_the_next_is_tried(undisturbed, tmp_path, capfd, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setattr(checkpoints, "make_record", Full({15, 25}))
    result = train_in(path)
    told = f"{path}/checkpoints: a checkpoint cannot be written (No space left on device); {NEXT}\n"
    assert capfd.readouterr().err == 2 * told
    assert_same_bits(result.state, undisturbed[1].state)
    assert steps_kept(path)[-3:] == [20, 30, 31]
    assert not {15, 25} & set(steps_kept(path))


def test_two_that_fail_end_the_run(tmp_path, capfd, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setattr(checkpoints, "make_record", Full({15, 20}))
    with pytest.raises(StorageError, match=r"checkpoints: a .* \(No space left .*\); last good checkpoint: step 10; "):
        train_in(path)
    assert capfd.readouterr().err.count(NEXT) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_record_that_cannot_be_written(tmp_path, number, monkeypatch):
    """Neither does it hang, as tensorboardX's own thread would, nor is it said twice."""
    from tensorboardX.record_writer import RecordWriter

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    found = Records(tmp_path, 0)
    found.write("train", 1, {"loss": 1.0})
    monkeypatch.setattr(RecordWriter, "write", refuse)
    for step in range(2, 40):
        with pytest.raises(StorageError, match=rf"its records cannot be written \({os.strerror(number)}\)"):
            found.write("train", step, {"loss": 1.0})
    found.close()
    assert records(tmp_path)[0] == {"split": "train", "step": 1, "loss": 1.0}


def test_a_text_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with small_files(100), pytest.raises(StorageError, match=r"file: cannot be written \(File too large\)"):
        write_atomically(tmp_path / "file", "new" * 1000)
    assert (tmp_path / "file").read_text() == "old"


def test_the_exit_code_is_not_that_of_a_bug_or_of_bad_input(tmp_path, monkeypatch, capsys):
    def run(options):
        with storing(tmp_path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(SystemExit) as stop:
        command.main(run, Place)
    assert stop.value.code == os.EX_IOERR
    assert capsys.readouterr().err == f"error: {tmp_path}: cannot be written (Read-only file system)\n"


def test_a_bug_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(ValueError, match=r"^bug$") as caught, storing(tmp_path):
        raise ValueError("bug")
    assert not isinstance(caught.value, StorageError)
