"""The benchmark reckons rightly, and its command. Nothing here depends on how long anything takes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import pytest

from cnn_jax import command
from cnn_jax.benchmark import __main__ as benchmark
from cnn_jax.benchmark import cases, kinds, tables
from cnn_jax.benchmark.results import Result, goals
from cnn_jax.benchmark.shapes import ConvShape, PoolShape
from cnn_jax.benchmark.step_cases import STEP_CASES
from cnn_jax.benchmark.timing import (
    OURS,
    PLAIN,
    SCANNED,
    STOCK,
    TORCH,
    Contender,
    Effort,
    fastest,
    geometric_mean,
    measure,
    speedup,
    spread,
)
from cnn_jax.errors import InputError


def test_costs_are_those_of_the_definition():
    """Every product and every addition, counted one by one."""
    plain = ConvShape(batch=2, size=5, window=3, inputs=4, outputs=6, strides=2, padding=1, groups=2)
    assert plain.flops == sum(2 for _ in itertools.product(range(2), range(3), range(3), range(6), range(9), range(2)))
    transposed = ConvShape(batch=2, size=3, window=3, inputs=4, outputs=6, strides=2, padding=1, transposed=True)
    # Every input element meets every element of the kernel.
    assert transposed.out == (5, 5)
    assert transposed.flops == sum(2 for _ in itertools.product(range(2 * 3 * 3 * 4), range(3 * 3 * 6)))
    line = ConvShape(batch=2, size=(9,), window=3, inputs=4, outputs=6, padding=1, dilation=2)
    assert line.out == (7,)  # a window covers five of eleven
    assert line.flops == sum(2 for _ in itertools.product(range(2), range(7), range(6), range(3 * 4)))
    deep = ConvShape(batch=1, size=(4, 5, 6), window=(1, 2, 3), inputs=4, outputs=6, strides=(1, 2, 1))
    assert deep.out == (4, 2, 4)
    assert deep.flops == sum(2 for _ in itertools.product(range(4 * 2 * 4), range(6), range(1 * 2 * 3 * 4)))


class Fake:
    """A clock, and contenders that take so many of its ticks for a call, one number a call and then the last again."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def contender(self, name, *ticks, amount=1):
        left = list(ticks)

        def call():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Contender(name=name, call=call, wait=lambda result: result, numbers=dict, amount=amount)

    def pause(self, seconds):
        self.now += 1000.0  # never within what is measured

    def measure(self, *contenders, effort):
        return measure(contenders, effort, lambda: self.now, self.pause)


def test_contenders_take_turns_in_changing_order():
    fake = Fake()
    effort = Effort(seconds=0.0, block=0.0, least=3, most=3)
    times = fake.measure(fake.contender("a", 1), fake.contender("b", 5, 3, 4), effort=effort)
    assert "".join(fake.log) == "ab" + "ba" + "ab"
    assert times == {"a": [1, 1, 1], "b": [5, 3, 4]}


def test_a_block_is_long_enough_and_its_first_call_is_not_counted():
    fake = Fake()
    effort = Effort(seconds=0.0, block=10.0, least=2, most=2)
    # Two calls to see how many fill a block; then one that does not count, and three that do, twice.
    contender = fake.contender("a", 4, 4, 100, 3, 4, 5, 100, 6, 6, 6)
    assert fake.measure(contender, effort=effort) == {"a": [4, 6]}
    assert len(fake.log) == 2 + 2 * (1 + 3)


def test_a_call_that_does_much_is_divided():
    fake = Fake()
    effort = Effort(seconds=0.0, block=1.0, least=1, most=1)
    assert fake.measure(fake.contender("a", 12, amount=4), effort=effort) == {"a": [3]}


def test_what_takes_too_long_is_timed_once():
    fake = Fake()
    effort = Effort(seconds=0.0, block=1.0, least=3, most=3, patience=10.0)
    times = fake.measure(fake.contender("a", 2), fake.contender("b", 30, amount=2), effort=effort)
    assert times == {"a": [2, 2, 2], "b": [15, 15, 15]}
    assert fake.log.count("b") == 1


