"""What sources of the user's own data share: which split is meant, how one is made, what is in two of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence

from cnn_jax.data.folders import say_once
from cnn_jax.errors import InputError

# What the part of the data that is not learnt from is called; the first of them that is there is tested on.
HELD_OUT = ("test", "val", "valid", "validation")


def find_split(label: str, split: str, splits: Iterable[str]) -> str:
    """The split that is meant: the one of that name, or for a missing "test" the validation split, which is said once.

    Raises:
      InputError: there is no such split.
    """
    known = list(splits)
    if split in known:
        return split
    held_out = [name for name in HELD_OUT if name in known]
    if split == "test" and held_out:
        say_once(f"{label} has no test split; its split {held_out[0]} is used instead")
        return held_out[0]
    raise InputError(f"data set {label}: expected one of the splits {', '.join(known)}; got {split!r}")


def validation_of(splits: Iterable[str]) -> str | None:
    """The split to choose by, where there is one to test on beside it."""
    known = list(splits)
    return next((name for name in HELD_OUT[1:] if name in known), None) if HELD_OUT[0] in known else None


def share_of(content: bytes | memoryview | io.BufferedReader) -> float:
    """A fixed number from 0 to 1 for some content, which belongs to the test split if it is below that split's share.

    It is made of a SHA-256 hash, so that adding, renaming or reordering other things moves nothing from one split to
    the other, equal contents are never on both sides, and a larger share only takes from the training split.
    """
    if isinstance(content, bytes | memoryview):
        digest = hashlib.sha256(content)
    else:
        digest = hashlib.file_digest(content, "sha256")
    return int.from_bytes(digest.digest()[:8], "big") / 2.0**64


def repeated(splits: dict[str, tuple[Sequence[bytes], Sequence[str]]]) -> list[str]:
    """A line for every split that has images of the training split.

    Args:
      splits: digests of the images, and what each is called, of "train" and of the others.
    """
    lines = []
    train = dict(zip(*splits["train"], strict=True))
    for split, (digests, names) in splits.items():
        found = [(name, train[digest]) for digest, name in zip(digests, names, strict=True) if digest in train]
        if split != "train" and found:
            count = f"{len(found):,} of {len(names):,} images of {split} {'are' if len(found) > 1 else 'is'}"
            lines.append(f"{count} in train too (such as {found[0][0]}, which is {found[0][1]})")
    return lines
