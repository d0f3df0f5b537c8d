"""An item of a checkpoint for Orbax: JSON that is made while the rest is written, and is complete or absent with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp

FILE = "values.json"


class DeferredJsonHandler(ocp.JsonCheckpointHandler):
    """Writes what `DeferredJsonSave.make` returns."""

    async def async_save(self, directory: Any, item: Any = None, args: Any = None) -> list[ocp.future.Future]:
        if args.make is None:
            return []

        async def write() -> None:  # runs in a thread of its own, once Orbax has made the folder
            (directory / FILE).write_text(json.dumps(args.make()))

        return [ocp.future.CommitFutureAwaitingContractedSignals(write(), name="deferred_json_save")]


@ocp.args.register_with_handler(DeferredJsonHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class DeferredJsonSave(ocp.args.CheckpointArgs):
    """Saves the JSON values that `make` returns; it is called in the background, once. `FILE` is read without Orbax.

    Of several processes one has a `make`, the others None.
    """

    make: Callable[[], Any] | None
