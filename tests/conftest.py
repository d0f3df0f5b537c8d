"""Fixtures every test file shares: no test reads or writes the user's data or cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sharing import session_folder

ORIGINAL_DATA_DIR = os.environ.get("TFDS_DATA_DIR")  # before the fixture below hides it


# What takes longest comes first, so that no worker is left with it at the end.
LONGEST = (
    "test_lowerings", "test_fuzz_cli", "test_hosts", "test_kill", "test_mesh", "test_replicas", "test_readme",
    "test_airbench",
    "test_published",
    "test_training_loop", "test_own_parts", "test_batch_statistics", "test_mnist", "test_layers", "test_recipe_parts",
    "test_seen", "test_detection_run", "test_cli", "test_switches", "test_sweep_folder", "test_averaged_runs",
    "test_models_modern", "test_pictures", "test_functional_conv", "test_report", "test_compilation",
    "test_benchmark_agreement", "test_precision", "test_optimised",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """A cache and a data folder of the session's own, for all its workers and the processes that tests start.

    What one of them has compiled, the others take from the cache.
    """
    from cnn_jax.runs.compilation import keep_compiled  # slow to import, and pytest's own process does without

    with pytest.MonkeyPatch.context() as patch:
        for variable, name in (("CNN_JAX_CACHE", "cache"), ("TFDS_DATA_DIR", "tfds")):
            folder = session_folder(tmp_path_factory) / name
            folder.mkdir(exist_ok=True)
            patch.setenv(variable, str(folder))
        keep_compiled()
        yield


# What compiles more than it computes, and asks nothing of how fast that is: it is compiled as in `tests.quick`.
COMPILING = (
    "meshes", "test_accumulation", "test_airbench", "test_augment_chains", "test_augment_mixing", "test_augment_pixels",
    "test_augment_sizes", "test_augment_transforms", "test_averaged_runs", "test_averaging", "test_batch_statistics",
    "test_benchmark_agreement", "test_benchmark_airbench", "test_benchmark_cifar", "test_checkpoint_damage",
    "test_checkpoint_digests", "test_command_train", "test_data_dir", "test_data_init", "test_detection_run",
    "test_detection_scenes", "test_export", "test_figures", "test_groups", "test_growing", "test_hosts",
    "test_imagenet", "test_kill",
    "test_layers", "test_layers_lecun", "test_lenets", "test_lowering_empty", "test_lowering_onednn", "test_lowerings",
    "test_models", "test_models_cifar", "test_models_modern", "test_normed_muon", "test_norms", "test_optimised",
    "test_own_parts", "test_patience", "test_precision", "test_published", "test_readme", "test_receptive_field",
    "test_recipe_parts", "test_rematerialization", "test_replicas", "test_replicas_folder", "test_report",
    "test_run_output", "test_seeds", "test_seen", "test_storage", "test_sweep", "test_sweep_folder", "test_switches",
    "test_training_folder", "test_training_gradients", "test_training_loop", "test_training_step",
    "test_training_train", "test_views", "test_warm_start",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly(request):
    if request.path.stem not in COMPILING:
        yield
        return
    from tests import quick

    with quick.everywhere():
        yield


@pytest.fixture(scope="module")
def shared_engines():
    """See `tests.engines.shared`."""
    from tests.engines import shared

    with shared() as engines:
        yield engines


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
