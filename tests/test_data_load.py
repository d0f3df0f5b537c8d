"""`data.load`: the embedded digits, real MNIST, and what it accepts and refuses of other data sets."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import decode
from cnn_jax.errors import InputError
from tests.small_sets import encoded, image_feature, label_feature, plain_records, random_images, write_set

pytest.importorskip("tensorflow_datasets")

# Labels of the MNIST training set, counted in the original idx file.
MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def refused(*args, **options) -> str:
    with pytest.raises(InputError) as caught:
        data.load(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    original = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    expected = sorted((image.tobytes(), int(label)) for image, label in zip(original, bunch.target, strict=True))
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    got = [
        (i.tobytes(), int(label)) for part in (train, test) for i, label in zip(part.images, part.labels, strict=True)
    ]
    assert sorted(got) == expected
    for part in (train, test):
        assert part.images.shape[1:] == (8, 8, 1)
        assert (part.images.dtype, part.labels.dtype) == (np.uint8, np.int32)
        assert (part.name, part.version) == ("digits", "1.0.0")
        assert part.class_names == tuple("0123456789")
        assert not part.images.flags.writeable
        assert not part.labels.flags.writeable
    assert train.statistics == test.statistics
    assert train.fingerprint == test.fingerprint
    # Stratified: each class within one example of its share.
    share = np.bincount(bunch.target) * 360 / 1797
    assert np.abs(np.bincount(test.labels) - share).max() < 1


def test_digits_split_rule():
    """The documented rule, written out: per class the smallest SHA-256 of digits/i."""
    import hashlib

    from cnn_jax.data.digits import split_digits

    labels = np.repeat(np.arange(3), (10, 20, 30)).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnn_jax.data.digits.TEST_EXAMPLES", 12)
        split = split_digits(labels)
    hashes = [hashlib.sha256(b"digits/%d" % i).hexdigest() for i in range(60)]
    for label, count in enumerate((2, 4, 6)):
        members = [i for i in range(60) if labels[i] == label]
        chosen = [i for i in split["test"] if labels[i] == label]
        assert len(chosen) == count
        assert max(hashes[i] for i in chosen) < min(hashes[i] for i in set(members) - set(chosen))
    assert sorted(split["train"] + split["test"]) == list(range(60))


def test_digits_prepared_in_silence_and_elsewhere(own_folders, capfd):
    """A data folder that cannot be written is left alone, also by the superuser; the cache folder takes the digits."""
    own_folders[1].chmod(0o555)
    assert len(data.load("digits", "test")) == 360
    assert list(own_folders[1].iterdir()) == []
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("cnn_jax: preparing digits")
    data.load("digits", "train")
    assert capfd.readouterr() == ("", "")


def test_no_writable_cache_is_one_warning(own_folders, capfd):
    data.load("digits", "test")
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        locked = own_folders[0].parent / "locked"
        locked.mkdir()
        locked.chmod(0o555)
        patch.setenv("CNN_JAX_CACHE", str(locked))
        for split, count in (("test", 360), ("train", 1437)):
            assert len(data.load("digits", split)) == count
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert "cannot be written" in err
        assert list(locked.iterdir()) == []
        decoded = []
        decode_split = decode.decode_split
        patch.setattr(decode, "decode_split", lambda *args: decoded.append(args[2]) or decode_split(*args))
        for split in ("train", "test"):
            data.load("digits", split)
        assert decoded == ["train", "test"]  # and not the training split again for its statistics


def test_mnist(mnist_dir):
    train, test = (data.load("mnist", split, data_dir=mnist_dir) for split in ("train", "test"))
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    assert tuple(np.bincount(train.labels)) == MNIST_COUNTS
    assert len(test.labels) == 10000
    (mean,), (std,) = train.statistics.mean, train.statistics.std
    assert (round(mean, 4), round(std, 4)) == (0.1307, 0.3081)
    assert test.statistics == train.statistics
    # LeCun et al. 1998, III.A: digits were brought to 20x20 boxes in 28x28 fields.
    assert train.ink.extent == pytest.approx(20 / 28, abs=0.02)
    padded = data.fit_images(test.images, (32, 32))
    np.testing.assert_array_equal(padded[:, 2:30, 2:30], test.images)
    assert padded.sum(dtype=np.int64) == test.images.sum(dtype=np.int64)


def test_mnist_agrees_with_stock_tfds(mnist_dir):
    import tensorflow_datasets as tfds

    test = data.load("mnist", "test", data_dir=mnist_dir)
    source = tfds.builder("mnist", data_dir=mnist_dir).as_data_source(split="test")
    for index in (0, 1, 4095, 4096, 9999):
        np.testing.assert_array_equal(test.images[index], source[index]["image"])
        assert test.labels[index] == source[index]["label"]


def test_second_start_leaves_tfds_alone(own_folders):
    data.load("digits", "train")
    script = """
