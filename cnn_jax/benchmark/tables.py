"""The results as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnn_jax import terminal
from cnn_jax.benchmark.results import Goal, Result
from cnn_jax.benchmark.timing import OURS, SCANNED, STOCK, TORCH, Spread, spread

HEADER = (
    "case", "ours ms", "GF/s", "stock ms", "GF/s", "torch ms", "ch.-last", "compile", "GF/s",
    "vs stock", "vs torch", "in scan",
)  # fmt: skip


def show_results(results: Sequence[Result]) -> None:
    """Prints a row a case: medians in milliseconds, speedups with their quartiles."""
    shown = [each for result in results for each in (result, result.plain) if each]
    terminal.show_table(HEADER, [_row(result) for result in shown])
    reasons = dict.fromkeys(f"{name}: {reason}" for result in results for name, reason in result.skipped.items())
    for reason in reasons:
        terminal.say(f"left out: {terminal.one_line(reason)}")
    shares = {result.name: result.elsewhere for result in results if result.elsewhere is not None}
    if shares:
        worst = max(shares, key=shares.__getitem__)
        mean = sum(shares.values()) / len(shares)
        terminal.say(f"other processes used {mean:.1%} of the cores meanwhile, at most {shares[worst]:.1%} ({worst})")


def _row(result: Result) -> list[str]:
    def rate(name: str | None) -> str:
        if name is None or name not in result.times or result.flops is None:
            return ""
        return f"{result.flops / spread(result.times[name]).median / 1e9:.0f}"

    ours, stock = (milliseconds(result, name) for name in (OURS, STOCK))
    torch = [milliseconds(result, name) for name in TORCH]
    ratios = [_ratio(result.against_stock), _ratio(result.against_torch), _ratio(result.in_scan)]
    return [result.name, ours, rate(OURS), stock, rate(STOCK), *torch, rate(result.torch), *ratios]


def milliseconds(result: Result, name: str) -> str:
    """The median of a contender with three digits; nothing where it was not timed."""
    if name not in result.times:
        return ""
    value = 1e3 * spread(result.times[name]).median
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def _ratio(found: Spread | None) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if found else ""


def show_compilation(results: Sequence[Result]) -> None:
    """Prints how long train steps took to compile, where any was measured."""
    rows = [
        [result.name, f"{ours:.2f}", f"{stock:.2f}", f"{ours / stock:.2f}"]
        for result in results
        if result.compiled
        for ours, stock in [(result.compiled[OURS], result.compiled[STOCK])]
    ]
    if rows:
        terminal.show_table(("seconds to compile", "ours", "stock", "ours / stock"), rows)


def show_goals(goals: Sequence[Goal]) -> None:
    """Prints what was asked, what was found, and whether it is enough."""

    def cell(goal: Goal, key: str) -> str:
        asked, found = getattr(goal, key), goal.found.get(key)
        return f"{'-' if found is None else f'{found:.2f}'} / {'-' if asked is None else f'{asked:g}'}"

    verdicts = {True: "yes", False: "NO", None: "-"}
    rows = [[goal.what, *(cell(goal, key) for key in ("stock", "torch", "scan")), verdicts[goal.met]] for goal in goals]
    terminal.show_table(("speedup: found / asked", "vs stock", "vs torch", "in scan", "met"), rows)


def line(result: Result) -> str:
    """A result in a few words, to be shown while others are measured."""
    parts = [f"{result.name}: {milliseconds(result, OURS)} ms"]
    for name, found in (
        ("stock", result.against_stock),
        (result.torch, result.against_torch),
        (SCANNED, result.in_scan),
    ):
        if found:
            parts.append(f"{found.median:.2f}x {name}")
    if result.compiled:
        parts.append(f"compiled in {result.compiled[OURS]:.1f} s, stock in {result.compiled[STOCK]:.1f}")
    return ", ".join(parts) + (f"; {line(result.plain)}" if result.plain else "")
