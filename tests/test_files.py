"""Files written for a user are there whole or as they were, whatever stood in their place; nothing is left behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cnn_jax import files
from cnn_jax.errors import InputError
from cnn_jax.files import home, scratch

ROOT = Path(__file__).parent.parent
LONG_AGO = 1_000_000_000


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_new_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "theirs").touch()
    files.write_file(tmp_path / "ours", "grün")
    assert (tmp_path / "ours").read_bytes() == "grün".encode()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode
    assert names(tmp_path) == {"ours", "theirs"}


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_is_replaced_and_keeps_its_mode(tmp_path, mode):
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(mode)
    with target.open() as reader:
        files.write_file(target, b"new")
        assert reader.read() == "old"  # another file, not the same one cut off
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert names(tmp_path) == {"a"}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_the_old_file_stays_where_the_new_one_does_not_fit(tmp_path, monkeypatch, failing):
    (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, failing, full_disk)
    for name in "ab":
        with pytest.raises(InputError, match="expected a file that can be written, got: No space left on device"):
            files.write_file(tmp_path / name, "new")
    assert names(tmp_path) == {"a"}
    assert (tmp_path / "a").read_text() == "old"


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    for link, target in (("one", "two"), ("two", "there/old"), ("dangling", "there/new")):
        (tmp_path / link).symlink_to(target)
    for link in ("one", "dangling"):
        files.write_file(tmp_path / link, "new")
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / link).read_text() == "new"
    assert names(tmp_path / "there") == {"old", "new"}


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    files.write_file(pipe, "x" * 200_000)  # more than a pipe holds
    reader.join(timeout=30)
    assert found == [b"x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert files.is_stream(pipe)


def test_a_device_is_written_to_and_stays(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        files.write_file(path, "x")
        assert files.is_stream(path)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert names(tmp_path) == {"link"}
    if os.path.exists("/dev/full"):
        with pytest.raises(InputError, match="No space left"):
            files.write_file(Path("/dev/full"), "x")


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "{}/link"])
def test_standard_output_is_written_to_in_order(tmp_path, place, kind):
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = "import sys; from pathlib import Path; from cnn_jax.files import write_file\n"
    code += f"print('before'); write_file(Path({place.format(tmp_path)!r}), 'page\\n'); print('after')"
    with (tmp_path / "out").open("w+") as out:
        stdout = out if kind == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", code], stdout=stdout, cwd=ROOT, timeout=60, check=True)
    assert (done.stdout.decode() if kind == "pipe" else (tmp_path / "out").read_text()) == "before\npage\nafter\n"


def test_what_is_no_file_is_refused_and_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "sealed").write_text("old")
    (tmp_path / "sealed").chmod(0o444)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        before = names(tmp_path)
        for name, reason in (
            ("folder", "it is a folder"), ("socket", "it is a socket"), ("round", "symbolic links"),
            ("sealed", "Permission denied"), ("none/a", "No such file"), ("sealed/a", "Not a directory"),
            ("x" * 300, "too long"), ("/dev/fd/999", "Bad file descriptor"),
        ):  # fmt: skip
            with pytest.raises(InputError, match=reason) as caught:
                files.write_file(Path(name), "new")
            assert "\n" not in str(caught.value)
            assert not files.is_stream(Path(name)) or name.startswith(("folder", "socket", "/dev"))
        assert names(tmp_path) == before
    assert (tmp_path / "sealed").read_text() == "old"


def test_what_killed_processes_left_goes_and_what_others_make_stays(tmp_path):
    code = "import os, sys, signal; from pathlib import Path; from cnn_jax import files\n"
    code += "with files.temporary_folder(Path('.'), '.making-') as made:\n    (made / 'half').write_text('x')\n"
    code += "    print(made, flush=True)\n    if sys.argv[1] == 'die': os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "    input()"

    def start(how):
        return subprocess.Popen(
            [sys.executable, "-c", code, how], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    dead, alive = start("die"), start("wait")
    left, used = (Path(one.stdout.readline().strip()).name for one in (dead, alive))
    dead.communicate(timeout=60)
    fresh = tmp_path / ".making-fresh"  # made this very moment, and not locked yet
    old = tmp_path / ".making-old"  # left by an earlier version, without a lock
    for folder in (fresh, old):
        folder.mkdir()
    for path in (left, used):
        os.utime(tmp_path / path / scratch._LOCK, (LONG_AGO, LONG_AGO))
    os.utime(old, (LONG_AGO, LONG_AGO))
    with files.temporary_folder(tmp_path, ".making-") as own:
        assert names(tmp_path) == {used, ".making-fresh", own.name}
        assert own.is_dir()
    assert names(tmp_path) == {used, ".making-fresh"}
    alive.communicate("\n", timeout=60)
    assert names(tmp_path) == {".making-fresh"}
    assert (dead.returncode, alive.returncode) == (-9, 0)


@pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called")  # the child writes a file and ends, and no more
def test_a_file_that_a_killed_writer_left_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: os._exit(9))
    if (child := os.fork()) == 0:
        files.write_file(tmp_path / "a", "half")
    os.waitpid(child, 0)
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    os.utime(left, (LONG_AGO, LONG_AGO))
    files.write_file(tmp_path / "a", "whole")
    assert names(tmp_path) == {"a"}


@pytest.fixture
def nowhere(tmp_path, monkeypatch, capsys):
    """A user of containers: no home folder, no passwd entry, nothing named."""
    import tempfile

    for name in ("HOME", "CNN_JAX_CACHE", "TFDS_DATA_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home._temporary_home.cache_clear()
    yield tmp_path / f"cnn_jax-{os.getuid()}"
    home._temporary_home.cache_clear()


def test_without_a_home_folder_there_is_one_of_the_users_own(nowhere, monkeypatch, capsys):
    from cnn_jax.data.folders import data_root

    with pytest.raises(RuntimeError):
        Path.home()
    assert files.cache_root() == nowhere / ".cache" / "cnn_jax"
    assert data_root(None) == nowhere / "tensorflow_datasets"
    assert stat.S_IMODE(nowhere.stat().st_mode) == 0o700
    assert capsys.readouterr().err.count("no home folder that can be written") == 1
    monkeypatch.setenv("HOME", "")  # so that what is set below is put back
    monkeypatch.delenv("HOME")
    files.provide_home()
    assert os.environ["HOME"] == str(nowhere)
    monkeypatch.setenv("TFDS_DATA_DIR", "~nobody-here/x")
    with pytest.raises(InputError, match="TFDS_DATA_DIR: expected a folder, got ~nobody-here/x, but there is no"):
        data_root(None)


@pytest.mark.parametrize("trap", ["link", "others may write", "file"])
def test_no_folder_that_others_can_write_is_taken_for_a_home(nowhere, trap):
    if trap == "link":
        (nowhere.parent / "theirs").mkdir()
        nowhere.symlink_to("theirs")
    elif trap == "file":
        nowhere.touch()
    else:
        nowhere.mkdir()
        nowhere.chmod(0o777)
    place = files.at_home("x").parent
    assert place != nowhere
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_home_folder_that_cannot_be_written(nowhere, monkeypatch):
    sealed = nowhere.parent / "home"
    (sealed / ".cache" / "cnn_jax").mkdir(parents=True)
    sealed.chmod(0o555)
    monkeypatch.setenv("HOME", str(sealed))
    assert files.cache_root() == sealed / ".cache" / "cnn_jax"  # what is there can be read
    assert files.at_home("tensorflow_datasets") == nowhere / "tensorflow_datasets"
    files.provide_home()
    assert os.environ["HOME"] == str(sealed)
    assert os.environ["MPLCONFIGDIR"] == str(files.cache_root() / "matplotlib")
    monkeypatch.delenv("MPLCONFIGDIR")
    sealed.chmod(0o755)
    files.provide_home()
    assert "MPLCONFIGDIR" not in os.environ


def test_new_folders_of_one_name(tmp_path):
    made = [files.new_folder(tmp_path / "runs" / "a") for _ in range(3)]
    assert [path.name for path in made] == ["a", "a-2", "a-3"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder that can be made, got: File exists"):
        files.new_folder(tmp_path / "file" / "a")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(files.new_folder(tmp_path / "b"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
