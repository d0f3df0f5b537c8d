"""Everything that is measured, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

from cnn_jax.benchmark.kinds import KINDS, draw
from cnn_jax.benchmark.shapes import COMPUTED, ConvShape, PoolDirection, PoolShape
from cnn_jax.benchmark.step_cases import STEP_CASES
from cnn_jax.benchmark.yardstick import Field, Yardstick
from cnn_jax.errors import InputError

Kind = Literal["step", "layer", "kind", "airbench", "mnist", "cifar"]
UNASKED = ("airbench", "mnist", "cifar")  # kinds that no run takes unasked


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure.

    Attributes:
      name: as "resnet18/32/stem/forward".
      kind: a train step, a direction of a layer, a kind of layer in all directions, a step of a large batch, or whole
        processes.
      flops: multiplications and additions of a convolution; None of anything else.
      quick: whether it is one of the few of --quick.
      build: makes the contenders and raises `DisagreementError` unless they compute the same.
    """

    name: str
    kind: Kind
    flops: int | None = None
    quick: bool = False
    build: Callable[[Yardstick], Field]


def _lenet5(batch: int) -> dict[str, ConvShape | PoolShape]:
    return {
        f"lenet5/{batch}/C1": ConvShape(batch=batch, size=32, window=5, inputs=1, outputs=6),
        f"lenet5/{batch}/C3": ConvShape(batch=batch, size=14, window=5, inputs=6, outputs=16),
        f"lenet5/{batch}/C5": ConvShape(batch=batch, size=5, window=5, inputs=16, outputs=120),
        f"lenet5/{batch}/S2": PoolShape(kind="avg", batch=batch, size=28, channels=6, window=2, strides=2),
        f"lenet5/{batch}/S4": PoolShape(kind="avg", batch=batch, size=10, channels=16, window=2, strides=2),
    }


_cifar = functools.partial(ConvShape, batch=128, window=3, padding=1)
_resnet = functools.partial(ConvShape, batch=32, window=3, padding=1)
_shortcut = functools.partial(ConvShape, batch=32, window=1, strides=2)
_max_pool = functools.partial(PoolShape, kind="max", batch=128, strides=2)

# Of each network every layer that differs from those before it.
SHAPES: dict[str, ConvShape | PoolShape] = {
    **_lenet5(128),
    **_lenet5(1024),
    "cifarnet/128/whiten": _cifar(size=32, window=2, padding=0, inputs=3, outputs=24),
    "cifarnet/128/group_1.conv_1": _cifar(size=31, inputs=24, outputs=64),
    "cifarnet/128/group_1.conv_2": _cifar(size=15, inputs=64, outputs=64),
    "cifarnet/128/group_2.conv_1": _cifar(size=15, inputs=64, outputs=256),
    "cifarnet/128/group_2.conv_2": _cifar(size=7, inputs=256, outputs=256),
    "cifarnet/128/group_3.conv_2": _cifar(size=3, inputs=256, outputs=256),
    "cifarnet/128/group_1.pool": _max_pool(size=31, channels=64, window=2),
    "cifarnet/128/group_2.pool": _max_pool(size=15, channels=256, window=2),
    "cifarnet/128/group_3.pool": _max_pool(size=7, channels=256, window=2),
    "cifarnet/128/pool": _max_pool(size=3, channels=256, window=3, strides=3),
    "resnet18/32/stem": _resnet(size=32, inputs=3, outputs=64),
    "resnet18/32/block_1.conv_1": _resnet(size=32, inputs=64, outputs=64),
    "resnet18/32/block_3.conv_1": _resnet(size=32, inputs=64, outputs=128, strides=2),
    "resnet18/32/block_3.shortcut": _shortcut(size=32, inputs=64, outputs=128),
    "resnet18/32/block_3.conv_2": _resnet(size=16, inputs=128, outputs=128),
    "resnet18/32/block_5.conv_1": _resnet(size=16, inputs=128, outputs=256, strides=2),
    "resnet18/32/block_5.shortcut": _shortcut(size=16, inputs=128, outputs=256),
    "resnet18/32/block_5.conv_2": _resnet(size=8, inputs=256, outputs=256),
    "resnet18/32/block_7.conv_1": _resnet(size=8, inputs=256, outputs=512, strides=2),
    "resnet18/32/block_7.shortcut": _shortcut(size=8, inputs=256, outputs=512),
    "resnet18/32/block_7.conv_2": _resnet(size=4, inputs=512, outputs=512),
    "conv/depthwise-3x3": ConvShape(batch=128, size=16, window=3, inputs=128, outputs=128, padding=1, groups=128),
    "conv/1x1": ConvShape(batch=128, size=16, window=1, inputs=64, outputs=256),
    "conv/strided-3x3": ConvShape(batch=128, size=16, window=3, inputs=64, outputs=128, strides=2, padding=1),
    "conv/transposed-4x4": ConvShape(
        batch=128, size=8, window=4, inputs=64, outputs=32, strides=2, padding=1, transposed=True
    ),
    "pool/max-2x2": _max_pool(size=32, channels=64, window=2),
    "pool/max-3x3": _max_pool(size=32, channels=64, window=3, padding=1),
}
_QUICK = ("lenet5/128/*", "cifarnet/128/group_1.conv_2/*", "resnet18/32/block_3.shortcut/forward", "pool/max-2x2/both")
# Both directions of a pool as one program are asked of the pools that stand for themselves; the networks' train steps
# have them so anyway.
_BOTH = "pool/"


