"""Train steps on a GPU, ours and PyTorch's: `python -m cnn_jax.benchmark.gpu`."""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import fnmatch
import os
import sys
import time
from dataclasses import dataclass, replace
from typing import Annotated, Any

from tyro.conf import arg

from cnn_jax import command, terminal
from cnn_jax.benchmark.step_cases import GPU_CASES, StepCase
from cnn_jax.errors import InputError

DESCRIPTION = """How fast train steps are on a GPU: ours, by jax.jit, and PyTorch's, by torch.compile.

    python -m cnn_jax.benchmark.gpu                      in bfloat16, a few minutes; most of it compiling
    python -m cnn_jax.benchmark.gpu --only resnet50/256  some of it

Both hold the same batch on the device and compute in bfloat16, PyTorch by autocast with channels last; parameters and
optimiser are float32. The losses before the first three steps are compared before the clock runs, and then both take
turns on it, twenty steps each. A speedup of 2.00 is twice as fast as PyTorch. The race is another command,
python -m cnn_jax.benchmark.airbench --precision bfloat16 --seeds 40."""

STEPS, ROUNDS = 20, 7
# How far losses may be apart, as a share, in bfloat16; the second and third are after steps.
_APART = 0.02, 0.03, 0.04


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    only: Annotated[tuple[str, ...], arg(metavar="PATTERN ...")] = ()
    """Names of cases, as in the table; * stands for anything. By default all."""
    batch: int | None = None
    """Images a step, of all cases; by default those in their names."""


def run(options: Options) -> None:
    """Measures and prints.

    Raises:
        InputError: there is no such case, or no PyTorch.
        DisagreementError: the two do not compute the same.
    """
    names = [name for name in GPU_CASES if not options.only or any(fnmatch.fnmatch(name, p) for p in options.only)]
    if not names:
        raise InputError(f"--only: expected some of {', '.join(GPU_CASES)}, got {' '.join(options.only)}")
    # Both frameworks are in this process, and each takes memory as it needs it.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    try:
        import torch  # before JAX loads the same libraries
    except ImportError:
        raise InputError("PyTorch: expected it to compare with; pip install -e '.[bench]'") from None
    import jax

    from cnn_jax.benchmark.timing import speedup, spread

    device = "cuda" if torch.cuda.is_available() else "cpu"
    terminal.say(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, PyTorch {torch.__version__} on {device}")
    rows = []
    for name in names:
        case = GPU_CASES[name] if options.batch is None else replace(GPU_CASES[name], batch=options.batch)
        ours, theirs, compiled = _contenders(name, case, device)
        times: dict[int, list[float]] = {0: [], 1: []}
        for number in range(ROUNDS):
            for which in (0, 1) if number % 2 else (1, 0):
                times[which].append((ours, theirs)[which]())
        each = [case.batch / spread(times[which]).median for which in (0, 1)]
        found = speedup(times[0], times[1])
        ratio = f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"
        rows.append((name, *(f"{rate:,.0f}" for rate in each), ratio, *(f"{seconds:.0f}" for seconds in compiled)))
        terminal.complain(" | ".join(rows[-1]))
    terminal.show_table(
        ("train step", "ours, images/s", "PyTorch, images/s", "speedup", "ours compiles, s", "PyTorch compiles, s"),
        rows,
    )


def _contenders(name: str, case: StepCase, device: str) -> tuple[Any, Any, tuple[float, float]]:
    """What takes `STEPS` steps of ours and of PyTorch's and returns the seconds of one; and the seconds to compile."""
    import jax
    import numpy as np

    from cnn_jax import models, training
    from cnn_jax.benchmark import agreement
    from cnn_jax.benchmark.steps import make_batch, make_optimizer, our_step
    from cnn_jax.benchmark.torch_networks import NETWORKS, load
    from cnn_jax.benchmark.torch_steps import Stepper

    batch = make_batch(case)
    model, optimizer = models.with_classes(models.build(case.network), 10), make_optimizer(case)
    state = training.create_state(model, optimizer, batch["image"].shape[1:], seed=0)
    module = NETWORKS[case.network](num_classes=10, channels=case.channels)
    load(module, jax.tree.map(np.asarray, state.params))

    placed = jax.tree.map(jax.numpy.asarray, batch)
    began = time.perf_counter()
    program = jax.jit(our_step(model, optimizer, case), donate_argnums=0).lower(state, placed).compile()
    ours_compiled = time.perf_counter() - began
    losses = []
    for _ in _APART:
        state, loss = program(state, placed)
        losses.append(float(loss))
    expected = {f"loss {k}": np.asarray(loss, np.float32) for k, loss in enumerate(losses, start=1)}

    stepper = Stepper(module, case, batch["image"], batch["label"], channels_last=True, compiled=True, device=device)
    began = time.perf_counter()
    losses = [float(stepper.step())]
    torch_compiled = time.perf_counter() - began
    losses += [float(stepper.step()) for _ in _APART[1:]]
    found = {f"loss {k}": np.asarray(loss, np.float32) for k, loss in enumerate(losses, start=1)}
    tolerance = {key: share * float(expected[key]) for key, share in zip(expected, _APART, strict=True)}
    agreement.check_norms(name, "PyTorch", found, expected, tolerance)

    def ours() -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(STEPS):
            state, loss = program(state, placed)
        jax.block_until_ready((state, loss))
        return (time.perf_counter() - began) / STEPS

    def theirs() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            loss = stepper.step()
        loss.item()  # waits for all that was begun
        return (time.perf_counter() - began) / STEPS

    ours(), theirs()
    return ours, theirs, (ours_compiled, torch_compiled)


if __name__ == "__main__":
    sys.argv[0] = "python -m cnn_jax.benchmark.gpu"
    command.main(run, Options, description=DESCRIPTION)
