"""Data sources: folders of pictures and files of arrays give what is in them, and a split stays where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from cnn_jax import data, parts
from cnn_jax.data import folder as folder_module
from cnn_jax.data import folders, pile
from cnn_jax.errors import InputError

SIZE = (8, 8)


@pytest.fixture(autouse=True)
def _afresh(own_folders, tmp_path, monkeypatch):
    """Nothing was said or read before, and the current folder is the test's own."""
    folders.say_once.cache_clear()
    folder_module._LAST.clear()
    monkeypatch.chdir(tmp_path)


def draw(path, pixels, **options):
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1:] == (1,) else pixels).save(path, **options)


def noise(seed, height=6, width=7, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def draw_classes(root, count=3, names=("cat", "dog"), seed=0, **options):
    """Different pictures for each class; returns them by file."""
    drawn = {}
    for label, name in enumerate(names):
        for index in range(count):
            path = f"{root}/{name}/{index}.png"
            drawn[path] = noise([seed, label, index], **options)
            draw(path, drawn[path])
    return drawn


def both(source, size=SIZE):
    return source("train", size), source("test", size)


def as_set(dataset):
    return {
        (image.tobytes(), dataset.class_names[label])
        for image, label in zip(dataset.images, dataset.labels, strict=True)
    }


def lines(capsys):
    return capsys.readouterr().err.splitlines()


# Folders of pictures.


def test_train_and_test_folders(capsys):
    train = draw_classes("photos/train", names=("cat", "dog", "eel"))
    test = draw_classes("photos/test", names=("cat", "eel"), seed=1)
    got, held_out = both(data.Folder("photos"))
    np.testing.assert_array_equal(got.images, np.stack(list(train.values())))
    np.testing.assert_array_equal(got.labels, np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(held_out.images, np.stack(list(test.values())))
    np.testing.assert_array_equal(held_out.labels, np.repeat([0, 2], 3))
    for dataset, split in ((got, "train"), (held_out, "test")):
        assert (dataset.name, dataset.split, dataset.class_names) == ("photos", split, ("cat", "dog", "eel"))
        assert dataset.images.dtype == np.uint8
        assert dataset.labels.dtype == np.int32
        assert not dataset.images.flags.writeable
        assert not dataset.labels.flags.writeable
        assert (dataset.fingerprint, dataset.version) == (got.fingerprint, got.fingerprint[:8])
        scaled = np.stack(list(train.values())) / 255
        np.testing.assert_allclose(dataset.statistics.mean, scaled.mean((0, 1, 2)))
        np.testing.assert_allclose(dataset.statistics.std, scaled.std((0, 1, 2)))
    assert lines(capsys) == []


def test_a_validation_split_is_tested_on_where_there_is_no_other(capsys):
    draw_classes("photos/train")
    val = draw_classes("photos/val", seed=1)
    _, test = both(data.Folder("photos"))
    np.testing.assert_array_equal(test.images, np.stack(list(val.values())))
    assert test.split == "test"
    assert data.Folder("photos").validation(SIZE) is None
    assert lines(capsys) == ["cnn_jax: photos has no test split; its split val is used instead"]
    test = draw_classes("photos/test", seed=2)
    source = data.Folder("photos")
    np.testing.assert_array_equal(source("test", SIZE).images, np.stack(list(test.values())))
    for found in (source("val", SIZE), source.validation(SIZE)):
        np.testing.assert_array_equal(found.images, np.stack(list(val.values())))
    assert lines(capsys) == []


@pytest.mark.parametrize("root", ["photos", "photos/train"])
def test_a_split_by_content_has_every_picture_once(root):
    drawn = draw_classes(root, 100)
    train, test = both(data.Folder("photos", test_share=0.25))
    assert as_set(train) | as_set(test) == {
        (pixels.tobytes(), Path(path).parent.name) for path, pixels in drawn.items()
    }
    assert len(train) + len(test) == 200
    assert abs(len(test) - 50) < 4 * np.sqrt(200 * 0.25 * 0.75)  # four standard deviations of a binomial
    fewer = data.Folder("photos", test_share=0.1)("test", SIZE)
    assert as_set(fewer) < as_set(test)


def test_no_picture_moves_when_others_are_added_and_files_renamed():
    draw_classes("photos", 20)
    train, test = map(as_set, both(data.Folder("photos")))
    draw_classes("photos/cat", names=("more",), seed=1)
    for index, path in enumerate(sorted(Path("photos/dog").iterdir())):
        path.rename(path.with_name(f"{100 - index}.jpeg"))
    new_train, new_test = map(as_set, both(data.Folder("photos")))
    assert train < new_train
    assert test <= new_test


def test_the_order_is_by_name_whatever_came_first():
    drawn = draw_classes("one", 10)
    for path in reversed(drawn):
        draw(path.replace("one", "two"), drawn[path])
    one, two = (data.Folder(name)("train", SIZE) for name in ("one", "two"))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.fingerprint == two.fingerprint
    draw("two/cat/new.png", noise(5))
    assert data.Folder("two")("train", SIZE).fingerprint != one.fingerprint


def test_pictures_that_differ_in_size_are_fitted():
    drawn = draw_classes("photos/train", 2) | draw_classes("photos/train", 2, names=("eel",), height=9, width=30)
    draw_classes("photos/test", 1, height=20, seed=1)
    train, test = both(data.Folder("photos"))
    expected = [data.fit_images(drawn[path][None], SIZE)[0] for path in sorted(drawn)]
    np.testing.assert_array_equal(train.images, expected)
    assert test.images.shape[1:] == (*SIZE, 3)
    assert data.Folder("photos")("train", (5, 4)).images.shape[1:] == (5, 4, 3)


def test_margins_make_no_drawings_of_pictures():
    from PIL import Image

    for folder, side in (("train/a", 20), ("train/a", 9), ("train/b", 12), ("test/a", 12)):
        (Path("photos") / folder).mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, 30), 255).save(f"photos/{folder}/{side}.png")
    assert data.Folder("photos")("train", SIZE).ink is None