def test_rounds_go_on_while_there_is_time():
    effort = Effort(seconds=20_000.0, block=0.0, least=2, most=50)
    fake = Fake()
    assert 15 <= len(fake.measure(fake.contender("a", 1), effort=effort)["a"]) <= 20  # a pause is 1,000 ticks
    assert len(fake.measure(fake.contender("a", 10_000), effort=effort)["a"]) == 2
    fake.pause = lambda seconds: None
    assert len(fake.measure(fake.contender("a", 1), effort=effort)["a"]) == 50


def test_figures():
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == spread([1.0, 2.0, 3.0, 4.0, 5.0])
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    # The middle of the rounds' ratios, 2, 3 and 12, and not the ratio of the middle times.
    assert speedup([1.0, 2.0, 0.5], [2.0, 6.0, 6.0]).median == 3.0
    assert fastest({"a": [3.0, 3.0, 0.0], "b": [2.0, 2.0, 9.0]}, ("a", "b", "c")) == "b"
    assert fastest({"a": [3.0]}, ("b",)) is None
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert math.isnan(geometric_mean([]))


def result(name, kind="layer", **times):
    names = {"ours": OURS, "stock": STOCK, "scan": SCANNED, "torch": TORCH[0], "last": TORCH[1], "compiled": TORCH[2]}
    names["plain"] = PLAIN
    return Result(
        name=name, kind=kind, flops=None, times={names[key]: [value] for key, value in times.items()}, skipped={}
    )


def test_goals_are_measured_against_pytorchs_best():
    found = goals(
        [
            result("lenet5/128/step", "step", ours=1.0, stock=4.0, scan=0.5, torch=9.0, last=3.0, compiled=1.5),
            result("a", ours=1.0, stock=0.9, torch=4.0, last=8.0),
            result("b", ours=1.0, stock=5.0, torch=1.0),
        ]
    )
    step, *others = found
    lowest, mean = (goal for goal in others if goal.what.startswith("any layer"))
    assert step.found == {"stock": 4.0, "torch": 1.5, "scan": 2.0}
    assert step.met is False  # 1.5 of the 2 asked of PyTorch
    assert all(goal.met is None and goal.found == {} for goal in others if goal not in (lowest, mean))
    assert lowest.found == {"stock": 0.9, "torch": 1.0}
    assert lowest.met is False
    assert mean.found["torch"] == pytest.approx(2.0)
    assert mean.met is True


def test_kinds_of_layers_have_goals_with_and_without_onednn():
    found = goals(
        [
            result("a", "kind", ours=1.0, plain=2.0, stock=4.0, torch=2.0, last=1.0),
            result("b", "kind", ours=1.0, plain=4.0, stock=3.0, torch=4.0),
            result("c", ours=1.0, stock=0.1, torch=0.1),  # a layer's direction is none
        ]
    )
    lowest, mean, plain_lowest, plain_mean = (goal for goal in found if goal.what.startswith("kinds"))
    assert lowest.found == {"stock": 3.0, "torch": 1.0}
    assert mean.found["torch"] == pytest.approx(2.0)
    assert lowest.met is mean.met is True
    assert plain_lowest.found == {"stock": 0.75, "torch": 0.5}
    assert plain_mean.found["torch"] == pytest.approx(0.5**0.5)
    assert plain_lowest.met is plain_mean.met is False


