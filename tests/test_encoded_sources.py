"""A source whose images stay encoded gives what it gives decoded: pixels, labels, statistics, fingerprint, notes."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.augment import Flip
from cnn_jax.data import decode, folders, jpeg, loading, picture_files
from cnn_jax.data.dataset import compute_fingerprint
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.pictures import decode_picture, open_picture
from cnn_jax.data.resizing import cut_square
from cnn_jax.errors import InputError
from cnn_jax.parts import parse, text
from cnn_jax.runs import capacity, fit
from cnn_jax.runs.execution import Execution
from tests import quick
from tests.small_sets import encoded, image_feature, label_feature, random_images, write_set
from tests.tiny import assert_same_bits, make_execution, make_recipe

SIZE = (6, 6)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNN_JAX_CACHE", str(tmp_path / "cache"))
    loading._TRAINING.clear()
    folders.say_once.cache_clear()


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise that JPEG keeps some of."""
    draw = np.random.default_rng(seed)
    waves = np.sin(np.linspace(0, 9, height)[:, None, None] + np.linspace(0, 7, width)[:, None] * [1, 2, 3][:channels])
    return np.clip(128 + 90 * waves + draw.normal(0, 9, (height, width, channels)), 0, 255).astype(np.uint8)


def write_folder(root, shapes, *, form="PNG", splits=("train", "test"), broken=(), names="ab"):
    for split in splits:
        for k, shape in enumerate(shapes):
            folder = root / split / names[k % len(names)] if len(splits) > 1 else root / names[k % len(names)]
            folder.mkdir(parents=True, exist_ok=True)
            content = encoded(smooth(*shape, seed=k + 100 * (split == "test")), form)
            if split == splits[0] and k in broken:
                content = content[:-30]
            (folder / f"{k:02}.{form.lower()}").write_bytes(content)
    return data.Folder(str(root))


def assert_same(found: data.Dataset, expected: data.Dataset):
    assert isinstance(found.images, Encoded)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype == expected.labels.dtype
    for field in ("name", "version", "split", "class_names", "statistics", "fingerprint", "ink"):
        assert getattr(found, field) == getattr(expected, field), field


FOLDERS = {
    "one_size": {"shapes": [(5, 7, 3)] * 6},
    "grey": {"shapes": [(9, 9, 1)] * 6},
    "grey_jpeg": {"shapes": [(20, 9, 1)] * 6, "form": "JPEG"},
    "a_colour_comes_late": {"shapes": [(5, 5, 1)] * 5 + [(5, 5, 3)]},
    "sizes": {"shapes": [(5, 7, 3), (9, 8, 1), (40, 30, 3), (6, 6, 3), (5, 7, 3), (11, 6, 3)]},
    "size_and_colour_change_late": {"shapes": [(5, 7, 1)] * 4 + [(9, 9, 1), (9, 9, 3)]},
    "large": {"shapes": [(300, 260, 3)] * 2 + [(200, 100, 3)], "form": "JPEG"},
    "broken": {"shapes": [(8, 8, 3)] * 8, "broken": (0, 3)},
    "split_by_content": {"shapes": [(8, 8, 3)] * 24, "splits": ("",), "broken": (2,)},
}


@pytest.mark.parametrize("square", [None, 7, 280])
@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_the_same_encoded(tmp_path, case, square, capfd):
    if square == 280 and case not in ("sizes", "large"):
        return
    source = dataclasses.replace(write_folder(tmp_path / "photos", **FOLDERS[case]), square=square)
    expected = {split: source(split, SIZE) for split in ("train", "test")}
    said = [line for line in capfd.readouterr().err.splitlines() if "passed over" in line]
    assert len(said) == len(FOLDERS[case].get("broken", ()))
    folders.say_once.cache_clear()
    for split, whole in expected.items():
        assert_same(source.encoded()(split, SIZE), whole)
    assert [line for line in capfd.readouterr().err.splitlines() if "passed over" in line] == said
    assert source.decoded_bytes(SIZE) >= 0