import sys
from cnn_jax import data
assert len(data.load("digits", "train", image_size=(32, 32))) == 1437
heavy = {"tensorflow_datasets", "sklearn", "jax", "tensorflow"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ, timeout=60)


@pytest.mark.parametrize("shape", [(5, 6, 1), (6, 5, 3), (4, 4, 4)])
def test_any_image_classification_set(shape, own_folders):
    images = random_images(9, *shape)
    write_set(
        own_folders[1],
        {"image": image_feature(*shape), "label": label_feature(4)},
        {"train": plain_records(images, 4), "validation": plain_records(images[:2], 4)},
        supervised_keys=("image", "label"),
    )
    for split, count in (("train", 9), ("validation", 2)):
        got = data.load("small_set", split)
        np.testing.assert_array_equal(got.images, images[:count])
        np.testing.assert_array_equal(got.labels, np.arange(count) % 4)
        np.testing.assert_allclose(got.statistics.mean, images.mean(axis=(0, 1, 2)) / 255)
    message = refused("small_set", "test")
    assert "train (9), validation (2)" in message
    assert "'test'" in message
    assert "small_set" in refused("small_set", "train[:50%]")
    # Images of one size keep it; what size a model takes is not the data's business.
    kept = data.load("small_set", "train", image_size=(12, 12))
    np.testing.assert_array_equal(kept.images, images)
    assert kept.statistics == data.load("small_set", "train").statistics


def test_features_found_without_supervised_keys(own_folders):
    import tensorflow_datasets as tfds

    images = random_images(3, 4, 4, 1)
    records = [{"picture": encoded(image), "kind": 2, "note": "x"} for image in images]
    features = {"note": tfds.features.Text(), "picture": image_feature(4, 4, 1), "kind": label_feature(3)}
    write_set(own_folders[1], features, {"train": records})
    got = data.load("small_set", "train")
    np.testing.assert_array_equal(got.images, images)
    assert set(got.labels) == {2}


def test_images_of_different_sizes(own_folders):
    sizes = [(5, 9), (16, 16), (40, 20), (15, 13)]
    images = [random_images(1, *size, 3, seed=index)[0] for index, size in enumerate(sizes)]
    records = [{"image": encoded(image), "label": 0} for image in images]
    write_set(own_folders[1], {"image": image_feature(None, None, 3), "label": label_feature(1)}, {"train": records})
    assert "image size" in refused("small_set", "train")
    for size in ((16, 16), (8, 24), (16, 16)):
        got = data.load("small_set", "train", image_size=size)
        expected = np.concatenate([data.fit_images(image[None], size) for image in images])
        np.testing.assert_array_equal(got.images, expected)
        np.testing.assert_allclose(got.statistics.mean, expected.mean(axis=(0, 1, 2)) / 255)


