"""Texts of parts: each is its constructor call, and reading it gives an equal part; what is wrong is said in a line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax import models
from cnn_jax.errors import InputError
from cnn_jax.parts import files_of, parse, parse_several, registry, short_text, text
from tests.toys import parts as toys

MY = """
from dataclasses import dataclass
import flax.linen as nn
import helper_of_mine
from cnn_jax.toy_parts import Rule

class Tiny(nn.Module):
    depth: int = 1

    def __call__(self, images, train=False):
        return images

@dataclass(frozen=True)
class Mine(Rule):
    power: float = helper_of_mine.POWER

    def __post_init__(self):
        if self.power > 9:
            raise ValueError("too much\\nof it")
"""


@dataclass(frozen=True)
class Here(toys.Rule):
    """A part of this file, which is not the package's."""

    depth: int = 3
    other: object = None


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file of a user's in the folder `my parts` of the current one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my parts"
    folder.mkdir()
    (folder / "helper_of_mine.py").write_text("POWER = 2.0")
    (folder / "my_model.py").write_text(MY)
    yield folder / "my_model.py"
    sys.modules.pop("helper_of_mine", None)


def test_the_texts_of_parts():
    sgd = toys.SGD(0.1, momentum=0.9)
    assert text(sgd) == "sgd(learning_rate=0.1, momentum=0.9, nesterov=False)"
    assert short_text(sgd) == "sgd(momentum=0.9)"
    assert text((toys.Crop(3), toys.Flip())) == "crop(padding=3) | flip()"
    assert text(()) == "none"
    assert text(models.LeNet5(activation="relu"), models.MODELS) == "lenet5(num_classes=10, activation='relu')"
    assert short_text(models.LeNet5(activation="relu"), models.MODELS) == "lenet5(activation='relu')"
    assert text(models.ResNet([2], features=8)) == (
        "cnn_jax.models.resnet:ResNet(stage_sizes=(2,), num_classes=10, features=8, zero_init=False, blur=False, "
        "output_std=None)"
    )


def test_what_a_kind_has():
    assert list(registry(toys.Change)) == ["crop", "flip", "mixup"]
    assert list(registry(toys.Move)) == ["crop", "flip"]
    assert list(registry(toys.Rule)) == ["adamw", "linear_warmup", "sgd"]  # Here is not the package's


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6)
TEXTS = st.text(st.characters(codec="utf-8"))
LITERALS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
RULES = st.one_of(
    st.builds(
        toys.SGD,
        st.floats(2.0**-126, 3e38),
        st.floats(0, 1, exclude_max=True) | st.sampled_from([np.float32(0.5), np.int64(0)]),
        st.booleans() | st.sampled_from([np.bool_(True)]),
    ),
    st.builds(toys.AdamW, NUMBERS, NUMBERS),
    st.builds(
        toys.LinearWarmup,
        st.integers(),
        st.sampled_from(["line", "cosine"]),
        st.none() | st.tuples(NUMBERS, NUMBERS),
        st.lists(TEXTS).map(tuple),
        TEXTS,
    ),
    st.builds(Here, st.integers(), LITERALS),
)


@given(RULES)
def test_reading_a_text_gives_an_equal_part(rule):
    assert parse(text(rule), toys.Rule) == rule
    assert parse(short_text(rule), toys.Rule) == rule


@given(st.lists(RULES, max_size=4).map(tuple))
def test_reading_the_text_of_several_gives_equal_parts(rules):
    assert parse_several(text(rules), toys.Rule) == rules


@pytest.mark.parametrize("name", models.MODELS)
def test_models_are_read_back(name):
    model = models.build(name, num_classes=10 if name == "lenet5_original" else 7)
    assert parse(text(model, models.MODELS), nn.Module, models.MODELS) == model
    assert parse(text(model), nn.Module) == model  # by the module it is in


def test_values_are_written_as_literals():
    part = Here(other=[Path("a/b"), np.float32(0.5), (np.int64(3), np.str_("x"))])
    assert text(part).endswith("Here(depth=3, other=('a/b', 0.5, (3, 'x')))")


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("sgd", toys.SGD()),
        (" sgd ( ) ", toys.SGD()),
        ("SGD(1)", toys.SGD(1.0)),
        ("sgd(.5, 0, True)", toys.SGD(0.5, 0.0, True)),
        ("adam_w(weight_decay=-1e-3)", toys.AdamW(weight_decay=-1e-3)),
        ("AdamW(5, weight_decay=0,)", toys.AdamW(5.0, 0.0)),
        ("linearwarmup(-3, ends=[1, 2])", toys.LinearWarmup(-3, ends=(1.0, 2.0))),
        ("LinearWarmup(3, place='a.py:b()', names=('|', ') | flip('))", None),
        ("cnn_jax.toy_parts:SGD(0.5)", toys.SGD(0.5)),
    ],
)
def test_forms_that_are_read(written, part):
    found = parse(written, toys.Rule)
    assert found == (part or toys.LinearWarmup(3, place="a.py:b()", names=("|", ") | flip(")))
    assert [type(each) for each in vars(found).values()] == [type(each) for each in vars(part or found).values()]


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("", ()),
        (" none ", ()),
        ("flip", (toys.Flip(),)),
        ("crop(4)|flip() | mixup(alpha=1)", (toys.Crop(4), toys.Flip(), toys.Mixup(1.0))),
    ],
)
def test_several_are_read(written, parts):
    assert parse_several(written, toys.Change) == parts


