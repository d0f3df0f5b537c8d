"""What is compared: how ours is compiled, and what of PyTorch there is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cnn_jax.benchmark.timing import Contender

INSTALL = "pip install -e '.[bench]'"


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """Why there is no PyTorch, and why there is no torch.compile, each in one line; None where there is.

    Attributes:
      torch, compile: the reasons.
      threads: number of threads that PyTorch computes with.
      onednn: whether ours is compiled by `lowering.jit`; stock Flax never is.
    """

    torch: str | None
    compile: str | None
    threads: int = 0
    onednn: bool = True

    @property
    def jit(self) -> Callable[..., Any]:
        """What compiles ours."""
        import jax

        from cnn_jax import lowering

        return lowering.jit if self.onednn else jax.jit

    @property
    def has_onednn(self) -> bool:
        """Whether ours is compiled with oneDNN: it is asked for, and XLA has it."""
        from cnn_jax.lowering.onednn import compiler_options

        return self.onednn and bool(compiler_options())


class Field(NamedTuple):
    """The contenders of a case, and for those left out the reason, by name."""

    contenders: list[Contender]
    skipped: dict[str, str]


def open_yardstick(quick: bool, onednn: bool) -> Yardstick:
    """Imports PyTorch where it is installed and gives it a thread a core."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # not installed, or installed for another machine, which ends in whatever it likes
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        missing = f"no PyTorch ({reason}); to compare with it: {INSTALL}"
        return Yardstick(torch=missing, compile="no PyTorch", onednn=onednn)
    from cnn_jax.lowering.cores import cores  # with JAX, for which nobody waits who asks for help

    torch.set_num_threads(cores())
    compile_ = "left out by --quick" if quick else None
    return Yardstick(torch=None, compile=compile_, threads=torch.get_num_threads(), onednn=onednn)
