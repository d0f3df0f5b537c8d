"""Bad input to `cnn-jax`: each ends in a line that names it and exit code 2, and the run stays as it was."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import cli
from cnn_jax.runs.digests import seal
from tests.trained import draw_page, trained, tree_hash


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return trained(tmp_path_factory)


@pytest.fixture(autouse=True)
def _hook(monkeypatch):
    """The command changes this for its process."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A PNG that can be read."""
    name = tmp_path_factory.mktemp("picture") / "good.png"
    image = np.zeros((8, 8, 1), np.uint8)
    image[1:7, 3:5] = 255
    Image.fromarray(draw_page(image)).save(name)
    return name


def call(*arguments):
    """The command in this process: (exit code, stdout, lines of stderr). A traceback is an exception here."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, ["cnn-jax", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
    return code, out.getvalue(), err.getvalue().splitlines()


def refused(*arguments):
    """Calls what must be refused, in one line; returns that line."""
    code, out, lines = call(*arguments)
    assert (code, out, len(lines)) == (2, "", 1), f"{arguments}: exit code {code}, {lines or out}"
    assert lines[0].startswith("error: "), lines
    assert len(lines[0]) > 20, lines
    return lines[0]


NUMBERS = ["", "x", "0", "-1", "1.5", "1e3", "nan", "99999999999999999999", "--", "⅕", "0x10"]
NAMES = ["", " ", "LeNet5", "lenet", "lenet5 ", "\n", "../x", "é", "-x", "no/such/run", "x" * 300, "a\x1bb", "nul\ttab"]
TEXTS = [
    "lenet5(", "lenet5(num_classes=0)", "lenet5(classes=3)", "lenet5('x')", "lenet5(1, 2, 3)", "lenet6()", "sgd()",
    "no.py:Tiny()", "json:Tiny()", "os:system('ls')", "lenet5()()", "lenet5() | mlp()", "lenet5()[0]", "mlp(x)",
]  # fmt: skip
SPELT = ("LeNet5", "lenet5 ")  # as texts of a model, case and spaces do not matter
OPTIONS = [
    [],
    *([word] for word in ("evalute", "trian", "", "-", "--", "--run", "evaluate", "predict", "describe", "--helpp")),
    *(["describe", name] for name in NAMES if name not in SPELT),
    *(["describe", text] for text in TEXTS),
    *(["evaluate", name] for name in NAMES),
    *(["predict", name, "x.png"] for name in NAMES),
    *(["compare", *names] for names in ([], *([name] for name in NAMES), *(["no/such", name] for name in NAMES))),
    *(["describe", "lenet5", "--channels", number] for number in NUMBERS if number != "--"),
    *(["describe", "lenet5", "--size", "32", number] for number in [*NUMBERS, "31", "70000"]),
    *(["describe", "lenet5", "--size", *sizes] for sizes in ([], ["32"], ["32", "32", "32"])),
    ["describe", "lenet5", "mlp"],
    ["describe", "lenet5", "--json"],
    *(["describe", "lenet5", "--format", *form] for form in ([], [""], ["HTML"], ["json"], ["text", "html"])),
]
RUN_OPTIONS = [
    *(["evaluate", "RUN", "--split", split] for split in ("", "Test", "validation", "test[:10%]", "é")),
    *(["evaluate", "RUN", "--data", name] for name in ("digit", "digits/x", "digits:9.9.9", "../digits", " ", "é")),
    *(["evaluate", "RUN", "--data", text] for text in ("tfds('')", "folder", "folder()", "arrays(1)", "sgd()", "x(")),
    ["evaluate", "RUN", "--data", "folder('/no/such')"],
    ["evaluate", "RUN", "--data", "arrays('/no/such.npz')", "--data-dir", "/no/such"],
    ["evaluate", "RUN", "RUN"],
    ["evaluate", "RUN", "--top", "3"],
    ["predict", "RUN"],
    *(["predict", "RUN", "x.png", "--top", number] for number in NUMBERS if "9" not in number),
    ["predict", "RUN", "x.png", "--tpo", "3"],
    ["describe", "RUN", "--size", "3", "3"],
    ["describe", "RUN/config.json"],
    ["evaluate", "RUN/checkpoints"],
    *(["compare", *names] for names in (["RUN"], ["RUN", "RUN/."], ["RUN", "RUN/best"], ["RUN", "RUN/config.json"])),
    ["compare", "RUN", "no/such", "--out", "RUN/report.html"],
]


@pytest.mark.parametrize("arguments", OPTIONS, ids=lambda arguments: " ".join(arguments)[:40])
def test_bad_command_lines(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", RUN_OPTIONS, ids=lambda arguments: " ".join(arguments)[:40])
def test_bad_options_for_a_good_run(arguments, path):
    before = tree_hash(path)
    refused(*(word.replace("RUN", str(path)) for word in arguments))
    assert tree_hash(path) == before


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for contents in (b"", b"\xff\xfe", b"{", b"null", b"[]", b'"x"', b"{}", b"1e999", b'{"config": 1}'):
        (tmp_path / "foreign").mkdir(exist_ok=True)
        (tmp_path / "foreign" / "config.json").write_bytes(contents)
        assert "foreign" in refused("describe", tmp_path / "foreign"), contents
    for name in ("empty", "file", "odd", "loop", "missing"):
        for arguments in (["evaluate"], ["describe"]):
            assert name in refused(*arguments, tmp_path / name)


def damaged_copy(path, target):
    shutil.copytree(path, target)
    return target


def test_a_configuration_cut_off_anywhere(path, tmp_path):
    copy = damaged_copy(path, tmp_path / "run")
    text = (path / "config.json").read_bytes()
    for length in range(0, len(text.rstrip()), 31):
        (copy / "config.json").write_bytes(text[:length])
        before = tree_hash(copy)
        assert "config.json" in refused("describe", copy), length
        assert tree_hash(copy) == before


def leaves(tree, at=()):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*at, key))


def changed(tree, at, value):
    tree = json.loads(json.dumps(tree))
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return tree


def test_a_configuration_with_keys_missing_or_of_another_kind(path, tmp_path):
    """What describing needs is missed in one line; what it does not need may be anything."""
    copy = damaged_copy(path, tmp_path / "run")
    config = json.loads((path / "config.json").read_text())
    draw = random.Random(0)
    places = [at for at in leaves(config) if at[0] in ("recipe", "data", "seeds", "source", "code", "execution")]
    values = [..., None, -1, 0, 1.5, "x", "", [], {}, True, [None], 10**30, float("nan"), "lenet5"]
    cases = [(at, ...) for at in places if len(at) <= 2] + [
        (draw.choice(places), draw.choice(values)) for _ in range(56)
    ]
    refusals = 0
    for at, value in cases:
        (copy / "config.json").write_text(json.dumps(seal(changed(config, at, value))))
        before = tree_hash(copy)
        code, out, lines = call("describe", copy)
        said = [line for line in lines if not line.startswith("checkpoint ")]
        assert (code, len(said)) in ((0, 0), (2, 1)), f"{at} = {value!r}: {code} {lines}"
        assert all(line.startswith("error: ") for line in said)
        assert bool(out) == (code == 0)
        assert tree_hash(copy) == before
        refusals += code == 2
    assert refusals > 20


def damages(path, draw):
    """(name of the damage, what does it to a copy) for the files of the checkpoints."""
    files = [file.relative_to(path) for file in sorted((path / "checkpoints").rglob("*")) if file.is_file()]
    yield "no checkpoints", lambda copy: shutil.rmtree(copy / "checkpoints")
    yield "no best", lambda copy: shutil.rmtree(copy / "best")
    yield "a file for a folder", lambda copy: (shutil.rmtree(copy / "checkpoints"), (copy / "checkpoints").touch())
    for file in files:
        yield f"delete {file}", lambda copy, file=file: (copy / file).unlink()
    for file in draw.sample(files, min(6, len(files))):
        size = (path / file).stat().st_size
        keep = draw.randrange(max(size, 1))
        yield f"truncate {file} to {keep}", lambda copy, file=file, keep=keep: os.truncate(copy / file, keep)
        bit = draw.randrange(max(size * 8, 1))

        def flip(copy, file=file, bit=bit):
            content = bytearray((copy / file).read_bytes() or b"\0")
            content[bit // 8] ^= 1 << bit % 8
            (copy / file).write_bytes(content)

        yield f"flip bit {bit} of {file}", flip


def test_damaged_checkpoints(path, tmp_path):
    """An older checkpoint stands in where there is one; else it is refused. Either way nothing is changed."""
    for number, (name, damage) in enumerate(damages(path, random.Random(1))):
        copy = damaged_copy(path, tmp_path / str(number))
        damage(copy)
        before = tree_hash(copy)
        code, out, lines = call("describe", copy)
        errors = [line for line in lines if line.startswith("error: ")]
        assert (code, len(errors)) in ((0, 0), (2, 1)), f"{name}: {code} {lines}"
        assert all(line in errors or line.startswith("checkpoint ") for line in lines), f"{name}: {lines}"
        assert bool(out) == (code == 0), name
        assert tree_hash(copy) == before, name
        shutil.rmtree(copy)


def damaged_pictures(good: bytes, jpeg: bytes, draw):
    yield "empty.png", b""
    yield "text.png", b"I am not a picture\n" * 9
    yield "html.jpg", b"<html><img src='x'></html>"
    yield "svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "zeros.png", bytes(5000)
    yield "postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    for index in range(12):
        yield f"noise{index}.png", draw.randbytes(draw.randrange(1, 4000))
        yield f"signed{index}.png", good[:8] + draw.randbytes(draw.randrange(1, 4000))
        yield f"cut{index}.png", good[: draw.randrange(1, len(good) - 60)]
        yield f"cut{index}.jpg", jpeg[: draw.randrange(1, len(jpeg) - 60)]
        flipped = bytearray(good)
        flipped[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        yield f"flipped{index}.png", bytes(flipped)
    for index, size in enumerate([(2**31 - 1,) * 2, (60_000, 60_000), (0, 0), (9_000, 8_000), (7_999, 7_999)]):
        yield f"claims{index}.png", good[:16] + struct.pack(">II", *size) + good[24:]
    for name in (
        " spaces  in it.png",
        "new\nline.png",
        "-leading.png",
        "$(touch x).png",
        "[red]markup.png",
        "ü€😀.png",
    ):
        yield name, b"broken"


def test_damaged_pictures_are_each_named_and_the_good_one_is_done(path, picture, tmp_path):
    jpeg = io.BytesIO()
    Image.open(picture).save(jpeg, "JPEG")
    before = tree_hash(path)
    cases = dict(damaged_pictures(picture.read_bytes(), jpeg.getvalue(), random.Random(2)))
    assert len(cases) > 60
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "pipe.png").parent.joinpath("sub.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    shutil.copy(picture, tmp_path / "zz good.png")
    code, out, lines = call("predict", path, tmp_path, "--json")
    assert code == 2
    read = {Path(entry["path"]).name for entry in json.loads(out)}
    assert "zz good.png" in read
    assert all(name == "zz good.png" or name.startswith("flipped") for name in read), read
    assert all(line.startswith(f"error: {tmp_path}") for line in lines)
    assert len(lines) == len(cases) + 2 - len(read), lines
    for name in [*cases, "pipe.png"]:
        named = " ".join(repr(name)[1:-1].split() if "\n" in name else name.split())
        assert (name in read) != any(f"/{named}: " in line or f"/ {named}: " in line for line in lines), name
    assert tree_hash(path) == before


def test_nothing_to_read(path, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for arguments in ([tmp_path], [tmp_path / "missing"], ["/dev/null"], [tmp_path / ("x" * 400)]):
        code, out, lines = call("predict", path, *arguments)
        assert (code, out, len(lines)) == (2, "", 1), lines
        assert lines[0].startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", "lenet5", "--size", "x", "y"],
        ["predict", "RUN", "--", "-a.png", "b\udcff.png"],
        ["evaluate", "CUT"],
        ["evaluate", "LACKING"],
    ],
    ids=lambda arguments: arguments[0] + arguments[-1][:5].strip("\udcff"),
)
def test_real_processes(arguments, path, tmp_path):
    cut = damaged_copy(path, tmp_path / "run")
    for file in (cut / "checkpoints").rglob("*"):
        if file.is_file() and "ocdbt" in str(file):
            os.truncate(file, file.stat().st_size // 2)
    lacking = damaged_copy(path, tmp_path / "lacking")
    # One file may hold what only training needs.
    for file in [*(lacking / "checkpoints").rglob("d/*")]:
        file.unlink()
    before = tree_hash(tmp_path)
    arguments = [{"RUN": str(path), "CUT": str(cut), "LACKING": str(lacking)}.get(word, word) for word in arguments]
    command_line = [sys.executable, "-m", "cnn_jax", *map(os.fsencode, arguments)]
    found = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
    lines = found.stderr.splitlines()
    assert (found.returncode, found.stdout) == (2, ""), found
    assert all(line.startswith(("error: ", "checkpoint ")) for line in lines), found.stderr
    assert sum(line.startswith("error: ") for line in lines) == (2 if "--" in arguments else 1)
    assert tree_hash(tmp_path) == before
