"""A folder of pictures as a data source."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from cnn_jax.data import cache
from cnn_jax.data.class_folders import File, Listing, list_files
from cnn_jax.data.dataset import Dataset, compute_fingerprint, compute_statistics
from cnn_jax.data.drawings import measure_ink
from cnn_jax.data.faults import notes_on, refusal
from cnn_jax.data.folders import Prepared, say, say_once
from cnn_jax.data.pictures import shown
from cnn_jax.data.pile import LARGEST_KEPT, Pile, in_order, read_paper, read_pile
from cnn_jax.data.resizing import checked_size
from cnn_jax.data.source import Source, absolute, path_as_text, short_name
from cnn_jax.data.splits import find_split, repeated, share_of, validation_of
from cnn_jax.errors import InputError
from cnn_jax.files import expanded
from cnn_jax.terminal import plain

_MANY = 1000  # pictures that it takes a while to read
# Of the folder read last by this process, its key and its splits: where the cache cannot be written, the next split
# would otherwise be read again.
_LAST: dict[str, dict[str, cache.Decoded]] = {}


@dataclass(frozen=True)
class Folder(Source):
    """Pictures in a folder for each class: `PATH/train/CLASS/...` and `PATH/test/CLASS/...`, or `PATH/CLASS/...`.

    The classes are the names of the training split's folders, sorted. Pictures are PNG, JPEG, GIF, BMP, TIFF or WebP,
    told by their contents, of any mode, turned as their EXIF orientation says, the first frame of several; also in
    subfolders of a class. Transparency is laid on white or black by the rule of `on_paper`. Images have one channel if
    no picture of the training split shows a colour, else three. If its pictures are all of one size of at most 65,536
    pixels (256 x 256), it stays, else each is brought to the size asked for by the rule of `fit_images`. Those of other
    splits are brought to what the training images are. With `square` it is another rule for all of them, `cut_square`,
    and with `reduced` their pixels are others: such images always stay encoded until they are used.

    Other splits are the folders "test", "val", "valid" and "validation"; where there is no test split, a validation
    split is taken for it. With none of them, a test split is made of the training pictures by a hash of the contents of
    each file, so that no picture ever moves to the other side when others are added, or it is renamed.

    The decoded images are kept in the cache folder (see `cnn_jax.data.load`) until a file changes. Hidden files are
    passed over; other files that are no readable pictures, and pictures of other splits that are in the training split
    too, are named on standard error.

    Raises:
      InputError: for a blank path, a share outside of (0, 1), a square without pixels, or `reduced` without `square`.
    """

    path: str
    """Folder with a folder of pictures for each class in it, or with train and test folders that have those."""
    strict: bool = False
    """Refuse a folder with files that are no readable pictures, instead of naming them."""
    test_share: float = 0.2
    """Share of the pictures that becomes the test split where there is no folder for it."""
    square: int | None = None
    """Bring the shorter side of every picture to this many pixels, and keep the square in its middle; by default, or
    with None, pictures that differ in size stay whole, with margins to fit."""
    reduced: bool = False
    """Decode JPEG pictures at a reduced scale, in as few eighths of their size as leave no side below `square`: faster,
    and not quite the same pixels. They are always streamed."""

    def __post_init__(self) -> None:
        path_as_text(self, "path")
        self.check("path", lambda path: isinstance(path, str) and bool(path.strip()), "the path of a folder")
        self.check("test_share", lambda share: 0 < share < 1, "a number between 0 and 1")
        self.check("square", lambda side: side is None or _is_side(side), "1 to 65,535 pixels, or None")
        self.check("reduced", lambda reduced: not reduced or self.square is not None, "False where square is None")

    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        if self.reduced:
            return self.encoded()(split, image_size)
        size, listing = self.size_of(image_size), self.listing()
        splits = listing.splits if len(listing.splits) > 1 else ("train", "test")
        decoded = self._decoded(listing, find_split(self.label(), split, splits), size)
        for note in listing.notes:
            say_once(note)
        return decoded.dataset(decoded.images, self.label(), split)

    def validation(self, image_size: tuple[int, int]) -> Dataset | None:
        split = validation_of(self.listing().splits)
        return self(split, image_size) if split else None

    def label(self) -> str:
        return short_name(Path(absolute(self.path, "folder")).name)

    def here(self) -> Self:
        return replace(self, path=absolute(self.path, "folder"))

    def encoded(self) -> Source:
        from cnn_jax.data.picture_files import _EncodedFolder

        return _EncodedFolder(self.path, self.strict, self.test_share, self.square, self.reduced)

    @property
    def streams(self) -> bool:
        return self.reduced

    @property
    def least(self) -> int | None:
        """The size that no side of a picture falls below where it is decoded at a reduced scale; None if it is not."""
        return self.square if self.reduced else None

    def decoded_bytes(self, image_size: tuple[int, int]) -> int:
        image_size, listing = self.size_of(image_size), self.listing()
        files = [file for own in listing.splits.values() for file in own]
        height, width, channels = next(
            (pixels.shape for pixels in map(_pixels_of, (listing.root / file.path for file in files)) if pixels.size),
            (*image_size, 3),
        )
        if self.square or height * width > LARGEST_KEPT:
            height, width = image_size
        return len(files) * height * width * channels

    def size_of(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that pictures of several sizes are brought to, of the size asked for."""
        return checked_size(image_size if self.square is None else (self.square, self.square))

    def listing(self) -> Listing:
        """The files that there are."""
        return list_files(expanded(self.path, "folder"))

    def prepared(self, listing: Listing) -> Prepared:
        """What the cache knows the folder by."""
        place = hashlib.sha256(os.fsencode(os.path.abspath(listing.root))).hexdigest()[:8]
        square = "" if self.square is None else f" {self.square}{' reduced' if self.reduced else ''}"
        key = hashlib.sha256(f"{listing.key} {self.strict} {self.test_share}{square}".encode()).hexdigest()[:16]
        return Prepared(name=self.label(), version=place, path=listing.root, splits={}, key=key)

    def _decoded(self, listing: Listing, split: str, size: tuple[int, int]) -> cache.Decoded:
        prepared = self.prepared(listing)
        for kept_size in (None, size):
            if found := cache.read(prepared, split, kept_size):
                return found
        own = f"{prepared.key} {size}"
        if own not in _LAST:
            decoded, varied = self._read(listing, size)
            _LAST.clear()
            kept = [cache.write(prepared, name, size if varied else None, part) for name, part in decoded.items()]
            cache.drop_others(prepared)
            if all(kept):
                return decoded[split]
            _LAST[own] = decoded
        return _LAST[own][split]

    def _read(self, listing: Listing, size: tuple[int, int]) -> tuple[dict[str, cache.Decoded], bool]:
        """All splits, and whether the size asked for made a difference."""
        files = listing.splits if len(listing.splits) > 1 else split_by_content(listing, self.test_share)
        count = sum(map(len, files.values()))
        if count >= _MANY:
            say(f"reading {count:,} pictures in {shown(listing.root)}")
        piles: dict[str, Pile] = {}
        for split, own in files.items():
            like = piles["train"].images.shape[1:] if piles else None
            piles[split] = read_pile([listing.root / file.path for file in own], size, like, self.square)
            self.check_read(listing, split, own, piles[split].read, piles[split].faults)
        labels = {name: np.array([files[name][i].label for i in pile.read], np.int32) for name, pile in piles.items()}
        images, class_names = piles["train"].images, listing.class_names
        fingerprint = compute_fingerprint(images, labels["train"], class_names)
        # Dark margins that are ours say nothing of how the pictures are drawn.
        ink = None if piles["train"].varied else measure_ink(images)
        training = cache.Training(statistics=compute_statistics(images), ink=ink, fingerprint=fingerprint)
        notes = tuple(f"{self.label()}: {note}" for note in notes_of(files, piles))
        decoded = {
            name: cache.Decoded(
                images=pile.images, labels=labels[name], class_names=class_names, training=training, notes=notes
            )
            for name, pile in piles.items()
        }
        return decoded, piles["train"].varied

    def check_read(
        self,
        listing: Listing,
        split: str,
        files: Sequence[File],
        read: Sequence[int],
        faults: Sequence[tuple[int, str]],
    ) -> None:
        """InputError for an unreadable file, if strict, an empty split, or a class without training pictures.

        `read` and `faults` are those of a `Pile`.
        """
        if self.strict and faults:
            named = [(shown(listing.root / files[index].path), fault) for index, fault in faults]
            raise InputError(refusal(named, f"files of {split}"))
        if not read:
            made = f"; add some, or change test_share ({self.test_share})" if len(listing.splits) == 1 else ""
            raise InputError(f"{shown(listing.root)}: expected pictures in the {split} split, found none{made}")
        missing = sorted(set(range(len(listing.class_names))) - {files[index].label for index in read})
        if split == "train" and missing:
            name = plain(listing.class_names[missing[0]])
            raise InputError(
                f"{shown(listing.root)}: expected pictures of each class in the training split, found none of {name}; "
                "add some, or remove its folder"
            )