WRONG = [
    ("", "expected a rule such as adamw(), got ''"),
    ("sgd(0.1", "got 'sgd(0.1' ('(' was never closed)"),
    ("sgd()()", "expected a rule such as adamw()"),
    ("3", "expected a rule such as adamw(), got '3' (not a constructor call)"),
    ("a\0b", "expected a rule such as"),
    ("(" * 500, "expected a rule such as"),
    ("sdg()", "one of adamw, linear_warmup, sgd, got sdg; did you mean sgd?"),
    ("frobnicate", "one of a file is FILE.py:CLASS(...)"),
    ("flip()", "one of adamw, linear_warmup, sgd, got flip"),
    ("sgd(0.1, 0, False, 3)", "sgd: expected at most 3 values, got 4; its fields are learning_rate, momentum"),
    ("sgd(momentun=0.1)", "sgd: expected no momentun; its fields are learning_rate, momentum, nesterov; did you mea"),
    ("sgd(0.1, learning_rate=0.1)", "sgd: expected learning_rate once, got it twice"),
    ("sgd(momentum=0.1, momentum=0.1)", "sgd: expected momentum once"),
    ("linear_warmup()", "linear_warmup: expected steps, got none; its fields are steps, form"),
    ("sgd(True)", "sgd: expected learning_rate to be a number, got True"),
    ("sgd('0.1')", "sgd: expected learning_rate to be a number, got '0.1'"),
    ("sgd(nesterov=1)", "sgd: expected nesterov to be True or False, got 1"),
    ("sgd(1%s)" % ("0" * 400), "sgd: expected learning_rate to be a number that a float holds"),
    ("sgd(x)", "expected learning_rate to be a number, a text, None, or a tuple of these, got x; a text needs quotes"),
    ("sgd(1 + 1)", "got 1 + 1"),
    ("sgd(*(1, 2))", "got *(1, 2)"),
    ("sgd(**{'momentum': 0.1})", "sgd: expected no"),
    ("sgd(open('x'))", "got open('x')"),
    ("sgd({[]: 1})", "got {[]: 1}"),
    ("sgd(2)|", "expected a rule such as"),
    ("linear_warmup(1.0)", "linear_warmup: expected steps to be a whole number, got 1.0"),
    ("linear_warmup(1, 'Line')", "expected form to be one of 'line', 'cosine' (did you mean 'line'?), got 'Line'"),
    ("linear_warmup(1, ends=(1,))", "expected ends to be (a number, a number) or None, got (1,)"),
    ("linear_warmup(1, ends=('a', 2))", "expected ends to be (a number, a number) or None"),
    ("linear_warmup(1, names='abc')", "expected names to be a tuple, each a text in quotes, got"),
    ("sgd(momentum=2)", "sgd: expected momentum to be a number from 0 to below 1, got 2.0"),
    ("no_such_module_of_anybody:Sgd()", "no_such_module_of_anybody: expected a module that can be imported, got"),
    ("missing.py:Sgd()", "missing.py: expected a Python file with the part's class, got no such file or directory"),
    ("tests.py", "expected a rule such as adamw(), got 'tests.py' (not a constructor call)"),
    ("cnn_jax.toy_parts:Nothing", "cnn_jax.toy_parts: expected a rule named Nothing, but it has SGD"),
    ("cnn_jax.toy_parts:Flip", "cnn_jax.toy_parts:Flip: expected a rule, a class that derives from cnn_jax"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "said"), WRONG, ids=lambda text: text[:30].replace("\0", "0"))
def test_a_wrong_text_is_refused_in_a_line(written, said):
    with pytest.raises(InputError) as refusal:
        (parse_several if "|" in written else parse)(written, toys.Rule)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


@given(st.text() | st.text(alphabet="sgd(0.1, =*|:py'\"[]{})\n"))
def test_any_text_is_read_or_refused_in_a_line(written):
    said = ""
    try:
        parse_several(written, toys.Rule)
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


