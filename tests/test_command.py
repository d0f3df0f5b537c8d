"""Command lines: what help says of each option, and one line for each mistake that names what was meant."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cnn_jax import cli, command, options
from cnn_jax.benchmark import __main__ as benchmark
from cnn_jax.errors import InputError

ROOT = Path(__file__).parent.parent


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_told", ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def configs():
    found = {
        name: script(name).Config for name in ("lenet5", "lecun1998", "cifar", "detect_digits", "airbench", "imagenet")
    }
    return found | {"cnn-jax": cli.COMMANDS, "benchmark": benchmark.Options}


@pytest.fixture
def shown(monkeypatch, capsys, configs):
    """The help of a program, of which the arguments may choose a command, in a terminal of some columns."""

    def call(name, *arguments, width=80):
        monkeypatch.setattr(sys, "argv", [name])
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as stop:
            command.parse(configs[name], [*arguments, "--help"], "About it.\n\n    example    what it does")
        assert stop.value.code == 0
        return capsys.readouterr().out

    return call


PROGRAMS = [
    ("lenet5",),
    ("lecun1998",),
    ("cifar",),
    ("detect_digits",),
    ("airbench",),
    ("imagenet",),
    ("benchmark",),
] + [("cnn-jax", *name) for name in ([], *([name] for name in options.commands(cli.COMMANDS)))]


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_help_lists_what_tyro_reads(shown, configs, program):
    import tyro

    config = configs[program[0]]
    config = options.commands(config)[program[1]] if len(program) > 1 else config
    out = io.StringIO()
    there = options.places(config) if isinstance(config, type) else []
    default, _ = options.take_texts(config, []) if there else (None, [])
    defaults = {} if default is None else {"default": default, "registry": options.registry(there, [])}
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        tyro.cli(config, args=["--help"], config=(tyro.conf.FlagCreatePairsOff,), **defaults)
    ours = re.findall(r"^  (--[a-z0-9.-]*)", shown(*program), re.MULTILINE)
    theirs = re.findall(r"^(?:│ |  )(--[a-z][a-z0-9.-]*)", out.getvalue(), re.MULTILINE)
    whole = {member.flag for member in there}  # which we read ourselves
    assert whole <= set(ours)
    assert sorted({*ours, "--help"} - whole) == sorted({*theirs, "--help"})


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_help_fills_the_lines_there_are(shown, program, width):
    text = shown(*program, width=width)
    lines = text.splitlines()
    words = max(len(word) for line in lines for word in [line.strip()] if " " not in word) if width == 40 else 0
    assert max(map(len, lines)) <= max(min(width, 100), words + 2, 40)
    for word in ("None)", "default: )", "False", "True", "0.0)", "`out`"):
        # Of airbench's groups and imagenet's optimiser the texts have values that are written so.
        assert word not in text or program in (("airbench",), ("imagenet",)), word
    # No line ends early that had room for the next word: docstrings are not wrapped twice.
    for line, following in itertools.pairwise(lines):
        indent = len(line) - len(line.lstrip())
        if indent >= 6 and indent == len(following) - len(following.lstrip()):
            assert len(line) + 1 + len(following.split()[0]) > min(width, 100), (line, following)


def test_a_switch_that_is_on_is_told_by_what_turning_it_off_does(shown):
    about = " ".join(shown("lenet5").split("--no-report")[1].split("--help")[0].split())
    assert about.startswith("Do not write report.html")
    assert "by default 60 for digits and 10 for anything else" in " ".join(shown("lenet5").split())


SAID = [
    ("cnn-jax", "", "a command, one of train, evaluate"),
    ("cnn-jax", "evalute", "did you mean evaluate?"),
    ("cnn-jax", "--run x", "a command first"),
    ("cnn-jax", "runs/a evaluate", "a command first"),
    ("cnn-jax", "evaluate", "evaluate needs RUN: "),
    ("cnn-jax", "evaluate --json", "evaluate needs RUN: "),
    ("cnn-jax", "describe", "describe needs MODEL|RUN: "),
    ("cnn-jax", "evaluate a b", "nothing more than RUN, got 'b'"),
    ("cnn-jax", "evaluate a --jsno", "evaluate has no option --jsno; did you mean --json?"),
    ("cnn-jax", "evaluate a --json=yes", "--json: expected no value, got 'yes'"),
    ("cnn-jax", "evaluate a --top 3", "evaluate has no option --top;"),
    ("cnn-jax", "evaluate a -x", "evaluate has no option -x;"),
    ("cnn-jax", "evaluate a --split", "--split: expected a text, got nothing"),
    ("cnn-jax", "predict a b --tpo 3", "predict has no option --tpo; did you mean --top?"),
    ("cnn-jax", "predict a b --top three", "--top: expected a whole number, got 'three'"),
    ("cnn-jax", "predict a b --top=1.5", "--top: expected a whole number, got '1.5'"),
    ("cnn-jax", "describe a --size 32", "--size: expected two whole numbers or None, got '32'"),
    ("cnn-jax", "describe a --size 1 2 3", "--size: expected two whole numbers or None, got '1' '2' '3'"),
    ("cnn-jax", "describe a --format pdf", "--format: expected one of text, markdown, html, got 'pdf'"),
    ("cnn-jax", "describe a --format HTML", "did you mean html?"),
    ("lenet5", "--epochs", "--epochs: expected a whole number or None, got nothing"),
    ("lenet5", "--epochs many", "got 'many'"),
    ("lenet5", "--epochs 0", "--epochs: expected a whole number >= 1, got 0"),
    ("lenet5", "--epochs 1 2", "--epochs: expected a whole number or None, got also '2'"),
    ("lenet5", "--optimizer Adamm", "got Adamm; did you mean adam?"),
    ("lenet5", "--learning-rate 1", "there is no option --learning-rate; did you mean --optimizer.learning-rate?"),
    ("lenet5", "--data.nmae mnist", "did you mean --data.name?"),
    ("lenet5", "--epoch 3", "did you mean --epochs?"),
    ("lenet5", "--report", "did you mean --no-report?"),
    ("lenet5", "--no-report x", "--no-report: expected no value, got 'x'"),
    ("lenet5", "--onednn true", "--onednn: expected no value, got 'true'"),
    ("lenet5", "junk", "expected an option, which begins with --, got 'junk'"),
    ("lenet5", "-x", "there is no option -x"),
    ("lenet5", "--resume", "--resume: expected the folder of the run in --out, got none"),
    ("lenet5", "--resume --overwrite --out x", "--resume, --overwrite: expected at most one of the two"),
    ("lenet5", "--optimizer.learning-rate -1", "--optimizer.learning-rate: expected a positive number"),
    ("lenet5", "--pixel-range 1", "--pixel-range: expected two numbers or None, got '1'"),
    ("lenet5", "--validation x", "--validation: expected a number, got 'x'"),
    ("lenet5", "--schedule step --schedule.at x", "--schedule.at: expected numbers, got 'x'"),
    ("lenet5", "--model.activation Tanh", "did you mean tanh?"),
    ("lenet5", "--out", "--out: expected a path or None, got nothing"),
    ("lecun1998", "--networks", "--networks: expected at least one of lenet1"),
    ("cifar", "--networks", "--networks: expected at least one of resnet20"),
    ("lecun1998", "--networks lenet1 lenet9", "got 'lenet9'; did you mean lenet"),
    ("lecun1998", "--epochs 0", "--epochs: expected a whole number >= 1"),
    ("lecun1998", "--replicas 0", "--replicas: expected a whole number from 1"),
    ("detect_digits", "--data.scenes 0", "--data.scenes: expected a whole number >= 1"),
    ("benchmark", "--oly x", "did you mean --only?"),
    ("benchmark", "--onednn", "did you mean --no-onednn?"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "line", "said"), SAID, ids=lambda text: text[:40])
def test_a_mistake_is_named_in_a_line(configs, monkeypatch, program, line, said):
    monkeypatch.setattr(sys, "argv", [program])
    monkeypatch.setenv("COLUMNS", "40")  # messages are not wrapped by the terminal's width
    with pytest.raises(InputError) as refusal:
        command.parse(configs[program], line.split())
    message = str(refusal.value)
    assert said in message
    assert "\n" not in message
    assert "Error parsing" not in message
    assert len(message) < 250


@dataclass(frozen=True)
class Nothing:
    """No options."""


def test_a_signal_that_an_import_makes_another_error_of_ends_the_command_all_the_same(capsys, monkeypatch):
    def run(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise ImportError("an error while initializing the extension") from error

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as stop:
        command.main(run, Nothing)
    assert stop.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped by SIGTERM\n"
