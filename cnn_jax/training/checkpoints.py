"""Checkpoints by Orbax: saved in the background, complete or absent, and read back newest first."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import terminal
from cnn_jax.errors import InputError
from cnn_jax.training.state import TrainState

NEWEST, BEST = "checkpoints", "best"
_copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))  # one program for all leaves


class Checkpoints:
    """The checkpoints of one run.

    `FOLDER/checkpoints/STEP` holds the newest few, `FOLDER/best/STEP` the one with the best validation accuracy.
    Each holds the `TrainState` and the `progress` of the epoch it was taken in, a dict of JSON values. Orbax writes
    each into a temporary folder first, so one that was cut off by a crash is never taken for a checkpoint.
    """

    def __init__(self, folder: Path, keep: int = 1, read_only: bool = False):
        """Opens the checkpoints of the run in `folder`, new or not.

        Args:
            folder: the folder of the run.
            keep: how many of the newest to keep.
            read_only: leave everything as it is; the run may be training elsewhere at this moment.
        """
        import orbax.checkpoint as ocp

        self._ocp = ocp

        def open_manager(name: str, keep: int) -> Any:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                read_only=read_only,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            )
            return ocp.CheckpointManager(folder.absolute() / name, options=options)

        self._newest, self._best = open_manager(NEWEST, keep), open_manager(BEST, 1)

    def save(self, step: int, state: TrainState, progress: dict[str, Any], best: bool = False) -> None:
        """Begins to save the state in the background, unless that step is already there.

        The state is copied first: the next train step reuses ("donates") its buffers while the copy is written.
        """
        manager = self._best if best else self._newest
        if step in manager.all_steps():
            return
        if not best:  # What its progress says of the best must be true, so that one is complete first.
            self._best.wait_until_finished()
        state = _copy(state)
        args = self._ocp.args
        manager.save(step, args=args.Composite(state=args.StandardSave(state), progress=args.JsonSave(progress)))

    def newest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        self._newest.wait_until_finished()
        return self._newest.latest_step()

    def restore(self, like: TrainState, best: bool = False) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest readable checkpoint, or the best.

        Args:
            like: a state of the same structure, shapes and dtypes; its values are not used.
            best: whether to read the best by validation accuracy instead of the newest.

        Returns:
            The state and its progress, or None where there is no checkpoint.

        Raises:
            InputError: there are checkpoints and none of them can be read.
        """
        manager = self._best if best else self._newest
        steps = sorted(manager.all_steps(), reverse=True)
        args = self._ocp.args
        for step in steps:
            try:
                items = manager.restore(
                    step, args=args.Composite(state=args.StandardRestore(like), progress=args.JsonRestore())
                )
            except Exception as error:  # Orbax raises many kinds for damaged files; an older checkpoint may be whole.
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                terminal.complain(
                    terminal.one_line(f"checkpoint {step} in {manager.directory} cannot be read ({reason[:120]})")
                )
                continue
            return items["state"], items["progress"]
        if steps:
            raise InputError(
                f"{manager.directory}: expected a readable checkpoint, but none of the {len(steps)} there is; "
                "start the run again with overwrite"
            )
        return None

    def discard_after(self, step: int) -> None:
        """Deletes newest-checkpoints later than `step`: those that `restore` found unreadable."""
        for later in self._newest.all_steps():
            if later > step:
                self._newest.delete(later)

    def wait(self) -> None:
        """Waits until everything begun is on disk; raises what went wrong in the background."""
        self._newest.wait_until_finished()
        self._best.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written and frees Orbax's threads."""
        self._newest.close()
        self._best.close()


def hush_orbax() -> None:
    """Keeps what Orbax says by itself off standard error for the rest of the process: for commands, not for libraries.

    It logs warnings as it reads. Of a damaged checkpoint it also leaves tasks behind, and at some later moment, up to
    the end of the process, asyncio logs their errors and Python prints tracebacks a page long as it throws them away.
    What matters of all that stands in our own lines.
    """
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    heard = sys.unraisablehook
    sys.unraisablehook = lambda it: heard(it) if issubclass(it.exc_type, KeyboardInterrupt) else None
