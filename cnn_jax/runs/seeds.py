"""What a run of several seeds leaves: the folder of an ordinary run for each."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.code import CODE
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.digests import digest_json, seal
from cnn_jax.runs.folder import CONFIG, read_config, seed_folder, write_atomically
from cnn_jax.runs.progress import Progress, to_json
from cnn_jax.training.state import TrainState


def leave_seed_folders(
    path: Path, seeds: Sequence[int], progress: Sequence[Progress], state: TrainState, best: TrainState | None
) -> None:
    """Turns each seed's folder, which has its records, into a run as `fit` would have left it; harmless when repeated.

    Args:
        path: the folder of the run.
        seeds: the seeds.
        progress: of each seed.
        state: the last states, stacked.
        best: the best states by validation, stacked, if there are any.
    """
    contents = read_config(path)
    # Gathered from all devices to one; then one program slices all leaves.
    state, best = jax.device_put((state, best), current_device())
    one_of = jax.jit(lambda stacked, k: jax.tree.map(lambda leaf: leaf[k], stacked))
    for k, seed in enumerate(seeds):
        own = path / seed_folder(seed)
        if (own / CONFIG).exists():
            continue
        # An identity of its own, and the same if this is done again after a crash.
        run = digest_json([contents["run"], seed])
        with contextlib.closing(Checkpoints(own, run)) as checkpoints:
            checkpoints.discard_unfinished()
            for stacked, is_best in ((state, False), (best, True)):
                if stacked is not None:
                    alone = one_of(stacked, k)
                    checkpoints.save(int(alone.step), alone, to_json([progress[k]]), best=is_best)
        # As in any run, its configuration says that the rest is there, so it comes last.
        if contents["code"]:
            shutil.copytree(path / CODE, own / CODE, dirs_exist_ok=True)
        changed = contents | {"seeds": [seed], "run": run}
        write_atomically(own / CONFIG, json.dumps(seal(changed), indent=2) + "\n")