def split_by_content(listing: Listing, test_share: float) -> dict[str, tuple[File, ...]]:
    """The files of a folder without a test split, in two."""
    files = listing.splits["train"]
    shares = list(in_order(_share, [listing.root / file.path for file in files]))
    return {
        "train": tuple(file for file, share in zip(files, shares, strict=True) if share >= test_share),
        "test": tuple(file for file, share in zip(files, shares, strict=True) if share < test_share),
    }


def _is_side(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 1 <= side < 2**16


def _pixels_of(path: Path) -> np.ndarray:
    """A picture, with nothing in it if it cannot be read."""
    found = read_paper(path)
    return np.empty((0, 0, 1), np.uint8) if isinstance(found, str) else found[0]


def _share(path: Path) -> float:
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            with open(path, "rb") as file:
                return share_of(file)
    except OSError:
        pass
    return 1.0  # to the training split, where reading it as a picture tells what is wrong


def notes_of(files: Mapping[str, Sequence[File]], piles: Mapping[str, Any]) -> list[str]:
    """A line for each file of each split that was not read, up to a number, and for each split repeated in another.

    `piles` have the "read", "digests" and "faults" of a `Pile`.
    """
    names = {split: [plain(file.path) for file in own] for split, own in files.items()}
    faults = [(names[split][index], fault) for split, pile in piles.items() for index, fault in pile.faults]
    read = {split: [names[split][index] for index in pile.read] for split, pile in piles.items()}
    return notes_on(faults, "files") + repeated({split: (pile.digests, read[split]) for split, pile in piles.items()})
