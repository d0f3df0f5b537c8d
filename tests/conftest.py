"""Fixtures every test file shares: no test reads or writes the user's data or cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ORIGINAL_DATA_DIR = os.environ.get("TFDS_DATA_DIR")  # before the fixture below hides it


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """A cache and a data folder of the test session's own, also in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNN_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        yield


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """A cache and a data folder of this one test's own, both empty; returns (cache, data)."""
    folders = tmp_path / "cache", tmp_path / "tfds"
    for variable, folder in zip(("CNN_JAX_CACHE", "TFDS_DATA_DIR"), folders, strict=True):
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))
    return folders


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder with prepared MNIST: what TFDS_DATA_DIR named when the tests were started. Only to be read."""
    folder = Path(ORIGINAL_DATA_DIR or "~/tensorflow_datasets").expanduser()
    if not list(folder.glob("mnist/*/dataset_info.json")):
        reason = f"no prepared MNIST in {folder} (set TFDS_DATA_DIR)"
        if os.environ.get("CNN_JAX_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
