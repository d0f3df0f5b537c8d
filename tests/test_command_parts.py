"""Parts on a command line: their texts decide which options there are, and help and messages follow."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import flax.linen as nn
import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import command, models, options
from cnn_jax.errors import InputError
from tests.toys import parts as toys


@dataclass(frozen=True)
class Recipe:
    """What decides the numbers."""

    model: nn.Module
    """The network."""
    rule: toys.Rule = toys.SGD(momentum=0.5)
    """Rule that turns gradients into updates, see `epochs`."""
    changes: tuple[toys.Change, ...] = ()
    """What is done to images."""
    epochs: int | None = None
    """Passes over the data, see `seed`."""
    names: tuple[str, ...] = ()
    """A tuple that holds no parts."""


@dataclass(frozen=True)
class Other:
    """A group with a name."""

    rule: toys.Rule = field(default_factory=toys.AdamW)
    """Another rule."""
    speed: float = 1.0
    """How fast."""


@dataclass(frozen=True)
class Config:
    """A configuration with parts at three depths."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    count: int
    """A number without default."""
    seed: int = 0
    """Where randomness begins."""
    other: Other = field(default_factory=Other)
    """The rest."""

    def __post_init__(self) -> None:
        if self.seed == 13:
            raise InputError("seed: expected another number than 13")


@dataclass(frozen=True)
class Plain:
    """A configuration without parts."""

    seed: int = 0
    """Where randomness begins."""
    size: int = 1
    """How large it is."""


def parse(line, default=None, config=Config):
    return command.parse(config, line if isinstance(line, list) else line.split(), default=default)


def read(line):
    return parse(["--model", "mlp", "--count", "1", *(line if isinstance(line, list) else line.split())])


def test_nothing_given_leaves_the_defaults():
    assert read("") == Config(Recipe(models.MLP()), 1)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("--rule adamw", toys.AdamW()),
        ("--rule=sgd(0.3)", toys.SGD(0.3)),
        ("--rule sgd(0.3,nesterov=True) --rule.no-nesterov", toys.SGD(0.3)),
        ("--rule.nesterov", toys.SGD(momentum=0.5, nesterov=True)),
        ("--rule.learning-rate 2 --rule AdamW(1,0.5)", toys.AdamW(2.0, 0.5)),
        ("--rule.learning_rate=2 --rule sgd --rule adamw", toys.AdamW(2.0)),
        ("--rule LinearWarmup(3)", toys.LinearWarmup(3)),
        ("--rule linear_warmup(3) --rule.ends 1 2 --rule.form cosine", toys.LinearWarmup(3, "cosine", (1.0, 2.0))),
        ("--rule linear_warmup(3,names=('a',)) --rule.names b c", toys.LinearWarmup(3, names=("b", "c"))),
        ("--rule linear_warmup(3,names=('a',)) --rule.names", toys.LinearWarmup(3)),
    ],
)
def test_a_part_is_given_by_its_text_and_by_fields(line, rule):
    config = read(line)
    assert config == Config(Recipe(models.MLP(), rule), 1)
    assert [type(value) for value in vars(config.recipe.rule).values()] == [type(v) for v in vars(rule).values()]


def test_parts_of_groups_have_the_groups_names():
    config = read("--other.rule sgd --other.rule.momentum 0.25 --rule.momentum 0.75 --other.speed 3")
    assert config.other == Other(toys.SGD(momentum=0.25), 3.0)
    assert config.recipe.rule == toys.SGD(momentum=0.75)


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("--changes flip", (toys.Flip(),)),
        ("--changes none", ()),
        ("--changes crop --changes.padding 2", (toys.Crop(2),)),
        ("--changes crop(2)|flip|mixup(.5)", (toys.Crop(2), toys.Flip(), toys.Mixup(0.5))),
    ],
)
def test_several_parts(line, changes):
    assert read(line).recipe.changes == changes


def test_a_model_is_given_with_its_fields():
    model = parse("--count 1 --model convnet(num_classes=3) --model.filters 3 4 --model.activation tanh").recipe.model
    assert model == models.ConvNet(filters=(3, 4), activation="tanh", num_classes=3)
    assert isinstance(model.filters, tuple)


