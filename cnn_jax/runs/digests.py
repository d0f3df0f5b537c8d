"""Digests: how reading tells the bits that a run saved from any others.

They are XXH3 of 128 bits, which hashes 10 GB a second, of blocks of each *global* array in C order: how the array is
spread over devices has no part in them. They are against damage and mistakes, not against forgery.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import xxhash

from cnn_jax.runs.placing import whole
from cnn_jax.training.state import path_of

BLOCK = 1 << 22  # bytes
_NAMED = 3  # arrays that a message names


class DamagedError(ValueError):
    """What was read is not what was saved; the message is a part of a line that says what differs."""


def digest_json(values: Any) -> str:
    """The digest of JSON values, whatever the order of their keys and the white space between them in a file."""
    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())


def seal(contents: dict[str, Any]) -> dict[str, Any]:
    """JSON values with their own digest beside them, under the key "digest"."""
    contents = {key: value for key, value in contents.items() if key != "digest"}
    return contents | {"digest": digest_json(contents)}


def is_sealed(contents: dict[str, Any]) -> bool:
    """Whether `seal` gave these values, and nothing has changed since."""
    return contents.get("digest") == seal(contents)["digest"]


def digest_arrays(tree: Any, block: int = BLOCK) -> dict[str, dict[str, Any]]:
    """Digests of all arrays of a pytree.

    Args:
        tree: arrays of any shapes and dtypes, on any devices, of which this process has all parts; also typed random
            keys.
        block: bytes of an array that make a digest; its last block may be shorter.

    Returns:
        By the array's path, such as "params/conv/kernel", its "shape", "dtype" and "blocks", hexadecimal digests. The
        blocks are hashed by as many threads as there are cores, without Python's lock.
    """
    described: dict[str, tuple[Any, int]] = {}
    pieces: list[memoryview] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        flat = np.ascontiguousarray(whole(leaf)).reshape(-1).view(np.uint8).data
        blocks = [flat[start : start + block] for start in range(0, len(flat), block)]
        described[path_of(path)] = leaf, len(blocks)
        pieces += blocks
    digests = _hash(pieces)
    return {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "blocks": list(itertools.islice(digests, count))}
        for name, (leaf, count) in described.items()
    }


def _hash(pieces: Sequence[memoryview]) -> Iterator[str]:
    workers = min(os.cpu_count() or 1, 8)
    if sum(map(len, pieces)) < 2 * BLOCK:
        return map(xxhash.xxh3_128_hexdigest, pieces)
    with ThreadPoolExecutor(workers) as pool:
        shares = list(pool.map(lambda k: list(map(xxhash.xxh3_128_hexdigest, pieces[k::workers])), range(workers)))
    return (shares[index % workers][index // workers] for index in range(len(pieces)))


def make_record(state: Any, progress: dict[str, Any], *, run: str, kind: str, step: int) -> dict[str, Any]:
    """What is kept with a checkpoint: the digests of its state and progress, and whose and which checkpoint it is.

    Args:
        state: the pytree that is saved.
        progress: the JSON values beside it.
        run: the identity of the run.
        kind: the folder of the run that the checkpoint is in.
        step: its step.
    """
    return seal(
        {
            "run": run,
            "kind": kind,
            "step": step,
            "progress": digest_json(progress),
            "block": BLOCK,
            "arrays": digest_arrays(state),
        }
    )


def check_record(record: Any, *, run: str, kind: str, step: int) -> None:
    """Raises `DamagedError` unless these are whole digests, and those of this checkpoint of this run."""
    if not isinstance(record, dict) or not is_sealed(record):
        raise DamagedError("its digests are damaged")
    if record.get("run") != run:
        raise DamagedError("it is of another run than config.json")
    if (record.get("kind"), record.get("step")) != (kind, step):
        raise DamagedError(f"it was saved as {record.get('kind')}/{record.get('step')}")


def check_contents(
    record: dict[str, Any], state: Any, progress: Any, attributes: Collection[str] | None = None
) -> None:
    """Raises `DamagedError`, which names what differs, unless a checked record is that of this state and progress.

    Args:
        record: as `make_record` made it.
        state: the pytree that was read.
        progress: the JSON values that were read beside it.
        attributes: the names of the state's attributes that it was to have, where that is not all.
    """
    if digest_json(progress) != record["progress"]:
        raise DamagedError("its progress does not match its digest")
    expected, found = record["arrays"], digest_arrays(state, record["block"])
    if attributes is not None:
        expected = {name: value for name, value in expected.items() if name.partition("/")[0] in attributes}
    wrong = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        one = "does not match its digest" if len(wrong) == 1 else "do not match their digests"
        raise DamagedError(f"{', '.join(wrong[:_NAMED])}{more} {one}")
