"""The cache of decoded arrays: whatever happens to it, `load` gives the right data, and puts the cache right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import decode
from tests.small_sets import image_feature, label_feature, plain_records, random_images, write_set

pytest.importorskip("tensorflow_datasets")

IMAGES = random_images(50, 6, 7, 3, seed=5)
OTHERS = random_images(50, 6, 7, 3, seed=6)


@pytest.fixture
def entry(own_folders) -> Path:
    """The cache entry of a small data set's training split, beside that of its test split."""
    features = {"image": image_feature(6, 7, 3), "label": label_feature()}
    write_set(own_folders[1], features, {"train": plain_records(IMAGES), "test": plain_records(OTHERS)})
    data.load("small_set", "train")
    data.load("small_set", "test")
    (folder,) = own_folders[0].glob("decoded/small_set/1.2.3/train-*")
    return folder


def assert_right() -> None:
    for split, images in (("train", IMAGES), ("test", OTHERS)):
        got = data.load("small_set", split)
        np.testing.assert_array_equal(got.images, images)
        np.testing.assert_array_equal(got.labels, np.arange(50) % 10)
        np.testing.assert_allclose(got.statistics.mean, IMAGES.mean(axis=(0, 1, 2)) / 255)
        assert got.class_names == tuple("0123456789")


def assert_not_decoded(monkeypatch) -> None:
    def fail(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode_split", fail)
        assert_right()


def flip(path: Path, position: float, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(bytes(content))


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def save(path: Path, array) -> None:
    np.save(path, array, allow_pickle=True)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def foreign(folder: Path) -> None:
    (other,) = folder.parent.glob("test-*")
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    "images empty": lambda e: cut(e / "images.npy", 0),
    "images cut in the header": lambda e: cut(e / "images.npy", 50),
    "images cut": lambda e: cut(e / "images.npy", 3000),
    "images one byte short": lambda e: cut(e / "images.npy", -1),
    "images missing": lambda e: (e / "images.npy").unlink(),
    "images a folder": lambda e: replace_by_folder(e / "images.npy"),
    "images flipped early": lambda e: flip(e / "images.npy", 0.05),
    "images flipped late": lambda e: flip(e / "images.npy", 1.0, 7),
    "images header flipped": lambda e: flip(e / "images.npy", 0.0025, 3),
    "images of other shape": lambda e: save(e / "images.npy", IMAGES[:, :, :, 0]),
    "images fewer": lambda e: save(e / "images.npy", IMAGES[:-1]),
    "images in another order": lambda e: save(e / "images.npy", IMAGES[::-1]),
    "images of other type": lambda e: save(e / "images.npy", IMAGES.astype(np.float32)),
    "images are objects": lambda e: save(e / "images.npy", np.array([{}], object)),
    "images are zeros": lambda e: (e / "images.npy").write_bytes(bytes(6428)),
    "labels empty": lambda e: cut(e / "labels.npy", 0),
    "labels flipped": lambda e: flip(e / "labels.npy", 0.9),
    "labels missing": lambda e: (e / "labels.npy").unlink(),
    "labels of other type": lambda e: save(e / "labels.npy", np.arange(50) % 10),
    "entry empty": lambda e: cut(e / "entry.json", 0),
    "entry cut": lambda e: cut(e / "entry.json", 40),
    "entry garbage": lambda e: (e / "entry.json").write_bytes(b"\xff\xfe\x00garbage"),
    "entry a list": lambda e: (e / "entry.json").write_text("[1, 2]"),
    "entry null": lambda e: (e / "entry.json").write_text("null"),
    "entry without fields": lambda e: (e / "entry.json").write_text("{}"),
    "entry missing": lambda e: (e / "entry.json").unlink(),
    "entry of other statistics": lambda e: edit(
        e / "entry.json", statistics={"mean": [0.0], "std": [1.0], "ink": None}
    ),
    "entry of other classes": lambda e: edit(e / "entry.json", class_names=["cat"]),
    "entry of an older format": lambda e: edit(e / "entry.json", format=0),
    "entry flipped": lambda e: flip(e / "entry.json", 0.5),
    "of another split": foreign,
    "a file": replace_by_file,
    "empty": lambda e: [path.unlink() for path in e.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_repaired(damage, entry, monkeypatch, capfd):
    assert_not_decoded(monkeypatch)
    damage(entry)
    capfd.readouterr()
    assert_right()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") <= 1
    assert_not_decoded(monkeypatch)
    assert sorted(path.name.split("-")[0] for path in entry.parent.iterdir()) == ["test", "train"]


def test_mapped_arrays_outlive_a_rebuild(entry):
    before = data.load("small_set", "train").images
    flip(entry / "entry.json", 0.5)
    assert_right()
    np.testing.assert_array_equal(before, IMAGES)


def test_two_data_sets_of_one_name_never_mix(own_folders):
    features = {"image": image_feature(6, 7, 3), "label": label_feature()}
    roots = {own_folders[1] / "a": IMAGES, own_folders[1] / "b": OTHERS}
    for root, images in roots.items():
        write_set(root, features, {"train": plain_records(images)})
    fingerprints = set()
    for _ in range(2):
        for root, images in roots.items():
            got = data.load("small_set", "train", data_dir=root)
            np.testing.assert_array_equal(got.images, images)
            fingerprints.add(got.fingerprint)
    assert len(fingerprints) == 2


def test_prepared_again_in_the_same_place(own_folders):
    features = {"image": image_feature(6, 7, 3), "label": label_feature()}
    for images in (IMAGES, OTHERS):
        folder = write_set(own_folders[1], features, {"train": plain_records(images)})
        np.testing.assert_array_equal(data.load("small_set", "train").images, images)
        shutil.rmtree(folder)


def test_a_copy_has_the_same_fingerprint(own_folders):
    data.load("digits", "test")
    shutil.copytree(own_folders[1] / "digits", own_folders[1] / "copy" / "digits", copy_function=shutil.copyfile)
    copy = data.load("digits", "test", data_dir=own_folders[1] / "copy")
    assert copy.fingerprint == data.load("digits", "test").fingerprint


def test_processes_at_once(own_folders):
    """Two first starts at the same moment: each gets the digits, and one sound copy is left of everything."""
    script = """
import hashlib
from cnn_jax import data
train, test = data.load("digits", "train"), data.load("digits", "test")
print(hashlib.sha256(train.images.tobytes() + test.labels.tobytes()).hexdigest(), train.statistics)
"""
    command = [sys.executable, "-c", script]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert [path.name for path in own_folders[1].iterdir()] == ["digits"]
    entries = sorted(path.name.split("-")[0] for path in own_folders[0].glob("decoded/digits/1.0.0/*"))
    assert entries == ["test", "train"]


def test_where_the_cache_is(tmp_path, monkeypatch):
    from cnn_jax.data.folders import cache_root, data_root

    monkeypatch.delenv("CNN_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "cnn_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "cnn_jax"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_root(None) == Path.home() / "tensorflow_datasets"
    assert data_root(tmp_path) == tmp_path