def test_numbers_of_numpy_are_defaults_too():
    default = Config(Recipe(models.MLP(features=[8]), toys.SGD(np.float32(0.5), np.int64(0), np.bool_(True))), 1)
    assert parse("", default) == default
    changed = parse("--rule.no-nesterov --model.activation tanh", default).recipe
    assert changed.rule == toys.SGD(0.5)
    assert changed.model == models.MLP(features=(8,), activation="tanh")


def test_an_instance_has_the_defaults():
    default = Config(Recipe(models.LeNet5(), changes=(toys.Crop(3),)), 5, seed=2)
    assert parse("", default) == default
    changed = parse("--changes.padding 4 --model.activation relu", default)
    assert changed == Config(Recipe(models.LeNet5(activation="relu"), changes=(toys.Crop(4),)), 5, seed=2)


def test_an_instance_without_parts_has_the_defaults_too():
    assert parse("--size 2", Plain(seed=3), Plain) == Plain(seed=3, size=2)


MINE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from cnn_jax.toy_parts import Rule
if TYPE_CHECKING:
    import somewhere

@dataclass(frozen=True)
class Mine(Rule):
    '''A rule of mine.'''

    power: float = 1.0
    '''How strong it is.'''
    table: object = None
    '''Anything.'''
    other: somewhere.Thing = None
    '''What only type checkers know.'''