def test_squares_are_the_middles_of_pictures(tmp_path):
    """Of pictures higher than wide, wider than high and square, enlarged and not; the cache keeps sizes apart."""
    from PIL import Image

    shapes = [(20, 31, 3), (40, 12, 3), (16, 16, 3), (15, 16, 3)]
    for square in (8, 16, 30):
        source = dataclasses.replace(write_folder(tmp_path / "photos", shapes), square=square)
        found = source("train", SIZE)
        assert found.images.shape == (4, square, square, 3)
        order = [0, 2, 1, 3]  # by class, and then by name
        for image, k in zip(found.images, order, strict=True):
            height, width = (max(square, round(side * square / min(shapes[k][:2]))) for side in shapes[k][:2])
            whole = Image.fromarray(smooth(*shapes[k], seed=k)).resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - square) // 2, (height - square) // 2
            expected = np.asarray(whole.crop((left, top, left + square, top + square)))
            np.testing.assert_array_equal(image, expected)
        assert source.decoded_bytes(SIZE) == 8 * square * square * 3
    assert parse(text(source), data.Source) == source
    with pytest.raises(InputError, match=r"^folder: expected square to be 1 to 65,535 pixels, or None, got 0$"):
        data.Folder("photos", square=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_at_a_reduced_scale(channels):
    """In as few eighths as leave no side too small; the scales that Pillow has too give its pixels."""
    from PIL import Image

    whole = encoded(smooth(160, 240, channels), "JPEG")
    for least, eighths in (
        (160, 8),
        (141, 8),
        (140, 7),
        (101, 6),
        (80, 4),
        (61, 4),
        (60, 3),
        (21, 2),
        (1, 1),
        (500, 8),
    ):
        found = jpeg.decode_plain(whole, least)
        assert found.shape == (20 * eighths, 30 * eighths, channels)
        picture = Image.open(io.BytesIO(whole))
        if eighths in (1, 2, 4, 8):
            picture.draft(None, found.shape[1::-1])
            np.testing.assert_array_equal(found.squeeze(), np.asarray(picture))
        resized = np.asarray(picture.resize(found.shape[1::-1], Image.Resampling.BOX), float)
        assert np.abs(found.squeeze() - resized).mean() < 4
    assert jpeg.decode_plain(whole[:-40], 40) is None


def test_a_folder_at_a_reduced_scale_always_streams(tmp_path, monkeypatch):
    """Its pixels are the squares of pictures so decoded, and its fingerprint is that of these."""
    plain = dataclasses.replace(write_folder(tmp_path / "photos", [(90, 70, 3)] * 6, form="JPEG"), square=30)
    source = dataclasses.replace(plain, reduced=True)
    train, whole = source("train", SIZE), plain("train", SIZE)
    assert isinstance(train.images, Encoded)
    for image, path in zip(train.images, sorted((tmp_path / "photos/train").rglob("*.jpeg")), strict=True):
        scaled = jpeg.decode_plain(path.read_bytes(), 30)
        assert scaled.shape == (45, 35, 3)
        np.testing.assert_array_equal(image, cut_square(scaled, 30))
    difference = np.abs(train.images[:].astype(int) - whole.images)
    assert 0 < difference.mean() < 8
    assert train.fingerprint == compute_fingerprint(train.images[:], whole.labels, whole.class_names)
    assert_same(source.encoded()("test", SIZE), source("test", SIZE))
    monkeypatch.setattr(capacity, "host_memory", lambda: None)
    assert isinstance(capacity.reading(source, SIZE, "auto")("train", SIZE).images, Encoded)
    with pytest.raises(
        InputError, match=r"^feed: expected streamed, as the images of folder\(.*reduced=True\) always are"
    ):
        capacity.reading(source, SIZE, "resident")
    with pytest.raises(InputError, match=r"^folder: expected reduced to be False where square is None, got True$"):
        data.Folder("photos", reduced=True)


def test_a_folder_is_looked_at_once(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "photos", [(8, 8, 3)] * 6).encoded()
    before = source("test", SIZE)
    monkeypatch.setattr(picture_files, "scan_training", None)
    assert_same(source("test", SIZE), data.Folder(source.path)("test", SIZE))
    (tmp_path / "photos/test/a/00.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"^[^\n]*00\.png: expected a PNG.*it could be read when[^\n]*$"):
        before.images[0]


def test_strict_refuses_what_cannot_be_read(tmp_path):
    source = dataclasses.replace(write_folder(tmp_path / "photos", [(8, 8, 3)] * 6, broken=(1,)), strict=True)
    with pytest.raises(InputError, match=r"^[^\n]*01\.png: expected a readable picture[^\n]*$"):
        source.encoded()("train", SIZE)


@pytest.mark.parametrize("kind", ["png", "jpeg", "sizes"])
def test_a_tfds_set_is_the_same_encoded(tmp_path, kind):
    shapes = [(9, 7, 3)] * 5 if kind != "sizes" else [(9, 7, 3), (4, 4, 3), (20, 30, 3), (6, 6, 3), (7, 5, 3)]
    form = "JPEG" if kind == "jpeg" else "PNG"
    pictures = [encoded(smooth(*shape, seed=k), form) for k, shape in enumerate(shapes)]
    records = [{"image": picture, "label": k % 3} for k, picture in enumerate(pictures)]
    shape = (None, None, 3) if kind == "sizes" else shapes[0]
    features = {"image": image_feature(*shape), "label": label_feature(3)}
    write_set(tmp_path / "tfds", features, {"train": records, "test": records[:2]})
    source = data.TFDS("small_set", str(tmp_path / "tfds"))
    for split in ("test", "train"):
        assert_same(source.encoded()(split, SIZE), source(split, SIZE))
    height, width = SIZE if kind == "sizes" else shapes[0][:2]
    assert source.decoded_bytes(SIZE) == 7 * height * width * 3


@pytest.mark.parametrize("kind", ["one_size", "sizes"])
def test_damaged_records_are_named_and_passed_over(tmp_path, kind, capfd):
    """The same for a resident set as for one that stays encoded: the others, with their labels, and the same lines."""
    pictures = [encoded(smooth(20, 30 + k * (kind == "sizes"), seed=k), "JPEG") for k in range(7)]
    pictures[2], pictures[5] = pictures[2][:-40], b"no picture"
    records = [{"image": picture, "label": k % 3} for k, picture in enumerate(pictures)]
    features = {"image": image_feature(*((None, None) if kind == "sizes" else (20, 30)), 3), "label": label_feature(3)}
    write_set(tmp_path, features, {"train": records, "test": records[:4]})
    source = data.TFDS("small_set", str(tmp_path))
    said = []
    for opened in (source, source.encoded()):
        found = {split: opened(split, SIZE) for split in ("train", "test", "train")}  # the last from the cache
        assert found["train"].labels.tolist() == [0, 1, 0, 1, 0]
        assert found["test"].labels.tolist() == [0, 1, 0]
        said.append([line for line in capfd.readouterr().err.splitlines() if "passed over" in line])
        folders.say_once.cache_clear()
    assert said[0] == said[1]
    assert [line.split(": ")[2] for line in said[0]] == [
        f"record {name}" for name in ("2 of train", "5 of train", "2 of test")
    ]
    for split in found:
        assert_same(found[split], source(split, SIZE))
    whole = [np.asarray(decode._decode_image(pictures[k], 3)) for k in (0, 1, 3, 4, 6)]
    np.testing.assert_array_equal(
        found["train"].images, [data.fit_images(image[None], found["train"].images.shape[1:3])[0] for image in whole]
    )
    for strict in (dataclasses.replace(source, strict=True), dataclasses.replace(source, strict=True).encoded()):
        with pytest.raises(
            InputError, match=r"^data set small_set: record 2 of train: expected a readable picture[^\n]*$"
        ):
            strict("train", SIZE)


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_labels_that_are_no_classes_are_refused(tmp_path, label, monkeypatch):
    kind = label_feature(3)
    monkeypatch.setattr(type(kind), "encode_example", lambda self, value: value)  # which would refuse some already
    records = [{"image": encoded(image), "label": k} for k, image in enumerate(random_images(3, 6, 6, 1))]
    records[1]["label"] = label
    write_set(tmp_path, {"image": image_feature(6, 6, 1), "label": kind}, {"train": records})
    source = data.TFDS("small_set", str(tmp_path))
    for opened in (source, source.encoded()):
        with pytest.raises(InputError, match=r"^data set small_set: [^\n]*label[^\n]*$"):
            opened("train", SIZE)


def test_what_does_not_fit_stays_encoded(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "photos", [(8, 8, 3)] * 6)
    size = source.decoded_bytes(SIZE)
    assert size == 12 * 8 * 8 * 3
    monkeypatch.setattr(capacity, "host_memory", lambda: 2 * size)
    assert capacity.reading(source, SIZE, "auto") is source
    monkeypatch.setattr(capacity, "host_memory", lambda: 2 * size - 1)
    assert isinstance(capacity.reading(source, SIZE, "auto")("train", SIZE).images, Encoded)
    assert capacity.reading(source, SIZE, "resident") is source
    monkeypatch.setattr(capacity, "host_memory", lambda: None)
    assert isinstance(capacity.reading(source, SIZE, "streamed")("train", SIZE).images, Encoded)
    train, recipe = source("train", SIZE), make_recipe()
    needed = len(train) * 6 * 6 * 3
    for free, feed in ((2 * needed, "resident"), (2 * needed - 1, "streamed"), (None, "resident")):
        monkeypatch.setattr(capacity, "free_memory", lambda free=free: free)
        assert capacity.settle_feed(Execution(), recipe, (train, None)).feed == feed
    assert capacity.settle_feed(Execution(), recipe, (source.encoded()("train", SIZE),)).feed == "streamed"


def test_a_run_of_a_folder_is_the_same_streamed(tmp_path):
    source = write_folder(tmp_path / "photos", [(8, 8, 3)] * 20, form="JPEG", names="abc")
    recipe = make_recipe(epochs=1, augment=(Flip(),), steps=3)
    with quick.everywhere():
        resident = fit(recipe, source("train", SIZE), test=source("test", SIZE), execution=make_execution())
        encoded = source.encoded()
        streamed = fit(recipe, encoded("train", SIZE), test=encoded("test", SIZE), execution=make_execution())
    assert_same_bits(streamed.state, resident.state)
    assert streamed.evaluations["test"][0].values() == resident.evaluations["test"][0].values()


KINDS = {
    "colour": ("RGB", {}),
    "no_subsampling": ("RGB", {"subsampling": 0}),
    "progressive": ("RGB", {"progressive": True, "quality": 60}),
    "grey": ("L", {}),
    "ink": ("CMYK", {}),
    "turned": ("RGB", {"exif": 6}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_has_the_pixels_that_pillow_gives(tmp_path, kind):
    from PIL import Image, ImageOps

    mode, options = KINDS[kind]
    picture = Image.fromarray(smooth(37, 53)).convert(mode)
    if "exif" in options:
        exif = Image.Exif()
        exif[0x0112] = options["exif"]
        options = {"exif": exif}
    path = tmp_path / "x.jpg"
    picture.save(path, "JPEG", **options)
    expected = ImageOps.exif_transpose(Image.open(path)).convert("L" if mode == "L" else "RGB")
    np.testing.assert_array_equal(open_picture(path).squeeze(), np.asarray(expected))
    np.testing.assert_array_equal(decode_picture(path), open_picture(path))
    assert (jpeg.decode_plain(path.read_bytes()) is None) == (kind in ("ink", "turned"))


def test_a_cut_jpeg_is_refused():
    whole = encoded(smooth(40, 40), "JPEG")
    assert jpeg.decode_plain(whole) is not None
    for end in (1, 2, 20, len(whole) // 2, len(whole) - 40):
        assert jpeg.decode_plain(whole[:end]) is None
    assert jpeg.decode_plain(io.BytesIO(b"GIF89a").getvalue()) is None
