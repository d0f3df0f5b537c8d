"""The shapes of convolutions and pools, without the sizes of batch and channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jax.lax import PrecisionLike

# What a geometry has for each dimension.
_EACH = ("size", "window", "strides", "padding", "input_dilation", "kernel_dilation")


@dataclass(frozen=True)
class Geometry:
    """A convolution of volumes (N, *size, I) with windows of a kernel (*window, I / groups, O).

    Attributes:
      size, window: of the input and of the kernel, in each spatial dimension.
      strides, input_dilation, kernel_dilation: in each dimension.
      padding: zeros before and after each dimension of the dilated input; a negative count crops.
      groups: number of channel groups.
      precision: as in `jax.lax.conv_general_dilated`.
      onednn: whether it stands in a program that `onednn.jit` compiles.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int
    precision: PrecisionLike
    onednn: bool = False

    @property
    def out(self) -> tuple[int, ...]:
        """Extents of the output."""
        dimensions = (self.size, self.window, self.strides, self.padding, self.input_dilation, self.kernel_dilation)
        return tuple(map(_positions, *dimensions))

    @property
    def turned(self) -> Geometry:
        """Of the input gradient as a convolution of the cotangent with the kernel turned round, channels swapped."""
        padding = tuple((window - 1 - low, low + input - out) for low, window, input, out in self._extents())
        return dataclasses.replace(
            self, size=self.out, padding=padding, strides=self.input_dilation, input_dilation=self.strides
        )

    @property
    def correlation(self) -> Geometry:
        """Of the weight gradient as a convolution of the input with the cotangent, batch and channels swapped."""
        padding = tuple((low, out + window - 1 - low - input) for low, window, input, out in self._extents())
        return dataclasses.replace(
            self, window=self.out, padding=padding, strides=self.kernel_dilation, kernel_dilation=self.strides
        )

    def _extents(self) -> Iterator[tuple[int, int, int, int]]:
        """Of each dimension the padding before it, and the extents of window, input and output, all dilated."""
        return zip(
            (low for low, _ in self.padding),
            map(_dilated, self.window, self.kernel_dilation),
            map(_dilated, self.size, self.input_dilation),
            map(_dilated, self.out, self.strides),
            strict=True,
        )

    @property
    def transposed(self) -> bool:
        """Whether this is the input gradient of a strided convolution, and nothing more."""
        ones = (1,) * len(self.size)
        plain = self.strides == ones == self.kernel_dilation
        return plain and self.input_dilation != ones and self.groups == 1

    @property
    def row(self) -> bool:
        """Whether these are images of one row, as which one spatial dimension is taken."""
        return len(self.size) == 2 and self.size[0] == self.window[0] == 1 and self.padding[0] == (0, 0)

    def without(self, axis: int) -> Geometry:
        """The same without a dimension that has one element and sees no other."""
        values: dict[str, Any] = {key: getattr(self, key)[:axis] + getattr(self, key)[axis + 1 :] for key in _EACH}
        return dataclasses.replace(self, **values)

    def as_row(self) -> Geometry:
        """Of images of one row, for a geometry of one dimension."""
        values: dict[str, Any] = {key: (1, *getattr(self, key)) for key in _EACH}
        return dataclasses.replace(self, **values | {"padding": ((0, 0), *self.padding)})

    @property
    def narrow(self) -> bool:
        """Whether a window is wider than the input, or can lie in padding alone."""
        windows, sizes = map(_dilated, self.window, self.kernel_dilation), map(_dilated, self.size, self.input_dilation)
        return any(w > n or w <= max(pair) for w, n, pair in zip(windows, sizes, self.padding, strict=True))


@dataclass(frozen=True)
class Windows:
    """Windows over volumes (N, *size, C).

    Attributes:
      size: of the volume, in each spatial dimension.
      window, strides: extent and step of the windows.
      padding: what is added before and after each dimension.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def out(self) -> tuple[int, ...]:
        """How many windows there are in each dimension."""
        ones = (1,) * len(self.size)
        return tuple(map(_positions, self.size, self.window, self.strides, self.padding, ones, ones))

    @property
    def overlap(self) -> bool:
        """Whether an element lies in several windows."""
        return any(window > stride for window, stride in zip(self.window, self.strides, strict=True))


def _positions(
    size: int, window: int, stride: int, padding: tuple[int, int], input_dilation: int, kernel_dilation: int
) -> int:
    padded = (_dilated(size, input_dilation) if size else 0) + sum(padding)
    return (padded - _dilated(window, kernel_dilation)) // stride + 1


def _dilated(size: int, dilation: int) -> int:
    """What so many elements extend over, if each is so far from the next."""
    return (size - 1) * dilation + 1
