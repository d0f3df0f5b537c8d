"""The folder of a run: its configuration, its records, and the rules for starting into one that exists."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import jax

import cnn_jax
from cnn_jax.errors import InputError
from cnn_jax.runs.checkpoints import BEST, NEWEST, UNFINISHED
from cnn_jax.runs.clearing import check_folder, delete, plan
from cnn_jax.runs.code import CODE, Code
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.digests import is_sealed, seal
from cnn_jax.runs.storage import storing
from cnn_jax.runs.texts import completed

FORMAT = 2  # of the folder; runs of cnn_jax 0.1 had no number
CONFIG, RECORDS, EVENTS, LOCK, REPORT = "config.json", "metrics.jsonl", "tensorboard", ".lock", "report.html"
SWEEP = "sweep.json"  # in the folder of a sweep, whose runs are in folders within it
YARDSTICK = "yardstick.json"  # the course of another program that was trained beside the run, for its report
PROFILE = "profile"  # the folder of a trace
_TEXTS = (CONFIG, RECORDS, REPORT, YARDSTICK)
_OURS = {*_TEXTS, EVENTS, PROFILE, NEWEST, BEST, LOCK, CODE, *(name + ".tmp" for name in _TEXTS)}
IDENTITY = ("recipe", "data", "seeds", "code")  # what a run is: it decides every number
_PREFIX = {"recipe": "", "seeds": "seeds."}  # options are named as the command line has them


def environment() -> dict[str, Any]:
    """Versions, device and git commit: what else is needed to repeat a run besides its options."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets")
    device = current_device()
    return {
        "versions": {"cnn_jax": cnn_jax.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def _git_commit() -> str | None:
    """The commit of the source that is running, "-dirty" appended if it was changed; None outside a checkout."""
    git = ["git", "-C", str(Path(cnn_jax.__file__).parent)]
    try:
        # A wheel inside someone else's repository (its virtual environment, say) must not report that one's commit.
        tracked = ["ls-files", "--error-unmatch", Path(cnn_jax.__file__).name]
        subprocess.run(git + tracked, check=True, capture_output=True, timeout=5)
        commit = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            check=True, capture_output=True, text=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() or None


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a run.

    It has what the run is ("recipe", "data", "seeds", "code"), where its data come from ("source"), how it was begun
    ("experiment", "execution", `environment`) and the names of the files that its experiment adds ("files"); the
    "format" of the folder; "run", the identity that the run's checkpoints carry too; and "digest", of all the rest.

    Raises:
        InputError: the folder is not one of a run, or one of another format, or the file is damaged or was changed.
    """
    check_name(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        found = f"found no {CONFIG} in it" if folder.is_dir() else "there is no such folder"
        if (folder / SWEEP).is_file():
            found = f"it is that of a sweep; the run chosen is {folder / 'best'}"
        raise InputError(f"{folder}: expected the folder of a run, {found}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected the configuration of a run in JSON, cannot read it ({error})") from None
    if not isinstance(config, dict) or not (
        {"recipe", "format"} & config.keys() or {"config", "model"} <= config.keys()
    ):
        raise InputError(f"{path}: expected the configuration of a run, got something else")
    if config.get("format", 1) != FORMAT:
        raise InputError(_other_format(path, config))
    if not is_sealed(config):
        raise InputError(
            f"{path}: expected what the run wrote there, but it has been changed or damaged since (its digest does not "
            "match); put back what was there, or start a new run with other options"
        )
    return config


def _other_format(path: Path, config: Mapping[str, Any]) -> str:
    versions = config.get("versions")
    version = versions.get("cnn_jax") if isinstance(versions, dict) else None
    written = f"cnn_jax {version} wrote and reads" if isinstance(version, str) else "another version of cnn_jax reads"
    return (
        f"{path}: expected a run in format {FORMAT}, as cnn_jax {cnn_jax.__version__} writes them, got one in format "
        f"{config.get('format', 1)}, which {written}; use that version, or train it again"
    )


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The names, dotted, of what differs in two configurations, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [line for name in names for line in differences(old.get(name), new.get(name), f"{prefix}{name}.")]
    return [] if old == new else [f"{prefix[:-1]} (run {old!r}, now {new!r})"]


def seed_folder(seed: int) -> str:
    """The name of a seed's own folder within the folder of a run of several seeds."""
    return f"seed-{seed}"


def _configured(path: Path, key: str) -> list[Any]:
    """A list in the configuration, also in one that is being replaced; empty where there is none."""
    for name in (CONFIG, CONFIG + ".tmp"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return list(json.loads((path / name).read_text())[key])
    return []


def seed_folders(path: Path) -> set[str]:
    """The names of the existing seeds' folders, according to the configuration or one that is being replaced."""
    seeds = _configured(path, "seeds")
    if len(seeds) < 2:
        return set()
    found = ((entry.name, re.fullmatch("seed-([0-9]{1,10})", entry.name)) for entry in path.iterdir())
    return {name for name, match in found if match and int(match[1]) in seeds}


def _ours(path: Path) -> set[str]:
    """The names of what the run in `path`, or one that was replaced there, has or may have in its folder."""
    # Whatever a configuration says, nothing outside its folder is the run's.
    names = (name for name in _configured(path, "files") if isinstance(name, str) and name not in ("", ".."))
    return _OURS | seed_folders(path) | {name for name in names if Path(name).name == name}


def is_of_run(path: Path, inner: Path, own: str) -> bool:
    """Whether the run in `path`, or a seed of it, writes `inner`, a path in that folder, other than `own`."""
    parts = inner.parts
    if parts[0] in seed_folders(path):
        parts = parts[1:]
    return bool(parts) and parts[0] in _ours(path) and parts != (own,)


def _is_ours(name: str, entry: str) -> bool:
    """Whether an entry in the folder `name` of a run is one that a run leaves there."""
    if name == EVENTS:
        return entry.startswith("events.")
    if name == PROFILE:
        return entry == "plugins"
    if name == CODE:
        return entry.endswith(".py")
    return name in (NEWEST, BEST) and re.fullmatch(f"[0-9]+|{UNFINISHED}", entry) is not None


def check_name(folder: Path) -> None:
    """InputError if a folder's name is not valid UTF-8: checkpoints can be neither written to it nor read."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"{folder}: expected a folder whose whole path is valid UTF-8; choose another") from None


def check_free(path: Path, resume: bool, overwrite: bool) -> bool:
    """Whether `path` holds a run, after making sure that a run may be started or resumed there.

    Raises:
        InputError: the folder holds something else, or a run and neither `resume` nor `overwrite` is given; or its name
            is not valid UTF-8.
    """
    check_name(path)
    try:
        check_folder(path)
        found = {entry.name for entry in path.iterdir()} if path.exists() else set()
    except OSError as error:
        raise InputError(f"{path}: expected a folder for the run, got: {error.strerror}") from None
    strange = sorted(found - _ours(path))
    if CONFIG not in found and strange:
        raise InputError(f"{path}: expected a new or empty folder or a run, found {strange[0]!r} in it; choose another")
    if CONFIG in found and not (resume or overwrite):
        raise InputError(f"{path} holds a run: give --resume to continue it, --overwrite to replace it")
    return CONFIG in found


class RunFolder:
    """A run's folder, locked for this process, with its `config.json` written.

    Args:
        path: the folder; created if missing.
        contents: what `config.json` is to hold, see `read_config`, without "format", "run" and "digest".
        code: the user's files that parts of the run come from, by their paths as written in texts; they are copied.
        resume: continue the run that is there, if any.
        overwrite: replace the run that is there, if any.

    Attributes:
        path: the folder.
        run: the identity of the run, which its checkpoints carry.

    Raises:
        InputError: as `check_free`; or the run there has other options, is in use by another process, or the folder
            cannot be written or, to replace the run, not be emptied. What was there is left as it was.
    """

    def __init__(
        self,
        path: Path,
        contents: dict[str, Any],
        resume: bool = False,
        overwrite: bool = False,
        code: Mapping[str, Path] | None = None,
    ):
        self.path = path
        kept = Code(code or {})
        contents = {"format": FORMAT, **contents, "code": kept.described}
        try:
            with contextlib.ExitStack() as on_refusal:
                holds_run = check_free(path, resume, overwrite)
                path.mkdir(parents=True, exist_ok=True)
                self._lock = on_refusal.enter_context(self._acquire_lock())
                if holds_run and resume:
                    self._check_same(contents)
                else:
                    self._start(contents, kept)
                for name in (NEWEST, BEST, EVENTS, PROFILE, *seed_folders(path)):
                    check_folder(path / name)
                self.run: str = read_config(path)["run"]
                on_refusal.pop_all()
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{path}: expected a folder that can be written, got: {reason}") from None

    def _acquire_lock(self) -> TextIO:
        # The kernel frees the lock with the process, however it ends, so a crash leaves none behind.
        lock = (self.path / LOCK).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.path}: in use by another process; wait for it or choose another folder") from None
        return lock

    def _check_same(self, contents: dict[str, Any]) -> None:
        old = read_config(self.path)
        new = json.loads(json.dumps(contents))
        for written in old["code"]:
            if written in new["code"] and new["code"][written] != old["code"][written]:
                raise InputError(
                    f"{written}: has changed since the run {self.path} began, whose numbers it decides; put back the "
                    f"run's copy, {self.path / old['code'][written]['copy']}, or start a new run"
                )
        for contents in (old, new):
            contents["recipe"] = completed(contents["recipe"])
        changed = [line for key in IDENTITY for line in differences(old[key], new[key], _PREFIX.get(key, f"{key}."))]
        if changed:
            fields = ", ".join(dict.fromkeys(changed))
            raise InputError(
                f"{self.path}: to resume, the options must be those of the run, but they differ in {fields}; "
                "repeat the run's options, or start a new run"
            )

    def _start(self, contents: dict[str, Any], code: Code) -> None:
        # config.json is the first to go and the last to come: a folder without it is never taken for a run. In between
        # it has another name, since after a crash it tells which folders are the seeds'.
        config, aside = self.path / CONFIG, self.path / (CONFIG + ".tmp")
        doomed = plan(self.path, _ours(self.path) - {LOCK, aside.name}, _is_ours)
        if config.is_file():
            config.replace(aside)
        delete(doomed)
        code.copy_to(self.path / CODE)
        write_atomically(self.path / CONFIG, json.dumps(seal(contents | {"run": uuid.uuid4().hex}), indent=2) + "\n")

    def close(self) -> None:
        """Releases the lock."""
        self._lock.close()


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a crash leaves either the old one or the new one, complete.

    Raises:
        StorageError: it cannot be written; the old one is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    with storing(path):
        # UTF-8 whatever the locale; only file names that are not valid text have characters that it lacks.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