def test_models_are_told_apart_from_parts():
    with pytest.raises(InputError, match=r"expected a model, one of cifarnet, .* got lenet6; did you mean lenet"):
        parse("lenet6()", nn.Module, models.MODELS)
    with pytest.raises(InputError, match="activation"):
        parse("lenet5(activation='rleu')", nn.Module, models.MODELS)
    with pytest.raises(InputError, match="lenet5: expected activation to be one of"):
        parse("lenet5(activation=3)", nn.Module, models.MODELS)


def test_a_file_is_read_and_written(mine):
    model = parse("my parts/my_model.py:Tiny(depth=2)", nn.Module, models.MODELS)
    assert (type(model).__name__, model.depth) == ("Tiny", 2)
    assert text(model, models.MODELS) == "my parts/my_model.py:Tiny(depth=2)"
    assert parse(text(model), nn.Module) == model
    rule = parse(f"{mine}:Mine", toys.Rule)
    assert rule.power == 2.0
    assert files_of(model, (rule, toys.Flip()), toys.SGD()) == {"my parts/my_model.py": mine}
    assert str(mine.parent) not in sys.path
    assert sorted(path.name for path in mine.parent.iterdir() if path.is_file()) == ["helper_of_mine.py", "my_model.py"]


def test_a_file_is_absolute_from_elsewhere(mine, tmp_path, monkeypatch):
    rule = parse("my parts/my_model.py:Mine()", toys.Rule)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert text(rule) == f"{mine}:Mine(power=2.0)"
    assert parse(text(rule), toys.Rule) == rule


def test_a_copy_is_read_instead_of_a_file(mine, tmp_path):
    copy = tmp_path / "run" / "parts" / "0.py"
    copy.parent.mkdir(parents=True)
    copy.write_text(mine.read_text().replace("import helper_of_mine\n", "").replace("helper_of_mine.POWER", "5.0"))
    written = "my parts/my_model.py:Mine()"
    rule = parse(written, toys.Rule, files={"my parts/my_model.py": copy})
    assert rule.power == 5.0
    assert text(rule) == "my parts/my_model.py:Mine(power=5.0)"
    assert files_of(rule) == {"my parts/my_model.py": copy}
    assert parse(written, toys.Rule).power == 2.0
    assert text(rule) == "my parts/my_model.py:Mine(power=5.0)"


def test_a_changed_file_is_read_again(mine):
    first = parse("my parts/my_model.py:Tiny()", nn.Module)
    mine.write_text(MY.replace("depth: int = 1", "depth: int = 7"))
    assert parse("my parts/my_model.py:Tiny()", nn.Module).depth == 7
    mine.write_text(MY)
    assert parse("my parts/my_model.py:Tiny()", nn.Module) == first


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", "got ZeroDivisionError: division by zero"),
        ("def", "got SyntaxError: invalid syntax"),
        ("import sys; sys.exit(3)", "got SystemExit: 3"),
        ("raise RuntimeError('two\\nlines')", "got RuntimeError: two lines"),
        ("\0", "got "),
        ("def Mine(): pass", "expected a rule named Mine, but it has none"),
        ("class Mine: pass", "mine.py:Mine: expected a rule, a class that derives from cnn_jax.toy_parts.Rule"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path, monkeypatch, code, said):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(code)
    before = list(sys.modules)
    with pytest.raises(InputError) as refusal:
        parse("mine.py:Mine()", toys.Rule)
    assert said in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1
    if "got" in said:
        assert refusal.value.__cause__ is not None
        assert list(sys.modules) == before


def test_a_users_own_check_is_told(mine):
    with pytest.raises(InputError, match=r"^Mine: too much of it$"):
        parse("my parts/my_model.py:Mine(10)", toys.Rule)


def test_what_cannot_be_written_down():
    @dataclass(frozen=True)
    class Local(toys.Rule):
        pass

    with pytest.raises(InputError, match="Local: expected a class at the top level of a file"):
        text(Local())
    for value in (float("nan"), object(), np.zeros(3), toys.SGD(), len):
        with pytest.raises(InputError, match="Here: expected other to be a number, a text, None, or a tuple of these"):
            text(Here(other=value))


def run(*command, cwd, **options):
    return subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, **options)


SCRIPT = """
from dataclasses import dataclass
from cnn_jax.parts import Part, parse, text

class Kind(Part):
    pass

@dataclass(frozen=True)
class Mine(Kind):
    power: int = 2

if __name__ == "__main__":
    print(text(Mine()), parse("script.py:Mine(power=2)", Kind) == Mine())
"""


def test_a_script_names_its_own_classes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run("script.py", cwd=tmp_path)
    assert done.stdout == "script.py:Mine(power=2) True\n", done.stderr


def test_a_class_of_no_file_is_refused(tmp_path):
    done = run("-c", SCRIPT, cwd=tmp_path)
    assert "Mine: expected a class of a Python file" in done.stderr.splitlines()[-1]