def test_one_size_stays_up_to_a_limit():
    drawn = draw_classes("photos/train", 1, height=12, width=9)
    draw_classes("photos/test", 1, height=40, seed=1)
    train, test = both(data.Folder("photos"))
    np.testing.assert_array_equal(train.images, np.stack(list(drawn.values())))
    assert test.images.shape[1:] == (12, 9, 3)  # as the training images
    drawn = draw_classes("large", 1, height=257, width=256)
    got = data.Folder("large", test_share=1e-9)
    with pytest.raises(InputError, match="test split, found none"):
        got("train", SIZE)
    draw_classes("large/test", 1)
    for path in list(drawn):
        Path(path.replace("large", "large/train")).parent.mkdir(parents=True, exist_ok=True)
        Path(path).rename(path.replace("large", "large/train"))
    expected = data.fit_images(np.stack(list(drawn.values())), SIZE)
    np.testing.assert_array_equal(data.Folder("large")("train", SIZE).images, expected)


def test_the_pictures_decide_on_the_channels():
    grey = noise(1, channels=1)
    draw("photos/train/cat/1.png", grey)
    draw("photos/train/dog/1.png", np.repeat(noise(2, channels=1), 3, axis=-1))  # RGB that shows no colour
    colour = noise(3)
    draw("photos/test/cat/1.png", colour)
    train, test = both(data.Folder("photos"))
    np.testing.assert_array_equal(train.images[0], grey)
    assert train.images.shape[-1] == 1
    luma = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(test.images[0, ..., 0], luma, atol=0.5 + 1e-4)
    draw("photos/train/dog/2.png", colour)
    train = data.Folder("photos")("train", SIZE)
    np.testing.assert_array_equal(train.images[0], np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(train.images[2], colour)


def test_all_kinds_of_pictures():
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    wide = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[None], 8, axis=0)
    draw("photos/train/a/exif.jpg", wide, quality=100, exif=turned)
    deep = np.arange(128, dtype=np.uint16).reshape(16, 8) * 516
    draw("photos/train/a/deep.png", deep)
    levels = np.arange(128, dtype=np.uint8).reshape(16, 8)
    palette = Image.fromarray(levels, "P")
    palette.putpalette([255 - level for level in range(256) for _ in range(3)])
    palette.save("photos/train/a/palette.gif")
    alpha = np.stack([np.zeros_like(levels), np.where(levels < 32, 255, 0).astype(np.uint8)], axis=-1)
    draw("photos/train/b/alpha.png", alpha)
    draw("photos/train/b/bits.tif", levels > 60)
    draw("photos/test/a/1.png", noise(0))
    train = data.Folder("photos", strict=True)("train", SIZE)
    got = dict(zip(("deep", "exif", "palette", "alpha", "bits"), train.images[..., 0], strict=True))
    np.testing.assert_allclose(got["exif"], wide.T, atol=3)
    np.testing.assert_allclose(got["deep"], deep / 65535 * 255, atol=0.5)
    np.testing.assert_array_equal(got["palette"], 255 - levels)
    np.testing.assert_array_equal(got["alpha"], np.where(levels < 32, 0, 255))  # black ink on white
    np.testing.assert_array_equal(got["bits"], np.where(levels > 60, 255, 0))


