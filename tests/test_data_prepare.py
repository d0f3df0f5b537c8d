"""Preparing stock TFDS data sets without TensorFlow: original file formats made small, read back by stock TFDS."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import prepare, standin
from tests.small_sets import assert_nothing_left, needs_no_tensorflow

tfds = pytest.importorskip("tensorflow_datasets")

COUNTS = {"train": 37, "test": 11}


def random_examples(shape, classes, seed):
    rng = np.random.default_rng(seed)
    return {
        split: (rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, classes, count, np.uint8))
        for split, count in COUNTS.items()
    }


def write_idx(folder: Path, examples) -> None:
    """The four files of MNIST: big-endian idx, gzipped (http://yann.lecun.com/exdb/mnist, "file formats")."""
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = examples[split]
        header = struct.pack(">IIII", 0x803, *images.shape[:3])
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        header = struct.pack(">II", 0x801, len(labels))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes()))


def write_cifar(archive: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def cifar_records(images, *label_columns) -> bytes:
    """One record an image: its labels, a byte each, then the red, the green and the blue plane, row by row."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([*(column[:, None] for column in label_columns), planes], axis=1).astype(np.uint8).tobytes()


@pytest.fixture
def found_on_disk(tmp_path, monkeypatch):
    """A folder; TFDS takes from it, by the last part of the URL, what it would download. The rest of its download
    manager (extracting, above all) is the real one; checksums are those of the full files, so they are not compared."""
    from tensorflow_datasets.core.download import download_manager
    from tensorflow_datasets.core.utils.lazy_imports_utils import promise

    folder = tmp_path / "originals"
    folder.mkdir()

    def find(self, resource):
        path = folder / resource.url.rsplit("/", 1)[1]
        assert path.exists(), resource.url
        return promise.Promise.resolve(type(self._download_dir)(path))

    monkeypatch.setattr(download_manager.DownloadManager, "_download", find)
    monkeypatch.setattr(prepare, "_have", lambda *_: True)
    return folder


def assert_read_back_by_stock_tfds(name, root, examples, extract=lambda example: (example["image"], example["label"])):
    builder = tfds.builder(name, data_dir=root)
    assert builder.info.full_name.startswith(name)
    for split, (images, labels) in examples.items():
        got = [extract(example) for example in builder.as_data_source(split=split)]
        assert len(got) == len(images)
        expected = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
        assert {image.tobytes(): int(label) for image, label in got} == expected
        assert all(image.shape == images.shape[1:] and image.dtype == np.uint8 for image, _ in got)


def assert_loaded(name, examples):
    for split, (images, labels) in examples.items():
        loaded = data.load(name, split)
        expected = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
        assert {
            image.tobytes(): int(label) for image, label in zip(loaded.images, loaded.labels, strict=True)
        } == expected


@needs_no_tensorflow
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_idx_files(name, own_folders, found_on_disk, monkeypatch, capfd):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", COUNTS["train"])
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", COUNTS["test"])
    examples = random_examples((28, 28, 1), 10, seed=len(name))
    write_idx(found_on_disk, examples)
    assert_loaded(name, examples)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"preparing {name} 3.0.1 in {own_folders[1]}" in err
    assert_read_back_by_stock_tfds(name, own_folders[1], examples)
    assert_nothing_left(own_folders[1], name, "downloads")
    if name == "fashion_mnist":
        assert data.load(name, "test").class_names[-1] == "Ankle boot"


@needs_no_tensorflow
def test_cifar10_archive(own_folders, found_on_disk):
    examples = random_examples((32, 32, 3), 10, seed=1)
    names = [f"kind {i}" for i in range(10)]
    (images, labels), (test_images, test_labels) = examples["train"], examples["test"]
    members = {
        "batches.meta.txt": "\n".join([*names, ""]).encode(),
        "test_batch.bin": cifar_records(test_images, test_labels),
    }
    for batch, chunk in enumerate(np.array_split(np.arange(len(images)), 5), 1):
        members[f"data_batch_{batch}.bin"] = cifar_records(images[chunk], labels[chunk])
    write_cifar(
        found_on_disk / "cifar-10-binary.tar.gz",
        {f"cifar-10-batches-bin/{name}": text for name, text in members.items()},
    )
    assert_loaded("cifar10", examples)
    assert data.load("cifar10", "test").class_names == tuple(names)
    assert_read_back_by_stock_tfds("cifar10", own_folders[1], examples)
    ids = {example["id"] for example in tfds.builder("cifar10", data_dir=own_folders[1]).as_data_source(split="test")}
    assert ids == {f"test_{i:05d}".encode() for i in range(COUNTS["test"])}


@needs_no_tensorflow
def test_cifar100_archive(own_folders, found_on_disk):
    examples = random_examples((32, 32, 3), 100, seed=2)
    members = {
        "coarse_label_names.txt": "\n".join(f"group {i}" for i in range(20)).encode(),
        "fine_label_names.txt": "\n".join(f"kind {i}" for i in range(100)).encode(),
    }
    for split, (images, labels) in examples.items():
        members[f"{split}.bin"] = cifar_records(images, labels // 5, labels)
    write_cifar(
        found_on_disk / "cifar-100-binary.tar.gz", {f"cifar-100-binary/{name}": text for name, text in members.items()}
    )
    assert_loaded("cifar100", examples)
    assert data.load("cifar100", "train").class_names[99] == "kind 99"
    assert_read_back_by_stock_tfds("cifar100", own_folders[1], examples)
    coarse = {split: (images, labels // 5) for split, (images, labels) in examples.items()}
    assert_read_back_by_stock_tfds(
        "cifar100", own_folders[1], coarse, lambda example: (example["image"], example["coarse_label"])
    )


def tensorflow_in_tfds():
    """What every loaded module of TFDS holds under the names it gives TensorFlow."""
    return {
        (name, attribute): id(vars(module)[attribute])
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "tensorflow_datasets"
        for attribute in ("tf", "tensorflow")
        if attribute in vars(module)
    }


@needs_no_tensorflow
def test_stand_in_is_gone_afterwards(own_folders, found_on_disk, monkeypatch):
    from tensorflow_datasets.core.utils import lazy_imports_utils
    from tensorflow_datasets.image_classification import mnist

    before, lazy = tensorflow_in_tfds(), lazy_imports_utils.tensorflow
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", COUNTS["train"])
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", COUNTS["test"])
    write_idx(found_on_disk, random_examples((28, 28, 1), 10, seed=3))
    data.load("mnist", "train")
    after = tensorflow_in_tfds()
    assert before.items() <= after.items()
    assert set(after.values()) == {id(lazy)}


@needs_no_tensorflow
def test_stand_in_reaches_late_and_foreign_modules_and_leaves_them(monkeypatch):
    from tensorflow_datasets.core.utils import lazy_imports_utils

    lazy = lazy_imports_utils.tensorflow
    foreign, late = types.ModuleType("foreign_builder"), types.ModuleType("tensorflow_datasets.late")
    foreign.tf = lazy
    monkeypatch.setitem(sys.modules, foreign.__name__, foreign)

    def fail():
        with standin.without_tensorflow(foreign.__name__):
            assert foreign.tf is lazy_imports_utils.tensorflow
            assert foreign.tf is not lazy
            late.tf = lazy_imports_utils.tensorflow  # as a module loaded meanwhile does
            monkeypatch.setitem(sys.modules, late.__name__, late)
            raise RuntimeError("anything")

    with pytest.raises(RuntimeError, match="anything"):
        fail()
    assert foreign.tf is lazy
    assert late.tf is lazy
    assert set(tensorflow_in_tfds().values()) == {id(lazy)}


@needs_no_tensorflow
def test_images_encoded_by_the_stand_in(tmp_path):
    from PIL import Image

    tf = standin._tensorflow()
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        image = rng.integers(0, 256, (9, 7, channels), np.uint8)
        decoded = np.asarray(Image.open(io.BytesIO(tf.image.encode_png(image).numpy()))).reshape(image.shape)
        np.testing.assert_array_equal(decoded, image)
    smooth = np.broadcast_to(np.arange(0, 256, 8, np.uint8)[:, None, None], (32, 32, 3))
    decoded = np.asarray(Image.open(io.BytesIO(tf.image.encode_jpeg(np.ascontiguousarray(smooth)).numpy())))
    assert np.abs(decoded.astype(int) - smooth).max() <= 3
    with pytest.raises(standin.MissingTensorFlowError, match="uint16"):
        tf.image.encode_png(np.zeros((2, 2, 1), np.uint16))
    with tf.io.gfile.GFile(os.fspath(tmp_path / "a"), "w") as file:
        file.write("ö")
    tf.io.gfile.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == "ö".encode()
    with pytest.raises(OSError, match="there already"):
        tf.io.gfile.copy(tmp_path / "a", tmp_path / "b")