def catalogue(seed: int | None = None) -> Iterator[Case]:
    """All cases, train steps first; the last are those that no run takes unasked.

    Kinds of layers are those drawn with a seed, or, without one, those that stand for each.
    """
    # What builds them is imported when it builds: to refuse a name no one should wait for JAX.
    for name, step_case in STEP_CASES.items():
        yield _case(f"{name}/step", "step", "steps", "build_step", step_case)
    for name, shape in SHAPES.items():
        if isinstance(shape, ConvShape):
            for direction in COMPUTED:
                yield _case(f"{name}/{direction}", "layer", "layers", "build_conv", shape, direction, flops=shape.flops)
        else:
            for direction in get_args(PoolDirection)[: 3 if name.startswith(_BOTH) else 2]:
                yield _case(f"{name}/{direction}", "layer", "layers", "build_pool", shape, direction)
    for name, kind in KINDS.items():
        shape = kind.shape if seed is None else draw(name, seed)
        shown = f"kinds/{name}" if seed is None else f"kinds/{name}/{shape}"
        yield _case(shown, "kind", "layers", "build_conv", shape, "all", flops=len(COMPUTED) * shape.flops)
    for precision in ("float32", "bfloat16"):
        yield _case(f"airbench/{precision}", "airbench", "airbench", "build_airbench", precision)
    yield _case("mnist", "mnist", "mnist", "build_mnist")
    yield _case("cifar", "cifar", "cifar", "build_cifar")


def _case(name: str, kind: Kind, module: str, builder: str, *arguments: object, flops: int | None = None) -> Case:
    def build(yardstick: Yardstick) -> Field:
        import importlib

        function = getattr(importlib.import_module(f"cnn_jax.benchmark.{module}"), builder)
        return function(name, *arguments, yardstick)

    quick = any(fnmatchcase(name, pattern) for pattern in _QUICK)
    return Case(name=name, kind=kind, flops=flops, quick=quick, build=build)


def select(patterns: Sequence[str], quick: bool, seed: int | None = None) -> list[Case]:
    """The cases that match one of the patterns, or begin with one; without any all but those `UNASKED`, or the quick.

    Raises:
        InputError: a pattern matches none, or a seed is given where nothing is drawn.
    """
    selected = _selected(list(catalogue(seed)), patterns, quick)
    if seed is not None and not any(case.kind == "kind" for case in selected):
        chosen = f"--only {' '.join(patterns)}" if patterns else "--quick"
        raise InputError(f"--seed: expected cases of kinds to draw, got none by {chosen}; add --only kinds")
    return selected


def _selected(cases: Sequence[Case], patterns: Sequence[str], quick: bool) -> list[Case]:
    if not patterns:
        return [case for case in cases if (case.quick if quick else case.kind not in UNASKED)]
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in cases):
            groups = dict.fromkeys("kinds" if case.kind == "kind" else case.name.rsplit("/", 1)[0] for case in cases)
            raise InputError(
                f"--only: expected names of cases, or of what they begin with, or patterns like '*/step', "
                f"got {pattern!r}; there are {', '.join(groups)}"
            )
    return [case for case in cases if any(_matches(case, pattern) for pattern in patterns)]


def _matches(case: Case, pattern: str) -> bool:
    """Whether a pattern means a case or a group that it belongs to."""
    return fnmatchcase(case.name, pattern) or fnmatchcase(case.name, f"{pattern}/*")