def test_pictures_of_other_kinds(own_folders):
    """Grey and palette pictures, and JPEG, among colour images."""
    from PIL import Image

    grey, colour = random_images(1, 8, 8, 1)[0], random_images(1, 8, 8, 3)[0]
    few = np.asarray(Image.fromarray(colour).quantize(16).convert("RGB"))
    palette = io.BytesIO()
    Image.fromarray(few).quantize(16).save(palette, "PNG")
    records = [
        {"image": encoded(grey), "label": 0},
        {"image": palette.getvalue(), "label": 0},
        {"image": encoded(colour, "JPEG"), "label": 0},
    ]
    write_set(own_folders[1], {"image": image_feature(8, 8, 3), "label": label_feature(1)}, {"train": records})
    got = data.load("small_set", "train").images
    np.testing.assert_array_equal(got[0], np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(got[1], few)
    np.testing.assert_array_equal(got[2], np.asarray(Image.open(io.BytesIO(records[2]["image"]))))


def test_sets_that_are_not_images_in_classes(own_folders):
    import tensorflow_datasets as tfds

    picture = encoded(random_images(1, 4, 4, 1)[0])
    cases = {
        "two": (
            {"a": image_feature(4, 4, 1), "b": image_feature(4, 4, 1), "label": label_feature()},
            "a: Image, b: Image",
        ),
        "none": ({"a": image_feature(4, 4, 1), "text": tfds.features.Text()}, "text: Text"),
        "wide": ({"a": image_feature(4, 4, 1, dtype=np.uint16), "label": label_feature()}, "uint16"),
    }
    values = {"a": picture, "b": picture, "label": 1, "text": "x"}
    for case, (features, expected) in cases.items():
        root = own_folders[1] / case
        write_set(root, features, {"train": [{key: values[key] for key in features}]})
        assert expected in refused("small_set", "train", data_dir=root)


def test_unlabelled_examples(own_folders):
    records = [{"image": encoded(random_images(1, 4, 4, 1)[0]), "label": -1}]
    write_set(own_folders[1], {"image": image_feature(4, 4, 1), "label": label_feature()}, {"train": records})
    assert "without a label" in refused("small_set", "train")


def test_broken_pictures(own_folders, capfd):
    whole = encoded(random_images(1, 8, 8, 3)[0])
    broken = {
        "garbage": b"no picture",
        "empty": b"",
        "cut": whole[:70],
        "cut jpeg": encoded(random_images(1, 64, 64, 3)[0], "JPEG")[:1000],
        "too large": encoded(random_images(1, 9, 8, 3)[0]),
        "one pixel": encoded(random_images(1, 1, 1, 3)[0]),  # which would fill the frame, if it were let
    }
    records = [{"image": content, "label": 0} for content in (whole, *broken.values())]
    write_set(own_folders[1], {"image": image_feature(8, 8, 3), "label": label_feature(1)}, {"train": records})
    np.testing.assert_array_equal(data.load("small_set", "train").images, decode._decode_image(whole, 3)[None])
    said = capfd.readouterr().err.splitlines()
    assert [line.split(": ")[:3] for line in said] == [
        ["cnn_jax", "small_set", f"record {k + 1} of train"] for k in range(len(broken))
    ]
    assert all(": expected a " in line and line.endswith("; passed over") for line in said)
    refusal = refused("small_set", "train", strict=True)
    assert "record 1 of train: expected a PNG" in refusal
    assert f"(and {len(broken) - 1} more of the records of train); delete " in refusal


def test_damaged_prepared_files(own_folders):
    images = random_images(400, 16, 16, 1)
    folder = write_set(
        own_folders[1], {"image": image_feature(16, 16, 1), "label": label_feature()}, {"train": plain_records(images)}
    )
    (shard,) = folder.glob("*array_record*")
    whole, info = shard.read_bytes(), (folder / "dataset_info.json").read_text()
    middle = len(whole) // 3
    torn = whole[:middle] + bytes(500) + whole[middle + 500 :]
    for damaged in (whole[:middle], b"", torn):
        shard.write_bytes(damaged)
        assert "small_set" in refused("small_set", "train", strict=damaged is torn)
    left = {image.tobytes() for image in data.load("small_set", "train").images}
    assert left < {image.tobytes() for image in images}
    assert len(left) > 390
    shard.write_bytes(whole)
    for text in ("", "{", "[]", '{"splits": 3}', info.replace("array_record", "tfrecord")):
        (folder / "dataset_info.json").write_text(text)
        assert "small_set" in refused("small_set", "train")
    (folder / "dataset_info.json").write_text(info)
    np.testing.assert_array_equal(data.load("small_set", "train").images, images)


def test_versions_and_configurations(own_folders):
    """The newest version, by number rather than by spelling; a configuration, when there is only one."""
    root = own_folders[1]
    features = {"image": image_feature(4, 4, 1), "label": label_feature()}
    folder = write_set(root, features, {"train": plain_records(random_images(2, 4, 4, 1))})
    for version in ("1.10.0", "1.9.0"):
        (folder.parent / version).mkdir()
        for file in folder.iterdir():
            text = file.read_bytes()
            if file.name == "dataset_info.json":
                text = json.dumps(json.loads(text) | {"version": version}).encode()
            (folder.parent / version / file.name).write_bytes(text)
    assert data.load("small_set", "train").version == "1.10.0"
    assert data.load("small_set:1.2.3", "train").version == "1.2.3"
    (root / "other").mkdir()
    os.rename(root / "small_set", root / "other" / "first")
    assert data.load("other", "train").name == "other/first"
    os.rename(root / "other" / "first" / "1.9.0", root / "moved")
    (root / "other" / "second").mkdir()
    os.rename(root / "moved", root / "other" / "second" / "1.9.0")
    assert "other/first, other/second" in refused("other", "train")
    assert data.load("other/second", "train").version == "1.9.0"


@pytest.mark.parametrize("size", [(0, 5), (-1, 4), (3,), (2, 2, 2), 8, ("a", "b"), (2.5, 3)])
def test_bad_image_sizes(size):
    assert "image size" in refused("digits", "test", image_size=size)
