"""What was measured, and its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn_jax.benchmark.cases import Kind
from cnn_jax.benchmark.timing import (
    OURS,
    PLAIN,
    SCANNED,
    STOCK,
    TORCH,
    Spread,
    Times,
    fastest,
    geometric_mean,
    speedup,
    spread,
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """A case's times.

    Attributes:
      name, kind, flops: of the case.
      times: by contender.
      skipped: why a contender was left out.
      elsewhere: share of the cores' time that went to others meanwhile; None where it is not known.
      compiled: seconds of tracing and compiling, by contender; of train steps only.
    """

    name: str
    kind: Kind
    flops: int | None
    times: Times
    skipped: dict[str, str]
    elsewhere: float | None = None
    compiled: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def torch(self) -> str | None:
        """PyTorch's best form here; None where there is none."""
        return fastest(self.times, TORCH)

    @property
    def against_stock(self) -> Spread | None:
        """How many times as fast as stock Flax we are."""
        return speedup(self.times[OURS], self.times[STOCK]) if STOCK in self.times else None

    @property
    def against_torch(self) -> Spread | None:
        """How many times as fast as PyTorch's best form we are."""
        return speedup(self.times[OURS], self.times[self.torch]) if self.torch else None

    @property
    def plain(self) -> Result | None:
        """The same with ours as it is without oneDNN; None where that was not timed."""
        if PLAIN not in self.times:
            return None
        times = {name: times for name, times in self.times.items() if name != PLAIN}
        return dataclasses.replace(self, name=f"{self.name}, no oneDNN", times=times | {OURS: self.times[PLAIN]})

    @property
    def in_scan(self) -> Spread | None:
        """How many times as fast our step is in a scan as it is alone."""
        return speedup(self.times[SCANNED], self.times[OURS]) if SCANNED in self.times else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; times in seconds."""

        def plain(found: Spread | None) -> dict[str, float] | None:
            return dataclasses.asdict(found) if found else None

        return {
            "name": self.name,
            "kind": self.kind,
            "flops": self.flops,
            "seconds": {
                name: dataclasses.asdict(spread(times)) | {"rounds": times} for name, times in self.times.items()
            },
            "skipped": self.skipped,
            "elsewhere": self.elsewhere,
            "compile_seconds": self.compiled,
            "speedup": {
                "stock": plain(self.against_stock),
                "torch": plain(self.against_torch),
                "scan": plain(self.in_scan),
            },
            "speedup_without_onednn": _found(self.plain),
            "best_torch": self.torch,
        }


@dataclass(frozen=True, kw_only=True)
class Goal:
    """How fast something is to be, as a speedup; None where nothing is asked.

    Attributes:
      what: in words.
      stock, torch, scan: least speedups against stock Flax, PyTorch's best form, and of a scan against single steps.
      found: the speedups measured, by the same three names; what was not measured is missing.
    """

    what: str
    stock: float | None = None
    torch: float | None = None
    scan: float | None = None
    found: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self) | {"met": self.met}

    @property
    def met(self) -> bool | None:
        """Whether all that was measured is at least what is asked; None where nothing was."""
        asked = [(self.found[key], getattr(self, key)) for key in self.found if getattr(self, key) is not None]
        return all(found >= least for found, least in asked) if asked else None


_GOALS = {
    "lenet5/128/step": Goal(what="LeNet-5 step, batch 128", stock=3.0, torch=2.0, scan=0.9),
    "lenet5/1024/step": Goal(what="LeNet-5 step, batch 1,024", stock=3.0, torch=2.0, scan=0.9),
    "cifarnet/128/step": Goal(what="CifarNet step, batch 128", stock=2.0, torch=1.0, scan=0.9),
    "resnet18/32/step": Goal(what="ResNet-18 step, batch 32", stock=1.5, torch=1.0, scan=0.9),
    "pool/max-2x2/both": Goal(what="max-pool 2x2, both directions", stock=8.0, torch=1.0),
}


def goals(results: Sequence[Result]) -> list[Goal]:
    """The project's goals with what was measured of them."""
    by_name = {result.name: result for result in results}
    rows = [dataclasses.replace(goal, found=_found(by_name.get(name))) for name, goal in _GOALS.items()]
    layers, kinds = ([result for result in results if result.kind == kind] for kind in ("layer", "kind"))
    return [
        *rows,
        *_over("any layer, each direction", layers, least_stock=0.95),
        *_over("kinds of layers", kinds, least_stock=1.0, least_torch=0.8),
        *_over("kinds of layers, no oneDNN", [plain for kind in kinds if (plain := kind.plain)], 1.0, 0.8),
    ]


def _over(what: str, results: Sequence[Result], least_stock: float, least_torch: float | None = None) -> list[Goal]:
    """What is asked of the lowest of the results' speedups, and that they are PyTorch's in the geometric mean."""
    found = [_found(result) for result in results]
    by_key = {key: [each[key] for each in found if key in each] for key in ("stock", "torch")}
    lowest = {key: min(values) for key, values in by_key.items() if values}
    means = {key: geometric_mean(values) for key, values in by_key.items() if values}
    return [
        Goal(what=f"{what}: lowest", stock=least_stock, torch=least_torch, found=lowest),
        Goal(what=f"{what}: geometric mean", torch=1.0, found=means),
    ]


def _found(result: Result | None) -> dict[str, float]:
    if result is None:
        return {}
    spreads = {"stock": result.against_stock, "torch": result.against_torch, "scan": result.in_scan}
    return {key: found.median for key, found in spreads.items() if found}