@pytest.fixture
def faulty():
    """A folder with some files that are no pictures, and some that nobody minds."""
    drawn = draw_classes("photos/train", 2)
    draw_classes("photos/test", 2, seed=1)
    whole = Path("photos/train/cat/0.png").read_bytes()
    Path("photos/train/cat/torn.png").write_bytes(whole[: len(whole) // 2])
    Path("photos/train/cat/notes.txt").write_text("not a picture")
    Path("photos/test/dog/none.jpg").write_bytes(b"")
    os.mkfifo("photos/train/dog/pipe.png")
    Path("photos/train/dog/link.png").symlink_to("nowhere")
    Path("photos/train/cat/.hidden.txt").write_text("nobody minds")
    Path("photos/train/.git/x").mkdir(parents=True)
    Path("photos/README.md").write_text("nobody minds")
    return drawn


def test_files_that_are_no_pictures_are_named(faulty, capsys):
    train, test = both(data.Folder("photos"))
    np.testing.assert_array_equal(train.images, np.stack(list(faulty.values())))
    assert len(test) == 4
    said = lines(capsys)
    names = [
        "train/cat/notes.txt",
        "train/cat/torn.png",
        "train/dog/link.png",
        "train/dog/pipe.png",
        "test/dog/none.jpg",
    ]
    assert len(said) == len(names)
    for line, name in zip(said, names, strict=True):
        assert line.startswith(f"cnn_jax: photos: {name}: expected a ")
        assert line.endswith("; passed over")


def test_many_faults_are_counted(capsys):
    draw_classes("photos", 10)
    for index in range(50):
        Path(f"photos/cat/{index}.txt").write_text("not a picture")
    data.Folder("photos")("train", SIZE)
    *named, last = lines(capsys)
    assert len(named) == 20
    assert last == "cnn_jax: photos: 30 more files passed over"


def test_strict_refuses_them(faulty):
    data.Folder("photos")("train", SIZE)  # what this has kept is not what strict asks for
    with pytest.raises(InputError, match=r"photos/train/cat/notes.txt: expected .* 3 more of the files of train"):
        data.Folder("photos", strict=True)("train", SIZE)


def test_pictures_of_both_splits_are_reported(capsys):
    draw_classes("photos/train")
    draw_classes("photos/test", seed=1)
    draw("photos/test/dog/again.bmp", noise([0, 0, 1]))  # other bytes, the same pixels
    draw("photos/test/dog/and_again.png", noise([0, 1, 2]))
    both(data.Folder("photos"))
    (said,) = lines(capsys)
    example = "test/dog/again.bmp, which is train/cat/1.png"
    assert said == f"cnn_jax: photos: 2 of 8 images of test are in train too (such as {example})"


def test_copies_of_a_file_are_on_one_side(capsys):
    drawn = draw_classes("photos", 20)
    for path in drawn:
        draw(path.replace(".png", "-copy.png"), drawn[path])
    train, test = both(data.Folder("photos"))
    assert not as_set(train) & as_set(test)
    assert (len(train), len(test)) == (2 * len(as_set(train)), 2 * len(as_set(test)))
    assert lines(capsys) == []


def test_pictures_in_folders_of_a_class_are_of_it():
    draw_classes("photos", 20)
    draw_classes("photos/cat", 10, names=("black", "white"), seed=1)
    train, test = both(data.Folder("photos"))
    assert len(train) + len(test) == 60
    assert train.class_names == ("cat", "dog")


def test_pictures_in_no_class_are_named(capsys):
    draw_classes("photos/train")
    draw_classes("photos/val", seed=1)
    draw("photos/train/stray.png", noise(9))
    draw("photos/test/unlabelled.png", noise(9))
    both(data.Folder("photos"))
    assert lines(capsys) == [
        "cnn_jax: photos/test has no folders of classes in it; passed over",
        "cnn_jax: photos/train: 1 picture in no folder of a class, such as stray.png; passed over",
        "cnn_jax: photos has no test split; its split val is used instead",
    ]


def empty_class():
    draw_classes("photos")
    Path("photos/eel").mkdir()


def class_of_texts():
    draw_classes("photos")
    Path("photos/eel").mkdir()
    Path("photos/eel/a.txt").write_text("not a picture")


def empty_test():
    draw_classes("photos/train")
    Path("photos/test/cat").mkdir(parents=True)


def unknown_class():
    draw_classes("photos/train")
    draw_classes("photos/test", names=("cat", "eel"))


def splits_by_other_names():
    draw_classes("photos/training")
    draw_classes("photos/testing", seed=1)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda: None, "photos: expected a folder of pictures, there is none"),
        (lambda: Path("photos").write_text(""), "photos: expected a folder of pictures, it is a file"),
        (lambda: Path("photos").mkdir(), "photos: expected a folder of pictures for each class, found none"),
        (lambda: draw("photos/1.png", noise(1)), "photos: expected a folder of pictures for each class, found none"),
        (lambda: draw("photos/train/cat/1.png", noise(1)), "photos/train: .* for each class, found only cat"),
        (empty_class, "photos/eel: expected pictures, it is empty"),
        (class_of_texts, "photos: expected pictures of each class in the training split, found none of eel"),
        (empty_test, "photos: expected pictures in the test split, found none"),
        (splits_by_other_names, "contain only folders: testing, training; those of splits are called train and test"),
        (unknown_class, r"photos/test/eel: expected a class of the training split \(cat, dog\)"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(prepare, message):
    prepare()
    with pytest.raises(InputError, match=message) as caught:
        data.Folder("photos")("train", SIZE)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_and_a_bad_size():
    draw_classes("photos", 20)
    with pytest.raises(InputError, match="data set photos: expected one of the splits train, test; got 'val'"):
        data.Folder("photos")("val", SIZE)
    with pytest.raises(InputError, match="image size: expected two positive whole numbers"):
        data.Folder("photos")("train", (8, 0))


def test_pictures_are_decoded_once(monkeypatch, faulty, own_folders, capsys):
    source = data.Folder("photos")
    first = source("train", SIZE)
    said = lines(capsys)
    folders.say_once.cache_clear()

    def fail(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(pile, "open_picture", fail)
        np.testing.assert_array_equal(source("train", SIZE).images, first.images)
        assert lines(capsys) == said  # what is wrong is said of a cached folder too
        assert len(source.here()("test", (3, 3))) == 4  # all of one size: none is asked for
        assert lines(capsys) == []
    draw("photos/train/cat/new.png", noise(7))
    assert len(source("train", SIZE)) == 5
    (entry,) = own_folders[0].glob("decoded/photos/*/train-*")  # the old one is gone
    (entry / "images.npy").write_bytes(b"damaged")
    np.testing.assert_array_equal(source("train", SIZE).images[:2], first.images[:2])


def test_without_a_cache_it_is_once_a_process(monkeypatch, own_folders):
    draw_classes("photos", 20)
    monkeypatch.setenv("CNN_JAX_CACHE", "/dev/null/none")
    source = data.Folder("photos")
    train = source("train", SIZE)
    monkeypatch.setattr(pile, "open_picture", None)
    assert len(source("test", SIZE)) == 40 - len(train)


def test_warnings_are_as_before_after_reading_by_threads():
    import warnings

    draw_classes("photos", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        data.Folder("photos")("train", SIZE)
        assert warnings.filters == before


# Files of arrays.


def arrays(**changes):
    """Arrays of two splits, changed; None leaves one out."""
    rng = np.random.default_rng(0)
    held = {
        "train_images": rng.integers(0, 256, (20, 6, 7), np.uint8),
        "train_labels": np.arange(20) % 3,
        "test_images": rng.integers(0, 256, (9, 6, 7), np.uint8),
        "test_labels": np.arange(9) % 3,
    } | changes
    return {name: array for name, array in held.items() if array is not None}


def test_a_file_of_arrays(capsys):
    held = arrays(val_images=noise(1, 2, 6, 7), val_labels=[0, 1])
    np.savez("set.npz", **held)
    train, test = both(data.Arrays("set.npz"))
    for dataset, split in ((train, "train"), (test, "test"), (data.Arrays("set.npz")("val", SIZE), "val")):
        np.testing.assert_array_equal(dataset.images, held[f"{split}_images"][..., None])
        np.testing.assert_array_equal(dataset.labels, held[f"{split}_labels"])
        assert dataset.labels.dtype == np.int32
        assert not dataset.images.flags.writeable
        assert (dataset.name, dataset.split, dataset.class_names) == ("set", split, ("0", "1", "2"))
        assert dataset.statistics == train.statistics
        assert dataset.fingerprint == train.fingerprint
    np.testing.assert_allclose(train.statistics.mean, held["train_images"].mean() / 255)
    np.testing.assert_array_equal(data.Arrays("set.npz").validation(SIZE).labels, held["val_labels"])
    np.savez("two.npz", **arrays())
    assert data.Arrays("two.npz").validation(SIZE) is None
    assert lines(capsys) == []


def test_names_of_classes():
    np.savez("set.npz", **arrays(class_names=["ant", "bee", "cow", "dog"]))
    assert data.Arrays("set.npz")("test", SIZE).class_names == ("ant", "bee", "cow", "dog")
    names = np.array(["cow", "ant", "bee"])
    held = arrays()
    held = held | {"train_labels": names[held["train_labels"]], "test_labels": names[held["test_labels"]]}
    np.savez_compressed("named.npz", **held)
    train, test = both(data.Arrays("named.npz"))
    assert train.class_names == ("ant", "bee", "cow")
    for dataset, split in ((train, "train"), (test, "test")):
        assert [dataset.class_names[label] for label in dataset.labels] == list(held[f"{split}_labels"])


def test_arrays_are_split_by_content(capsys):
    images, labels = noise(0, 300, 5, 4), np.arange(300) % 10
    np.savez("set.npz", images=images, labels=labels)
    train, test = map(as_set, both(data.Arrays("set.npz")))
    assert len(train) + len(test) == 300
    assert 30 < len(test) < 90
    order = np.random.default_rng(1).permutation(310) % 300  # ten are there twice
    np.savez("more.npz", images=np.concatenate([images[order], noise(1, 9, 5, 4)]), labels=[*labels[order], *range(9)])
    more_train, more_test = map(as_set, both(data.Arrays("more.npz")))
    assert train < more_train
    assert test <= more_test
    assert lines(capsys) == []


def test_images_of_both_splits_are_reported_of_arrays(capsys):
    held = arrays()
    held["test_images"][4] = held["train_images"][2]
    np.savez("set.npz", **held)
    both(data.Arrays("set.npz"))
    assert lines(capsys) == ["cnn_jax: set: 1 of 9 images of test is in train too (such as test[4], which is train[2])"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((20, 6, 7), np.float32)}, r"uint8 .* got float32 \(20, 6, 7\)"),
        ({"train_images": np.zeros((20, 42), np.uint8)}, r"train_images to be uint8 .*, got uint8 \(20, 42\)"),
        ({"test_images": np.zeros((0, 6, 7), np.uint8)}, r"test_images to be uint8 .*, got uint8 \(0, 6, 7\)"),
        ({"test_images": np.zeros((9, 6, 8), np.uint8)}, r"training images' shape \(6, 7, 1\), got \(6, 8, 1\)"),
        ({"train_labels": np.arange(19)}, r"train_labels .* \(20,\) like the images, got int64 \(19,\)"),
        ({"train_labels": np.zeros((20, 1), int)}, r"got int64 \(20, 1\)"),
        ({"train_labels": np.arange(20) / 2}, "train_labels to be whole numbers or strings, .* got float64"),
        ({"train_labels": np.array(["a", "b"] * 10)}, "whole numbers, or of all to be strings"),
        ({"train_labels": np.full(20, -1)}, "two classes or more, got 0"),
        ({"train_labels": np.arange(20) - 1}, "train labels to be 0 to 18, got -1"),
        ({"train_labels": np.full(20, 10**12)}, "expected labels from 0, .* got 1000000000000"),
        ({"train_labels": np.zeros(20, int)}, "two classes or more, got 1"),
        ({"test_labels": np.arange(9)}, "test labels to be 0 to 2, got 3"),
        ({"class_names": ["a", "b", "a"]}, "class_names to be different strings"),
        ({"class_names": [1, 2, 3]}, "class_names to be different strings"),
        ({"class_names": np.array(["a", "b", None])}, "plain arrays, got: Object arrays cannot be loaded"),
        ({"test_labels": None}, "expected an array test_labels to go with test_images"),
        ({"train_images": None}, "expected arrays train_images, .* got train_labels, test_images, test_labels"),
        ({"images": np.zeros((2, 3, 3), np.uint8), "labels": [0, 1]}, "enough images for two splits, 2 leave one"),
    ],
)
def test_what_is_wrong_with_arrays_is_said_in_one_line(changes, message):
    np.savez("set.npz", **arrays(**changes))
    with pytest.raises(InputError, match=rf"^set\.npz: .*{message}") as caught:
        data.Arrays("set.npz")("train", SIZE)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none():
    def refused(message):
        with pytest.raises(InputError, match=message):
            data.Arrays("set.npz")("train", SIZE)

    refused("set.npz: expected a file of arrays, there is none")
    Path("set.npz").mkdir()
    refused("set.npz: expected a file of arrays, there is none")
    Path("set.npz").rmdir()
    Path("set.npz").write_text("text\nof two lines")
    refused("set.npz: expected an .npz file")
    np.savez("set.npz", **arrays())
    content = Path("set.npz").read_bytes()
    Path("set.npz").write_bytes(content[: len(content) // 2])
    refused("set.npz: expected an .npz file")
    with open("set.npz", "wb") as file:
        np.save(file, np.zeros(3))
    refused("it is a single array; use numpy.savez")


# All of them.


def test_tfds_loads(monkeypatch):
    def load(*given, **options):
        return given, options

    monkeypatch.setattr("cnn_jax.data.loading.load", load)
    expected = ("mnist", "test"), {"data_dir": "sets", "image_size": SIZE, "strict": True}
    assert data.TFDS("mnist", "sets", strict=True)("test", SIZE) == expected


def test_here_is_the_same_from_another_folder(tmp_path, monkeypatch):
    draw_classes("photos", 20)
    np.savez("set.npz", **arrays())
    for source in (data.Folder("photos"), data.Arrays("set.npz")):
        expected = source("train", SIZE)
        monkeypatch.chdir("/")
        assert os.path.isabs(source.here().path)
        assert source.here().here() == source.here()
        moved = type(source)(str(tmp_path / source.path))
        monkeypatch.chdir(tmp_path)
        assert source.here() == moved
        monkeypatch.chdir("/")
        got = moved("train", SIZE)
        assert (got.name, got.fingerprint) == (expected.name, expected.fingerprint)
        monkeypatch.chdir(tmp_path)
    assert data.TFDS("mnist", "sets").here() == data.TFDS("mnist", str(tmp_path / "sets"))
    assert data.TFDS("mnist").here() == data.TFDS("mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.Folder("~/photos").here() == data.Folder("photos").here()


def test_paths_are_kept_as_text():
    assert data.Folder(Path("a/b")) == data.Folder("a/b")
    assert data.Arrays(Path("a/b.npz")) == data.Arrays("a/b.npz")
    assert data.TFDS("mnist", Path("a")) == data.TFDS("mnist", "a")
    with pytest.raises(FrozenInstanceError):
        data.Folder("a").path = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "label"),
    [
        (data.TFDS(), "digits"),
        (data.TFDS("emnist/letters:3.0.1"), "emnist-letters"),
        (data.Folder("some/My photos (2)"), "My-photos-2"),
        (data.Folder("some/photos/"), "photos"),
        (data.Folder("/"), "data"),
        (data.Folder("Bäume"), "B-ume"),
        (data.Arrays("some/set.v2.npz"), "set-v2"),
    ],
)
def test_labels_are_names_for_folders(source, label):
    assert source.label() == label


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.TFDS(" "), "tfds: expected name to be the name of a data set, got ' '"),
        (lambda: data.TFDS("mnist", 3), "tfds: expected dir to be the path of a folder, got 3"),
        (lambda: data.Folder(""), "folder: expected path to be the path of a folder, got ''"),
        (lambda: data.Folder("photos", test_share=1.0), "folder: expected test_share to be a number between 0 and 1"),
        (lambda: data.Arrays("  "), "arrays: expected path to be the path of an .npz file, got '  '"),
        (lambda: data.Arrays("set.npz", 0.0), "arrays: expected test_share to be a number between 0 and 1"),
    ],
)
def test_bad_fields(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_sources_are_written_as_their_calls():
    for source in (data.TFDS("mnist", "sets"), data.Folder("my photos", strict=True), data.Arrays("set.npz", 0.3)):
        assert parts.parse(parts.text(source), data.Source) == source
    assert parts.parse('folder("photos")', data.Source) == data.Folder("photos")


def test_importing_sources_loads_nothing_heavy():
    heavy = ["tensorflow", "tensorflow_datasets", "PIL", "scipy", "sklearn"]
    code = f"import sys, cnn_jax.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