def test_compiling_is_shown_and_recorded_of_what_has_it(capsys):
    step = dataclasses.replace(result("a/step", "step", ours=1.0, stock=2.0), compiled={OURS: 6.0, STOCK: 4.0})
    tables.show_compilation([result("b", ours=1.0, stock=2.0), step])
    [row] = [line for line in capsys.readouterr().out.splitlines() if "a/step" in line]
    assert row.split()[1:] == ["6.00", "4.00", "1.50"]
    assert step.to_dict()["compile_seconds"] == {OURS: 6.0, STOCK: 4.0}
    assert "compiled in 6.0 s, stock in 4.0" in tables.line(step)
    tables.show_compilation([result("b", ours=1.0, stock=2.0)])
    assert capsys.readouterr().out == ""


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A benchmark of three tiny layers; called with patterns, returns what --out holds."""
    shapes = {
        "tiny/conv": ConvShape(batch=2, size=6, window=3, inputs=2, outputs=3, padding=1),
        "tiny/pool": PoolShape(kind="max", batch=2, size=7, channels=3, window=3, strides=2, padding=1),
    }
    line = ConvShape(batch=2, size=(9,), window=3, inputs=4, outputs=4, padding=1, groups=4)
    monkeypatch.setattr(cases, "SHAPES", shapes)
    monkeypatch.setattr(cases, "KINDS", {"tiny": kinds.LayerKind(shape=line, milliseconds=1.0)})
    for name, value in (("JAX_PLATFORMS", "cpu"), ("JAX_ENABLE_COMPILATION_CACHE", "false")):
        monkeypatch.setenv(name, value)  # put back afterwards, for the command sets it

    def run(*patterns):
        out = tmp_path / "found.json"
        benchmark.run(benchmark.Options(quick=True, only=patterns, out=out))
        return json.loads(out.read_text())

    return run


def test_it_chooses_the_cpu_before_jax_looks_for_devices():
    """JAX reads its environment when it is imported, so nothing before that may import it."""
    check = "import sys, cnn_jax.benchmark.__main__, cnn_jax.benchmark.gpu; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_it_works_without_torch(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    contents = tiny("tiny/conv/forward", "tiny/pool/b*")
    assert [case["name"] for case in contents["cases"]] == ["tiny/conv/forward", "tiny/pool/backward"]
    for case in contents["cases"]:
        assert set(case["seconds"]) == {OURS, STOCK}
        for figures in case["seconds"].values():
            assert 0 < figures["low"] <= figures["median"] <= figures["high"]
            assert len(figures["rounds"]) >= 3
        assert case["speedup"]["torch"] is None is case["best_torch"]
        assert case["speedup"]["stock"]["median"] > 0
    assert {"jax", "jaxlib", "flax", "python"} <= contents["machine"]["versions"].keys()
    assert "torch" not in contents["machine"]["versions"]
    assert contents["machine"]["cores"] >= 1
    assert len(contents["machine"]["load_average"]) == 3
    assert {goal["what"] for goal in contents["goals"]} >= {"LeNet-5 step, batch 128"}
    printed = capsys.readouterr().out
    assert "pip install -e '.[bench]'" in printed
    assert "tiny/pool/backward" in printed


def test_a_kind_is_timed_with_and_without_onednn(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    contents = tiny("kinds")
    [case] = contents["cases"]
    with_onednn = contents["machine"]["onednn"]
    assert case["name"] == "kinds/tiny"
    assert set(case["seconds"]) == {OURS, STOCK, *((PLAIN,) if with_onednn else ())}
    assert set(case["speedup_without_onednn"]) == ({"stock"} if with_onednn else set())
    assert ("kinds/tiny, no oneDNN" in capsys.readouterr().out) == with_onednn


@pytest.mark.torch
def test_it_works_with_torch(tiny):
    pytest.importorskip("torch")
    contents = tiny("tiny/conv/forward")
    assert "torch" in contents["machine"]["versions"]
    [case] = contents["cases"]
    assert set(case["seconds"]) == {OURS, STOCK, *TORCH[:2]}
    best = min(TORCH[:2], key=lambda name: case["seconds"][name]["median"])
    assert case["best_torch"] == best


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--only", "lenet6*"], "'lenet6*'"),
        (["--only", "mnist", "nothing"], "'nothing'"),
        (["--out", "no/a"], "no/a"),
        (["--only", "lenet5/128", "*/step", "--seed", "1"], "got none by --only lenet5/128 */step"),
        (["--quick", "--seed", "1"], "got none by --quick"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", *options])
    with pytest.raises(SystemExit) as stop:
        command.main(benchmark.run, benchmark.Options)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert expected in captured.err


def test_patterns_select():
    names = [case.name for case in cases.select((), quick=False)]
    assert len(set(names)) == len(names) > 100
    for name in ("mnist", "cifar"):
        assert name not in names
        assert [case.name for case in cases.select((name,), quick=False)] == [name]
    assert {case.name for case in cases.select((), quick=True)} < set(names)
    chosen = [case.name for case in cases.select(("lenet5/128/C?/forward", "*/step"), quick=False)]
    assert chosen == [f"{name}/step" for name in STEP_CASES] + [f"lenet5/128/{c}/forward" for c in ("C1", "C3", "C5")]


def test_kinds_are_selected_and_drawn():
    listed = [case.name for case in cases.select(("kinds",), quick=False)]
    assert listed == [f"kinds/{name}" for name in kinds.KINDS]
    drawn = [case.name for case in cases.select(("kinds",), quick=False, seed=1)]
    assert [name.rsplit("/", 1) for name in drawn] == [
        [f"kinds/{name}", str(kinds.draw(name, 1))] for name in kinds.KINDS
    ]
    assert [case.name for case in cases.select(("kinds/1d-9",), quick=False, seed=1)] == [
        drawn[listed.index("kinds/1d-9")]
    ]
    assert not set(drawn) & {case.name for case in cases.select(("kinds",), quick=False, seed=2)}
    everything = {case.name for case in cases.select((), quick=False, seed=1)}
    assert everything >= {*drawn, "lenet5/128/step"}


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_drawn_layer_is_of_its_kind(name):
    listed = kinds.KINDS[name].shape
    drawn = [kinds.draw(name, seed) for seed in range(30)]
    assert len(set(drawn)) == len(drawn)
    for shape in drawn:
        assert (shape.rank, shape.window, shape.transposed) == (listed.rank, listed.window, listed.transposed)
        assert (shape.groups == shape.inputs) == (listed.groups == listed.inputs)
        assert (shape.groups > 1, shape.dilation != 1) == (listed.groups > 1, listed.dilation != 1)
        assert shape.inputs % shape.groups == shape.outputs % shape.groups == 0
        assert shape.outputs >= 8  # stock's gradients to one channel may end the process
        assert min(shape.out) >= 1
        sizes = (math.prod(shape.each(shape.size)) * shape.inputs, math.prod(shape.out) * shape.outputs)
        assert 4 * shape.batch * max(sizes) < 2**28  # bytes


def test_a_shape_is_told_in_short():
    plain = ConvShape(batch=2, size=8, window=3, inputs=4, outputs=6)
    assert str(plain) == "2x8x8x4-6,k3"
    other = ConvShape(
        batch=2, size=(8, 9), window=(3, 1), inputs=4, outputs=6, strides=2, padding=(1, 0), dilation=3, groups=2
    )
    assert str(other) == "2x8x9x4-6,k3x1,s2,p1x0,d3,g2"


@pytest.mark.torch
def test_steps_in_bfloat16_agree_and_are_timed(monkeypatch, capsys):
    """Those that are meant for a GPU, here without compiling PyTorch's."""
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark import gpu

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "ROUNDS", 2)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    gpu.run(gpu.Options(only=("cifarnet*",), batch=16))
    assert "cifarnet/2000" in capsys.readouterr().out


def test_steps_that_there_are_not_are_told():
    from cnn_jax.benchmark import gpu

    with pytest.raises(InputError, match=r"--only: expected some of cifarnet/2000, .*, got lenet"):
        gpu.run(gpu.Options(only=("lenet",)))
