"""The command `python -m cnn_jax.benchmark`."""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from cnn_jax import command, terminal
from cnn_jax.benchmark.cases import select
from cnn_jax.errors import InputError

DESCRIPTION = """How fast layers and whole train steps are on this CPU: ours, stock Flax's, and PyTorch's best.

    python -m cnn_jax.benchmark                       all but the last four, in a quarter of an hour on two cores
    python -m cnn_jax.benchmark --quick               the most telling, in less than a minute
    python -m cnn_jax.benchmark --only lenet5/128     some of it; '*/step' is all train steps
    python -m cnn_jax.benchmark --only kinds          layers that users report as slow in JAX, a few minutes
    python -m cnn_jax.benchmark --only kinds --seed 1  others of these kinds, drawn with the seed
    python -m cnn_jax.benchmark --only airbench       steps of airbench94-muon at batch 2,000, minutes
    python -m cnn_jax.benchmark --only mnist          ten epochs of MNIST, from process start to end: minutes
    python -m cnn_jax.benchmark --only cifar          ResNet-20's first three epochs of CIFAR-10, by accuracy: 1.5 hours
    python -m cnn_jax.benchmark --only scale          by itself: ResNet-50 compiled for 8 to 512 chips of a TPU, minutes

All compute the same thing, which is checked before the clock runs, and take turns on it. Times are medians, speedups
medians of the rounds' with their quartiles; 2.00 is twice as fast as the other. Of train steps there is also how long
ours and stock Flax's take to compile, tracing included and no cache asked. PyTorch, if it is installed, is timed
contiguous, channels-last and by torch.compile, and the best counts; torch.compile hands a lone convolution to the same
kernel, so it is timed with pools and train steps only. Nothing else should run meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    quick: bool = False
    """Fewer cases and rounds, and no torch.compile, which takes its time."""
    only: Annotated[tuple[str, ...], arg(metavar="PATTERN ...")] = ()
    """Names of cases, as in the table; * stands for anything. By default all but airbench, mnist, cifar and scale."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """Draw other layers of the kinds/ cases: sizes, channels, strides, padding, dilation. By default those listed."""
    onednn: bool = True
    """Compile ours by `lowering.jit`, with oneDNN where XLA has it; stock never is. Kinds are timed without it too."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """JSON file to write the results to."""


def run(options: Options) -> None:
    """Measures and prints.

    Raises:
        InputError: there is no such case, nothing to draw with the seed, or no place for the file.
        DisagreementError: two contenders do not compute the same.
    """
    cases = [] if options.only == ("scale",) else select(options.only, options.quick, options.seed)
    if options.out is not None and not options.out.parent.is_dir():
        raise InputError(f"--out: expected a file in a folder that exists, got {options.out}")
    os.environ["JAX_PLATFORMS"] = "cpu"  # PyTorch computes there too
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # or compiling would not be what is timed
    if not cases:
        from cnn_jax.benchmark import scale

        return scale.show()

    from cnn_jax.benchmark.machine import Elsewhere, describe_machine, say
    from cnn_jax.benchmark.results import Result, goals
    from cnn_jax.benchmark.tables import line, show_compilation, show_goals, show_results
    from cnn_jax.benchmark.timing import FULL, QUICK, THRICE, measure
    from cnn_jax.benchmark.yardstick import open_yardstick
    from cnn_jax.runs.memory import keep_memory
    from cnn_jax.runs.outputs import check_output, write_output

    if options.out is not None:
        check_output(options.out)
    memory_kept = keep_memory()  # for all contenders
    yardstick = open_yardstick(options.quick, options.onednn)
    machine = describe_machine(yardstick, memory_kept)
    terminal.say(say(machine))
    if yardstick.torch is not None:
        terminal.say(yardstick.torch)
    effort = QUICK if options.quick else FULL
    efforts = {
        "mnist": THRICE,
        "airbench": THRICE,
        "cifar": THRICE,
        "kind": replace(effort, patience=1.0),
    }  # for a kind of layer stock may take seconds
    results = []
    for number, case in enumerate(cases, start=1):
        contenders, skipped = case.build(yardstick)
        with Elsewhere() as elsewhere:
            times = measure(contenders, efforts.get(case.kind, effort))
        result = Result(
            name=case.name,
            kind=case.kind,
            flops=case.flops,
            times=times,
            skipped=skipped,
            elsewhere=elsewhere.share,
            compiled={c.name: c.compiled for c in contenders if c.compiled is not None},
        )
        terminal.complain(f"[{number}/{len(cases)}] {line(result)}")
        results.append(result)
    show_results(results)
    show_compilation(results)
    asked = goals(results)
    show_goals(asked)
    if options.out is not None:
        contents = {
            "machine": machine,
            "cases": [result.to_dict() for result in results],
            "goals": [goal.to_dict() for goal in asked],
        }
        write_output(options.out, json.dumps(contents, indent=1) + "\n")


if __name__ == "__main__":
    sys.argv[0] = "python -m cnn_jax.benchmark"
    command.main(run, Options, description=DESCRIPTION)
