"""Picture files as images that stay encoded, and a folder of them as a source of such images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.data import cache
from cnn_jax.data.class_folders import File, Listing
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.folder import Folder, notes_of, split_by_content
from cnn_jax.data.folders import say, say_once
from cnn_jax.data.pictures import decode_picture, on_paper, shown
from cnn_jax.data.pile import like_others, read_paper
from cnn_jax.data.resizing import cut_square
from cnn_jax.data.scanning import Scan, scan_pictures, scan_training
from cnn_jax.data.splits import find_split
from cnn_jax.errors import InputError


@dataclass(frozen=True)
class PictureFiles:
    """Files that have been found to be pictures, see `Records`.

    Attributes:
      root: the folder that the paths begin in.
      paths: the files.
      image_shape: (H, W, C) that each picture is brought to.
      square: whether `cut_square` does that, to a square of this side.
      least: as for `decode_picture`.
    """

    root: Path
    paths: tuple[str, ...]
    image_shape: tuple[int, int, int]
    square: int | None = None
    least: int | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.root / self.paths[index]
        try:
            pixels = on_paper(decode_picture(path, self.least))
            pixels = pixels if self.square is None else cut_square(pixels, self.square)
            return like_others(pixels, self.image_shape)
        except InputError as error:
            raise InputError(
                f"{shown(path)}: {error}; it could be read when the folder was looked at: put it back, or start anew"
            ) from None


@dataclass(frozen=True)
class _EncodedFolder(Folder):
    """A folder whose pictures stay encoded.

    They are what `Folder` makes of them, with the same statistics and fingerprint. For these all are looked at once;
    what was found is kept in the cache folder until a file changes.
    """

    def __call__(self, split: str, image_size: tuple[int, int]) -> Dataset:
        size, listing = self.size_of(image_size), self.listing()
        several = len(listing.splits) > 1
        chosen = find_split(self.label(), split, listing.splits if several else ("train", "test"))
        listed = self._listed(listing, chosen, size)
        for note in listing.notes:
            say_once(note)
        own = listing.splits[chosen if several else "train"]
        paths = tuple(own[row].path for row in listed.rows)
        files = PictureFiles(listing.root, paths, listed.image_shape, self.square, self.least)
        return listed.dataset(Encoded(files), self.label(), split)

    def listing(self) -> Listing:
        return self._listing  # to list a hundred thousand files takes seconds, for each split

    @functools.cached_property
    def _listing(self) -> Listing:
        return super().listing()

    def _listed(self, listing: Listing, split: str, size: tuple[int, int]) -> cache.Listed:
        prepared = self.prepared(listing)
        for kept_size in (None, size):
            if found := cache.read_listed(prepared, split, kept_size):
                return found
        listed, varied = self._look(listing, size)
        for name, part in listed.items():
            cache.write(prepared, name, size if varied else None, part)
        cache.drop_others(prepared)
        return listed[split]

    def _look(self, listing: Listing, size: tuple[int, int]) -> tuple[dict[str, cache.Listed], bool]:
        """All splits, and whether the size asked for made a difference."""
        files = listing.splits if len(listing.splits) > 1 else split_by_content(listing, self.test_share)
        say(f"looking at {sum(map(len, files.values())):,} pictures in {shown(listing.root)}, once")
        scans: dict[str, Scan] = {}
        for split, own in files.items():
            paths = [listing.root / file.path for file in own]
            if split == "train":
                labels = [file.label for file in own]
                read_whole = functools.partial(read_paper, least=self.least)
                read_cut = functools.partial(read_whole, square=self.square)
                scans[split] = scan_training(paths, size, labels, listing.class_names, read_cut)
            else:
                scans[split] = scan_pictures(paths, scans["train"].image_shape, read_whole)
            self.check_read(listing, split, own, scans[split].read, scans[split].faults)
        training = scans["train"].training
        notes = tuple(f"{self.label()}: {note}" for note in notes_of(files, scans))
        listed = {
            name: cache.Listed(
                rows=_places(own, listing.splits, name)[scans[name].read],
                labels=np.array([own[index].label for index in scans[name].read], np.int32),
                image_shape=scan.image_shape, class_names=listing.class_names, training=training, notes=notes,
            )
            for (name, own), scan in zip(files.items(), scans.values(), strict=True)
        }  # fmt: skip
        return listed, scans["train"].varied


def _places(own: Sequence[File], splits: dict[str, tuple[File, ...]], name: str) -> np.ndarray:
    """Where the files of a split are in the listing: int64."""
    whole = splits[name] if len(splits) > 1 else splits["train"]
    place_of = {file.path: place for place, file in enumerate(whole)}
    return np.array([place_of[file.path] for file in own], np.int64)
