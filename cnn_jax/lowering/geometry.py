"""The shapes of convolutions and pools, without the sizes of batch and channels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jax.lax import PrecisionLike


@dataclass(frozen=True)
class Geometry:
    """A convolution of images (N, *size, I) with windows of a kernel (*window, I / groups, O).

    Attributes:
      size, window: of the input and of the kernel, in each spatial dimension.
      strides, input_dilation, kernel_dilation: in each dimension.
      padding: zeros before and after each dimension of the dilated input; a negative count crops.
      groups: number of channel groups.
      precision: as in `jax.lax.conv_general_dilated`.
    """

    size: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    groups: int
    precision: PrecisionLike

    @property
    def out(self) -> tuple[int, ...]:
        """Height and width of the output."""
        return tuple(
            map(
                _positions,
                self.size,
                self.window,
                self.strides,
                self.padding,
                self.input_dilation,
                self.kernel_dilation,
            )
        )

    @property
    def transposed(self) -> bool:
        """Whether this is the input gradient of a strided convolution, and nothing more."""
        return self.strides == (1, 1) == self.kernel_dilation and self.input_dilation != (1, 1) and self.groups == 1

    @property
    def transpose(self) -> Geometry:
        """The strided convolution whose input gradient this is, with the kernel flipped and its channels swapped."""
        return dataclasses.replace(
            self,
            size=self.out,
            strides=self.input_dilation,
            padding=tuple(
                (w - 1 - low, w - 1 - high) for w, (low, high) in zip(self.window, self.padding, strict=True)
            ),
            input_dilation=(1, 1),
        )


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
    padded = (size - 1) * input_dilation + 1 + sum(padding) if size else sum(padding)
    return (padded - (window - 1) * kernel_dilation - 1) // stride + 1
