"""Images that stay encoded until they are asked for, in place of an array that memory may not hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from cnn_jax.data.resizing import checked_size, fit_images


class Records(Protocol):
    """Encoded images, any of which can be read by itself. Processes that read them get a copy by `pickle`."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of each."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`, uint8 (H, W, C); InputError, in one line, where it cannot be read."""
        ...


class Encoded:
    """A sequence of encoded images, which looks like an array, uint8 (N, H, W, C), along its first axis.

    To index it decodes what is asked for and returns an array: `images[3]`, `images[10:20]`, `images[[4, 1]]`. Nothing
    that was decoded is kept. `np.asarray` decodes all.

    Args:
      records: the encoded images.
      rows: int (N,), which of them these are; by default all.
      size: (height, width) that each is brought to by `fit_images`; by default that of the records.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, records: Records, rows: np.ndarray | None = None, size: tuple[int, int] | None = None):
        self._records, self._size = records, size
        self._rows = np.arange(len(records)) if rows is None else rows

    @property
    def shape(self) -> tuple[int, int, int, int]:
        height, width, channels = self._records.image_shape
        return len(self._rows), *(self._size or (height, width)), channels

    @property
    def nbytes(self) -> int:
        """How large the array would be."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        rows = self._rows[key]
        if np.ndim(rows) == 0:
            return self._decode(int(rows))
        images = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        for place in np.ndindex(rows.shape):
            images[place] = self._decode(int(rows[place]))
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("encoded images are decoded into a new array")
        return self[:].astype(dtype or np.uint8, copy=False)

    def taken(self, rows: np.ndarray) -> Encoded:
        """Some of the images, still encoded."""
        return Encoded(self._records, self._rows[rows], self._size)

    def fitted(self, size: tuple[int, int]) -> Encoded:
        """The images brought to a size by `fit_images` when they are decoded; those brought to another size are not."""
        height, width = checked_size(size)
        if self.shape[1:3] == (height, width):
            return self
        if self._size is not None:
            raise ValueError(f"encoded images: expected to be brought to one size, got {self._size} and {size}")
        return Encoded(self._records, self._rows, (height, width))

    def _decode(self, row: int) -> np.ndarray:
        image = self._records[row]
        return image if self._size is None else fit_images(image[None], self._size)[0]


Images = np.ndarray | Encoded
"""uint8 (N, H, W, C)."""


def fitted(images: Images, size: tuple[int, int]) -> Images:
    """`fit_images`, of encoded images when they are decoded."""
    return images.fitted(size) if isinstance(images, Encoded) else fit_images(images, size)


def taken(images: Images, rows: np.ndarray) -> Images:
    """Some of the images, as an array if they are one."""
    return images.taken(rows) if isinstance(images, Encoded) else images[rows]