"""


def test_a_part_of_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    rule = read("--rule mine.py:Mine(table={'a':1}) --rule.power 3").recipe.rule
    assert (type(rule).__name__, rule.power, rule.table) == ("Mine", 3.0, {"a": 1})
    with pytest.raises(SystemExit):
        read("--rule mine.py:Mine --help")
    text = " ".join(capsys.readouterr().out.split())
    assert "rule options, of Mine:" in text
    assert "--rule.power NUMBER How strong it is. (default: 1)" in text
    assert "--rule.table" not in text
    assert "--rule.other" not in text


SAID = [
    ("--rule sdg", "--rule: expected a rule, one of adamw, linear_warmup, sgd, got sdg; did you mean sgd?"),
    ("--rule", "--rule: expected a text such as adamw(), got nothing"),
    ("--rule --seed 3", "--rule: expected a text such as adamw(), got nothing"),
    ("--rule sgd(momentum=2)", "--rule: sgd: expected momentum to be a number from 0 to below 1, got 2.0"),
    ("--rule.momentum 2", "--rule.momentum: expected a number from 0 to below 1, got 2.0"),
    ("--other.rule sgd --other.rule.momentum 2", "--other.rule.momentum: expected a number from 0 to below 1, got 2.0"),
    ("--rule.momentum x", "--rule.momentum: expected a number, got 'x'"),
    ("--rule.momentum", "--rule.momentum: expected a number, got nothing"),
    ("--rule.nesterov x", "--rule.nesterov: expected no value, got 'x'"),
    ("--rule adamw --rule.momentum 1", "there is no option --rule.momentum; adamw has --rule.learning-rate"),
    ("--rule linear_warmup", "--rule: linear_warmup: expected steps, got none; its fields are steps"),
    ("--rule linear_warmup(3) --rule.form Line", "--rule.form: expected one of line, cosine, got 'Line'; did you mean"),
    ("--rules sgd", "there is no option --rules; did you mean --rule"),
    ("--momentum 1", "there is no option --momentum; did you mean --rule.momentum?"),
    ("--changes crop flip", "--changes: expected a text such as crop(), or several joined by |, got also 'flip'"),
    ("--changes crop|flop", "--changes: expected a change, one of crop, flip, mixup, got flop; did you mean"),
    ("--changes.padding 3", "--changes.padding: expected one part in --changes to set a field of, got none"),
    ("--changes crop|flip --changes.padding 3", "--changes.padding: expected one part in --changes to set a field of"),
    ("--changes flip --changes.padding 3", "there is no option --changes.padding; flip has no fields that are options"),
    ("--model lenet6", "--model: expected a model, one of cifarnet, convnet"),
    ("--model convnet --model.filters 3 0", "--model.filters: expected each to be an int of at least 1, got 0"),
    ("--model lenet5 --model.activation rleu", "--model.activation: expected one of elu"),
    ("--model.num-classes 3", "--model.num-classes: expected no such option, as the data decide it"),
    ("--rule missing.py:Mine", "--rule: missing.py: expected a Python file with the part's class"),
    ("--seed 13", "--seed: expected another number than 13"),
    ("--seed x", "--seed: expected a whole number, got 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "said"), SAID, ids=lambda text: text[:40])
def test_a_mistake_is_named_in_a_line(line, said):
    with pytest.raises(InputError) as refusal:
        read(line)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


WORDS = """
    -- - | none x 1 0.5 nan -1 --rule --rule= --rule.momentum --rule.momentum=2 --rule.nesterov
    --rule.no-nesterov --rule.x --rule. --other.rule --other --model.filters --model.num-classes --model
    --changes --changes.padding --changes.0.padding --seed --names --help-me sgd adamw() sgd(0.1 crop|flip
    crop(3) convnet lenet5(activation='relu') linear_warmup(steps=3) x.py:Y tests.toys:Y mlp((3,))
"""


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=6))
def test_any_command_line_is_read_or_refused_in_a_line(words):
    said = "a line"
    try:
        read(words)
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--count 1", "the command needs --model: the network; see --help"),
        ("--model mlp", "the command needs --count: a number without default; see --help"),
    ],
)
def test_what_has_no_default_is_needed(line, said):
    with pytest.raises(InputError) as refusal:
        parse(line)
    assert str(refusal.value) == said


@pytest.fixture
def shown(monkeypatch, capsys):
    def call(line, width=80):
        monkeypatch.setattr("sys.argv", ["program"])
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as stop:
            parse(f"{line} --help")
        assert stop.value.code == 0
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    "line", ["--model mlp", "--model convnet --rule linear_warmup(3) --changes crop", "--model mlp --changes crop|flip"]
)
def test_help_lists_the_options_there_are(shown, capsys, line):
    default, _ = options.take_texts(Config, line.split())
    listed = re.findall(r"^  (--[a-z0-9.-]*)", shown(line), re.MULTILINE)
    own = [option.name for group in options.groups(Config, default=default) for option in group.options]
    assert listed.count("--help") == 1
    assert sorted(listed) == sorted([*own, "--help"])
    assert (
        ("--model.filters" in listed)
        == ("--rule.steps" in listed)
        == ("--changes.padding" in listed)
        == ("convnet" in line)
    )
    assert "--model.num-classes" not in listed
    registry = options.registry(options.places(Config, default=default), [])
    with pytest.raises(SystemExit):
        tyro.cli(Config, args=["--help"], default=default, registry=registry, config=(tyro.conf.FlagCreatePairsOff,))
    theirs = re.findall(r"^(?:│ |  )(--[a-z][a-z0-9.-]*)", capsys.readouterr().out, re.MULTILINE)
    texts = {member.flag for member in options.places(Config, default=default)}
    assert {*listed, "--help"} == {*theirs, *texts, "--help"}


def test_help_says_what_parts_and_their_fields_are(shown):
    text = " ".join(shown("--model convnet --rule sgd(0.5)").split())
    for words in (
        "options: --epochs N Passes over the data, see --seed. --names",
        "rule options, of sgd: --rule PART Rule that turns gradients into updates, see --epochs. One of adamw, "
        "linear_warmup, sgd with fields in parentheses, or FILE.py:CLASS(...). (default: sgd(learning_rate=0.5))",
        "--rule.momentum NUMBER Share of the last update in the next, see --rule.nesterov. (default: 0)",
        "changes options: --changes PARTS What is done to images. Some of crop, flip, mixup with fields in "
        "parentheses, or FILE.py:CLASS(...), joined by |; or none. (default: none)",
        "model options, of convnet: --model PART",
        "--model.kernel-size N Height and width of every filter. (default: 3)",
        "other options: The rest. --other.speed",
        "other.rule options, of adamw: --other.rule PART Another rule.",
    ):
        assert words in text, words


@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fills_the_lines_there_are(shown, width):
    lines = shown("--model convnet --changes crop", width).splitlines()
    longest = max(len(word) for line in lines for word in line.split())
    assert max(map(len, lines)) <= max(min(width, 100), longest + 6)
    for line, following in itertools.pairwise(lines):
        indent = len(line) - len(line.lstrip())
        if indent >= 6 and indent == len(following) - len(following.lstrip()):
            assert len(line) + 1 + len(following.split()[0]) > min(width, 100), (line, following)
