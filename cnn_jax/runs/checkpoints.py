"""Checkpoints by Orbax: saved in the background, complete or absent, and read back newest first and unharmed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from cnn_jax import terminal
from cnn_jax.errors import InputError, StorageError
from cnn_jax.runs import hosts
from cnn_jax.runs.clearing import delete
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.digests import DamagedError, check_contents, check_record, make_record
from cnn_jax.runs.placing import gathered
from cnn_jax.runs.progress import from_json
from cnn_jax.runs.quiet import quiet_orbax
from cnn_jax.runs.storage import storing, system_reason
from cnn_jax.training.state import TrainState

T = TypeVar("T")
NEWEST, BEST = "checkpoints", "best"
_WRITING = 600  # seconds that a process waits for what others write
UNFINISHED = r"[0-9]+\.orbax-checkpoint-tmp.*"  # Orbax's name of a checkpoint while it is written
_copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))  # one program for all leaves


class Checkpoints:
    """The checkpoints of one run.

    `FOLDER/checkpoints/STEP` holds the newest few, `FOLDER/best/STEP` the one with the best validation accuracy.
    Each holds the `TrainState`, the `progress` of the epoch it was taken in, a dict of JSON values, and the digests of
    both (`digests.make_record`), by which everything that is read is checked. Orbax writes each into a temporary folder
    first, so one that was cut off by a crash is never taken for a checkpoint.

    Several processes that train together call all methods together: each writes its own parts of the arrays, process 0
    the rest, and a checkpoint is read if each can read its parts. What is `read_only` each reads alone.
    """

    def __init__(self, folder: Path, run: str, keep: int = 1, read_only: bool = False):
        """Opens the checkpoints of the run in `folder`, new or not. `close` is to be called in the end.

        Args:
            folder: the folder of the run.
            run: the identity of the run, as its config.json has it.
            keep: how many of the newest to keep.
            read_only: leave everything as it is; the run may be training elsewhere at this moment.

        Raises:
            InputError: the folders of the checkpoints cannot be read, or made (StorageError).
        """
        import orbax.checkpoint as ocp

        self._ocp, self._run = ocp, run
        self._has_failed = False  # whether the last of the newest could not be written
        self._hushed = contextlib.ExitStack()
        self._expect_leftovers = self._hushed.enter_context(quiet_orbax())

        self._together = not read_only and hosts.count() > 1

        def open_manager(kind: str, keep: int | None) -> Any:
            options = {"max_to_keep": keep, "read_only": keep is None, "create": keep is not None}
            if jax.process_count() > 1:  # also when the others have left
                alone = keep is None
                options["create"] = False  # which Orbax demands of those
                options["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                    primary_host=jax.process_index() if alone else 0,
                    active_processes={jax.process_index()} if alone else set(range(jax.process_count())),
                    barrier_sync_key_prefix=kind,  # both may be written at a time
                )
                options["async_options"] = ocp.options.AsyncOptions(timeout_secs=_WRITING)
            return ocp.CheckpointManager(folder.absolute() / kind, options=ocp.CheckpointManagerOptions(**options))

        try:
            with self._reading(folder) if read_only else storing(folder):
                if self._together:
                    for kind in (NEWEST, BEST) if hosts.is_first() else ():
                        (folder / kind).mkdir(exist_ok=True)
                    hosts.wait_for_all()
                keeps = (None, None) if read_only else (keep, 1)
                self._managers = {kind: open_manager(kind, k) for kind, k in zip((NEWEST, BEST), keeps, strict=True)}
                self._readers = self._managers
                if self._together:
                    self._readers = {kind: open_manager(kind, None) for kind in (NEWEST, BEST)}
        except BaseException:
            self._hushed.close()
            raise

    def save(self, step: int, state: TrainState, progress: dict[str, Any], best: bool = False) -> None:
        """Begins to save the state in the background, unless that step is already there.

        The state is copied first: the next train step reuses ("donates") its buffers while the copy is written. If the
        one before could not be written, a line on standard error says so, and this one is tried.

        Raises:
            StorageError: this checkpoint, or the two before, or the best before, cannot be written.
        """
        from cnn_jax.runs.deferred import DeferredJsonSave

        kind = BEST if best else NEWEST
        if self._first(lambda: step in self._managers[kind].all_steps()):
            return
        if not best:  # What its progress says of the best must be true, so that one is complete first.
            self._wait(BEST)
        self._wait_or_tell(kind)
        state = _copy(state)
        all_parts = gathered(state) if self._together else state
        record = functools.partial(make_record, all_parts, progress, run=self._run, kind=kind, step=step)
        args = self._ocp.args
        items = args.Composite(
            state=args.PyTreeSave(state),
            progress=args.JsonSave(progress),
            digests=DeferredJsonSave(record if hosts.is_first() else None),
        )
        with self._writing(kind):
            self._managers[kind].save(step, args=items)

    def newest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        with contextlib.suppress(StorageError):  # one that cannot be written is not complete
            self._wait(NEWEST)
        return self._managers[NEWEST].latest_step()

    def restore(self, like: TrainState, best: bool = False) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the newest whole checkpoint, or the best. Of each that is not whole, a line on standard error says why.

        Args:
            like: a state of the same structure, shapes and dtypes; its values are not used.
            best: whether to read the best by validation instead of the newest.

        Returns:
            The state and its progress, or None where there is no checkpoint.

        Raises:
            InputError: there are checkpoints and none of them is whole.
        """
        # What is empty is not asked for: an earlier version may not have had it.
        held = {field.name: getattr(like, field.name) for field in dataclasses.fields(like)}
        held = {name: value for name, value in held.items() if not (isinstance(value, tuple) and not value)}
        restored = self.restore_parts(held, best)
        return restored and (like.replace(**restored[0]), restored[1])

    def restore_parts(self, like: dict[str, Any], best: bool = False) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """As `restore`, but reads some attributes of the state alone, whatever else it holds.

        Args:
            like: by the names of these attributes, arrays of the same structure, shapes and dtypes, with shardings.
            best: as for `restore`.

        Returns:
            The attributes by name, and the progress; or None where there is no checkpoint.
        """
        shardings = self._ocp.checkpoint_utils.construct_restore_args(like)
        args = self._ocp.args.PyTreeRestore(item=like, restore_args=shardings, partial_restore=True)
        return self._restore(args, best, like)

    def _restore(
        self, args: Any, best: bool, attributes: Collection[str] | None = None
    ) -> tuple[Any, dict[str, Any]] | None:
        kind = BEST if best else NEWEST
        manager = self._managers[kind]
        steps = self._first(lambda: self._steps(kind))
        for step in reversed(steps):
            try:
                state, progress = self._read(kind, step, args, attributes)
            except DamagedError as error:
                if hosts.is_first() or not self._together:
                    terminal.complain(
                        terminal.one_line(f"checkpoint {step} in {manager.directory} cannot be read ({error})")
                    )
                continue
            return state, progress
        if steps:
            raise InputError(
                f"{manager.directory}: expected a readable checkpoint, but none of the {len(steps)} there is; put back "
                "what is missing or was changed, or start the run again with overwrite"
            )
        return None

    def inspect(self) -> Iterator[tuple[str, str]]:
        """Reads all checkpoints, whatever model they are of.

        Yields:
            "checkpoints/STEP" or "best/STEP", and what is wrong with it: "" of a whole one. Of a best that is missing,
            "best".
        """
        has_best = False
        here = jax.sharding.SingleDeviceSharding(current_device())  # which may be fewer devices than it was saved from
        for kind in self._managers:
            for step in self._steps(kind):
                try:
                    args = self._ocp.args.StandardRestore(fallback_sharding=here)
                    _, progress = self._read(kind, step, args)
                    has_best = any(one.best for one in from_json(progress))
                    yield f"{kind}/{step}", ""
                except DamagedError as error:
                    if step in self._steps(kind):  # a run that is training deletes its older ones
                        yield f"{kind}/{step}", str(error)
        if has_best and not self._steps(BEST):
            yield BEST, "missing"

    def discard_after(self, step: int, best: bool = False) -> None:
        """Deletes the newest checkpoints, or the best, later than `step`: those that `restore` found unreadable."""
        kind = BEST if best else NEWEST
        manager = self._managers[kind]
        if not self._together or hosts.is_first():
            delete(Path(manager.directory) / str(later) for later in self._steps(kind) if later > step)
        if self._together:
            hosts.wait_for_all()
        manager.reload()

    def discard_unfinished(self) -> None:
        """Deletes the remains of checkpoints that were being written during a crash."""
        for kind in self._managers if hosts.is_first() else ():
            delete(self._unfinished(kind))
        if self._together:
            hosts.wait_for_all()

    def wait(self) -> None:
        """Waits until everything begun is on disk.

        Raises:
            StorageError: something cannot be written.
        """
        self._wait(NEWEST)
        self._wait(BEST)

    def close(self) -> None:
        """Waits for what is being written and ends Orbax's threads."""
        try:
            for kind, manager in self._managers.items():
                with self._writing(kind):
                    manager.close()
                if self._together:
                    self._readers[kind].close()
        finally:
            self._hushed.close()

    def _first(self, ask: Callable[[], T]) -> T:
        """What process 0 finds in the folder, if several look."""
        return hosts.agree(ask) if self._together else ask()

    def _unfinished(self, kind: str) -> list[Path]:
        folder = Path(self._managers[kind].directory)
        return [folder / name for name in os.listdir(folder) if re.fullmatch(UNFINISHED, name)]

    def _steps(self, kind: str) -> list[int]:
        """The existing steps, by name: Orbax skips whatever is not a folder, which would then not be missed."""
        directory = Path(self._managers[kind].directory)
        with self._reading(directory):
            names = os.listdir(directory) if directory.is_dir() else []
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))

    def _wait_or_tell(self, kind: str) -> None:
        """Waits; if it fails, for the first time in a row and not for the best, only says so."""
        reason = None
        try:
            self._wait(kind)
        except StorageError as error:
            reason = str(error)
        reasons = hosts.of_each(reason) if self._together else [reason]
        fault = next((found for found in reasons if found is not None), None)
        fails_again, self._has_failed = self._has_failed, fault is not None
        if fault is None:
            return
        if fails_again or kind == BEST:
            raise StorageError(fault)
        if hosts.is_first():
            terminal.complain(f"{fault}; training goes on, and the next is tried")
            with contextlib.suppress(OSError):  # some of it may still be written, and goes at the next start
                delete(self._unfinished(kind))

    def _wait(self, kind: str) -> None:
        with self._writing(kind):
            self._managers[kind].wait_until_finished()

    @staticmethod
    @contextlib.contextmanager
    def _reading(folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = system_reason(error)
            raise InputError(f"{folder}: expected checkpoints that can be read, got: {reason}") from None

    @contextlib.contextmanager
    def _writing(self, kind: str) -> Iterator[None]:
        manager = self._managers[kind]
        try:
            with storing(Path(manager.directory), "a checkpoint "):
                yield
        except BaseException:
            self._expect_leftovers()
            raise

    def _read(
        self, kind: str, step: int, state_args: Any, attributes: Collection[str] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """State and progress, checked against their digests; only some attributes of the state, if these are named.

        Raises:
            DamagedError: it cannot be read, or is not what was saved; with several processes, in any of them.
        """
        manager, args = self._readers[kind], self._ocp.args
        read: dict[str, Any] = {}

        def read_all() -> None:
            record = self._read_record(Path(manager.directory) / str(step))
            check_record(record, run=self._run, kind=kind, step=step)
            items = manager.restore(step, args=args.Composite(state=state_args, progress=args.JsonRestore()))
            read.update(record=record, state=items["state"], progress=items["progress"])

        def check_all() -> None:
            check_contents(read["record"], all_parts, read["progress"], attributes)

        self._try(read_all)
        all_parts = gathered(read["state"]) if self._together else read["state"]
        self._try(check_all)
        return read["state"], read["progress"]

    def _try(self, act: Callable[[], None]) -> None:
        """Raises a `DamagedError` for whatever is raised, by several processes in all of them."""
        reason = None
        try:
            act()
        except DamagedError as error:
            reason = str(error)
        except Exception as error:  # Orbax raises many kinds for damaged files.
            self._expect_leftovers()
            said = system_reason(error) or str(error) or type(error).__name__
            reason = " ".join(said.split())[:120]
        reasons = hosts.of_each(reason) if self._together else [reason]
        for found in reasons:
            if found is not None:
                raise DamagedError(found)

    def _read_record(self, folder: Path) -> Any:
        from cnn_jax.runs.deferred import FILE

        try:
            return json.loads((folder / "digests" / FILE).read_text())
        except FileNotFoundError:
            raise DamagedError("its digests are missing") from None
        except (ValueError, RecursionError):
            raise DamagedError("its digests are damaged") from None
