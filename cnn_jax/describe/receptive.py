"""Receptive fields: which pixels of the input a unit sees, along one spatial axis, and how that grows.

Size, stride and offset follow the recurrences of Araujo, Norris and Sim, "Computing receptive fields of convolutional
neural networks", Distill (2019), section "Solving for receptive field size".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Field:
    """What the units along one axis of a volume see of one axis of the input.

    Unit i sees pixels offset + i * stride to offset + i * stride + size - 1, as far as the image goes. Where a window
    is dilated or a stride leaves pixels out, there are gaps within; and beside the padding of a layer in between, a
    unit sees less than its size. `pixels` knows of both. Where channels see different pixels, all of them count.

    Attributes:
      size: pixels from the first to the last that a unit sees.
      stride: pixels from one unit to the next; None where all units see the same.
      offset: the first pixel that unit 0 sees, counted from 0; negative where it lies in the padding.
    """

    size: int
    stride: int | None
    offset: int
    _sees: Callable[[int], frozenset[int]] = field(repr=False, compare=False)

    def pixels(self, unit: int = 0) -> tuple[int, ...]:
        """The pixels within the image that a unit sees, in order and exactly: those its value can depend on."""
        return tuple(sorted(self._sees(unit)))


def image() -> Field:
    """The field of the pixels themselves."""
    return Field(1, 1, 0, lambda unit: frozenset((unit,)))


def window(of: Field, count: int, taps: Sequence[int], stride: int, low: int) -> Field:
    """What a window sees that slides over `count` units with the field `of`.

    Args:
      taps: ascending positions of the window's elements from its first; not necessarily 0.
      stride: units from one window to the next.
      low: units of padding before the first one; negative where the window starts within.
    """
    assert of.stride is not None

    @functools.cache
    def sees(unit: int) -> frozenset[int]:
        units = (unit * stride - low + tap for tap in taps)
        return frozenset().union(*(of._sees(u) for u in units if 0 <= u < count))

    return Field(
        size=of.size + (taps[-1] - taps[0]) * of.stride,
        stride=of.stride * stride,
        offset=of.offset + (taps[0] - low) * of.stride,
        _sees=sees,
    )


def whole(of: Field, count: int) -> Field:
    """What `count` units see together."""
    if of.stride is None:
        return of

    @functools.cache
    def sees(_: int) -> frozenset[int]:
        return frozenset().union(*map(of._sees, range(count)))

    return Field(of.size + (count - 1) * of.stride, None, of.offset, lambda _: sees(0))


def union(one: Field, other: Field) -> Field:
    """What units see that see both; their strides must be equal."""
    assert one.stride == other.stride
    start = min(one.offset, other.offset)
    end = max(one.offset + one.size, other.offset + other.size)
    sees = functools.cache(lambda unit: one._sees(unit) | other._sees(unit))
    return Field(end - start, one.stride, start, sees)


@dataclass(frozen=True)
class Axis:
    """How an array sees one axis of the input.

    Attributes:
      field: what a unit sees; None where it cannot be told as size, stride and offset.
      dim: dimension of the array along which the units lie; None where every element sees the same.
      parts: the elements along `dim` see parts of `field`, in some order, and all of it together: what flattening
        leaves. The field's stride is None then.
    """

    field: Field | None
    dim: int | None = None
    parts: bool = False

    def at(self, dim: int) -> Axis:
        """The same along another dimension."""
        return self if self.field is None else replace(self, dim=dim)

    def together(self, count: int) -> Axis:
        """What an element sees that takes in all `count` elements along the dimension."""
        return Axis(self.field and whole(self.field, count))

    def as_parts(self, dim: int, count: int) -> Axis:
        """The same with the order of the `count` elements forgotten, along the dimension that they are now in."""
        return self if self.field is None else Axis(whole(self.field, count), dim, parts=True)

    def slid(self, count: int, taps: Sequence[int], stride: int, low: int) -> Axis:
        """What a window sees that slides along the dimension; see `window`."""
        if self.field is None or self.parts:
            return UNKNOWN
        return replace(self, field=window(self.field, count, taps, stride, low))


UNKNOWN = Axis(None)


def join(one: Axis, other: Axis, shape: Sequence[int]) -> Axis:
    """What the elements of an array of this shape see that see both."""
    if one.field is None or other.field is None:
        return UNKNOWN
    if (one.dim, one.parts) == (other.dim, other.parts):
        return replace(one, field=union(one.field, other.field)) if one.field.stride == other.field.stride else UNKNOWN
    if one.dim is not None:
        one, other = other, one
    if one.dim is not None or other.dim is None:
        return UNKNOWN
    # One is the same everywhere, as a mean over the volume is. It decides if it sees all that the other one does.
    assert one.field is not None
    assert other.field is not None
    part = whole(other.field, shape[other.dim])
    covered = one.field.offset <= part.offset and part.offset + part.size <= one.field.offset + one.field.size
    return one if covered else UNKNOWN
