"""Where prepared data lies, found by looking at folders alone: TensorFlow Datasets is not imported here.

A prepared data set is a folder `DATA_DIR/NAME[/CONFIG]/VERSION` with a `dataset_info.json` and a `features.json`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cnn_jax import terminal
from cnn_jax.errors import InputError
from cnn_jax.files import at_home, cache_root, expanded

_NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>[^:/\\]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
EMBEDDED = "digits"  # the data set that needs no download
INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A data set as asked for: `name`, `name/config`, `name:version` or `name/config:version`."""

    name: str
    config: str | None
    version: str | None

    @property
    def full_name(self) -> str:
        return f"{self.name}/{self.config}" if self.config else self.name


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set on disk, prepared by TFDS or in folders of a user's.

    Attributes:
      name: with the configuration, if any.
      version: TFDS version, or what else tells data sets of one name apart.
      path: the folder.
      splits: number of examples of every split; empty where they are only known once they are decoded.
      key: a hash of the metadata and of the files' path, names, sizes and times; changes when any of them does.
    """

    name: str
    version: str
    path: Path
    splits: dict[str, int]
    key: str


def parse_name(name: str) -> Request:
    """Parses the name of a data set; InputError if it is none."""
    match = _NAME.fullmatch(name)
    if not match or match["config"] in (".", ".."):
        raise InputError(f"data set: expected NAME, NAME/CONFIG or NAME:VERSION (such as mnist:3.0.1), got {name!r}")
    return Request(name=match["name"], config=match["config"], version=match["version"])


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """Where prepared data sets are kept: the argument, else TFDS_DATA_DIR, else TFDS's default in the home folder."""
    if data_dir:
        return expanded(data_dir, "data folder")
    if given := os.environ.get("TFDS_DATA_DIR"):
        return expanded(given, "TFDS_DATA_DIR")
    return at_home("tensorflow_datasets")


def embedded_root() -> Path:
    """The data folder inside the cache folder, for the digits of those who cannot write their data folder."""
    return cache_root() / "tfds"


def find_prepared(request: Request, root: Path) -> Prepared | None:
    """Returns the newest prepared version of a data set under `root`, or None.

    Without a configuration in the request, a data set that has some must have exactly one prepared.

    Raises:
      InputError: if several configurations are prepared, or the metadata cannot be read.
    """
    folder, full_name = root / request.full_name, request.full_name
    versions = _versions(folder)
    if not versions and not request.config:
        configs = [path.name for path in _folders(folder) if _versions(path)]
        if len(configs) > 1:
            choices = ", ".join(f"{request.name}/{config}" for config in configs)
            raise InputError(
                f"data set {request.name} has several configurations prepared in {root}; name one: {choices}"
            )
        if configs:
            folder, full_name = folder / configs[0], f"{full_name}/{configs[0]}"
            versions = _versions(folder)
    if request.version:
        versions = [version for version in versions if version == request.version]
    return describe(full_name, folder / versions[-1]) if versions else None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _versions(folder: Path) -> list[str]:
    names = [path.name for path in _folders(folder) if _VERSION.fullmatch(path.name) and (path / INFO_FILE).is_file()]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")])


def describe(name: str, path: Path) -> Prepared:
    """Reads what the prepared folder `path` says it holds; InputError if that cannot be read."""
    try:
        texts = [(path / file).read_bytes() for file in (INFO_FILE, FEATURES_FILE)]
        files = sorted((entry.name, entry.stat()) for entry in os.scandir(path) if entry.is_file())
        splits = {
            split["name"]: sum(int(length) for length in split.get("shardLengths", []))
            for split in json.loads(texts[0])["splits"]
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"data set {name}: the prepared copy in {path} cannot be read ({reason}); delete that folder, and it is "
            "prepared again"
        ) from error
    listing = [(file, status.st_size, status.st_mtime_ns) for file, status in files]
    key = hashlib.sha256(b"\0".join([*texts, repr((str(path.resolve()), listing)).encode()])).hexdigest()[:16]
    return Prepared(name=name, version=path.name, path=path, splits=splits, key=key)


def say(line: str) -> None:
    """Writes one line about slow or unusual work to stderr."""
    terminal.complain(f"cnn_jax: {terminal.one_line(line)}")


@functools.cache
def say_once(line: str) -> None:
    """As `say`, but a line said before is not said again."""
    say(line)
