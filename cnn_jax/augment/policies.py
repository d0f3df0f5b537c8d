"""RandAugment and TrivialAugment: operations drawn at random, at one strength or at random ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_jax.augment import operations
from cnn_jax.augment.base import Context, PixelTransform, check_channels, is_share
from cnn_jax.parts import is_concrete, is_non_negative

LEVELS = 30  # strengths are from 0 to 30, in both papers
_MOVES = "shear_x", "shear_y", "translate_x", "translate_y", "rotate"
KINDS = (
    *_MOVES, "identity", "brightness", "contrast", "saturation", "sharpness", "posterize", "solarize", "autocontrast",
    "equalize",
)  # fmt: skip
"""What a policy chooses from, each equally likely, by its number."""


class Strongest(NamedTuple):
    """What the greatest strength does; the others do it in proportion.

    Attributes:
      shear: columns moved per row, or rows per column.
      rows: and `columns`, how far a translation goes, in pixels.
      columns: see there.
      degrees: of a rotation.
      factor: by how much the factors of brightness, contrast, saturation and sharpness leave 1.
      bits: taken from each value by posterising.
    """

    shear: float
    rows: float
    columns: float
    degrees: float
    factor: float
    bits: int


def operate(
    image: jax.Array, kind: jax.Array, strength: jax.Array | float, negative: jax.Array, strongest: Strongest
) -> jax.Array:
    """The image after one operation.

    Whole numbers, of pixels and of bits, are rounded: pixels towards 0, bits to the nearest.

    Args:
      image: uint8 (H, W, C), with one channel or three.
      kind: int32 scalar, the number of one of `KINDS`.
      strength: from 0 to `LEVELS`.
      negative: bool scalar; moves the other way, and makes factors less than 1.
      strongest: what the greatest strength does.
    """
    share = jnp.asarray(strength, jnp.float32) / LEVELS
    signed = jnp.where(negative, -share, share)
    factor = 1.0 + signed * strongest.factor
    bits = 8 - jnp.round(share * strongest.bits).astype(jnp.int32)
    made: list[Callable[[jax.Array], jax.Array]] = [
        lambda x: operations.move(x, *_plane(kind, signed, strongest, x.shape)),  # all moves as one
        lambda x: x,
        lambda x: operations.brightness(x, factor),
        lambda x: operations.contrast(x, factor),
        lambda x: operations.saturation(x, factor),
        lambda x: operations.sharpness(x, factor),
        lambda x: operations.posterize(x, bits),
        lambda x: operations.solarize(x, 255.0 * (1.0 - share)),
        operations.autocontrast,
        operations.equalize,
    ]
    return jax.lax.switch(jnp.maximum(kind - len(_MOVES) + 1, 0), made, image)


def _plane(
    kind: jax.Array, signed: jax.Array, strongest: Strongest, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Matrix and shift of one of `_MOVES`, as `operations.move` takes them; shearing holds the upper left corner."""
    shear, angle = signed * strongest.shear, jnp.deg2rad(signed * strongest.degrees)
    rows, columns = (jnp.trunc(signed * most) for most in (strongest.rows, strongest.columns))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    one, zero = jnp.ones(()), jnp.zeros(())
    maps = jnp.array([
        [one, zero, shear, one, zero, shear * shape[0] / 2],
        [one, shear, zero, one, shear * shape[1] / 2, zero],
        [one, zero, zero, one, zero, -columns],
        [one, zero, zero, one, -rows, zero],
        [cos, sin, -sin, cos, zero, zero],
    ])  # fmt: skip
    chosen = maps[jnp.minimum(kind, len(_MOVES) - 1)]
    return chosen[:4].reshape(2, 2), chosen[4:]


@dataclass(frozen=True)
class RandAugment(PixelTransform):
    """Several operations drawn from fourteen, all of one strength: Cubuk et al. 2020, "RandAugment", section 3.

    What the strengths mean is as in torchvision: at 30, shears by 0.3, translations by 150/331 of a side, rotations by
    30 degrees, factors from 0.1 to 1.9, four bits a value. What moves in is black.
    """

    operations: int = 2
    """How many operations, N in the paper; it is part of the compiled program."""
    magnitude: float = 9.0
    """Their strength, from 0 to 30, M in the paper."""
    spread: float = 0.0
    """Standard deviation of the strength of each operation, which stays between 0 and 30; 0 has all of one strength."""
    chance: float = 1.0
    """The chance of each operation to be carried out."""

    def __post_init__(self) -> None:
        self.check("operations", lambda count: isinstance(count, int) and count >= 0, "a whole number >= 0")
        self.check("magnitude", lambda strength: 0 <= strength <= LEVELS, f"a number from 0 to {LEVELS}")
        self.check("spread", is_non_negative, "a number >= 0")
        self.check("chance", is_share, "a number from 0 to 1")

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image after all operations.

        With `kinds, signs = jax.random.split(key)`: they are `jax.random.randint(kinds, (operations,), 0, 14)`, numbers
        in `KINDS`, negative where `jax.random.bernoulli(signs, 0.5, (operations,))`. With a spread, the strengths are
        `magnitude + spread * jax.random.normal(jax.random.fold_in(key, 1), (operations,))`; with a chance below 1,
        those are carried out where `jax.random.bernoulli(jax.random.fold_in(key, 2), chance, (operations,))`.
        """
        check_channels(self, image)
        side = 150 / 331
        strongest = Strongest(0.3, side * image.shape[0], side * image.shape[1], 30.0, 0.9, 4)
        kinds, signs = jax.random.split(context.key)
        negative = jax.random.bernoulli(signs, 0.5, (self.operations,))
        chosen = jax.random.randint(kinds, (self.operations,), 0, len(KINDS))
        strengths = jnp.broadcast_to(jnp.asarray(self.magnitude, jnp.float32), (self.operations,))
        if not is_concrete(self.spread) or self.spread:
            drawn = jax.random.normal(jax.random.fold_in(context.key, 1), (self.operations,))
            strengths = jnp.clip(strengths + self.spread * drawn, 0, LEVELS)
        if not is_concrete(self.chance) or self.chance < 1:
            kept = jax.random.bernoulli(jax.random.fold_in(context.key, 2), self.chance, (self.operations,))
            chosen = jnp.where(kept, chosen, KINDS.index("identity"))
        for n in range(self.operations):
            image = operate(image, chosen[n], strengths[n], negative[n], strongest)
        return image


@dataclass(frozen=True)
class TrivialAugment(PixelTransform):
    """One operation of fourteen, of a random strength: Müller and Hutter 2021, "TrivialAugment", section 3.

    The strengths are those of its wide space, at 30: shears by 0.99, translations by 32 pixels, rotations by 135
    degrees, factors from 0.01 to 1.99, six bits a value. What moves in is black.
    """

    def __call__(self, context: Context, image: jax.Array) -> jax.Array:
        """The image after the operation.

        With `kinds, strengths, signs = jax.random.split(key, 3)`: it is number `jax.random.randint(kinds, (), 0, 14)`
        of `KINDS`, of the strength `jax.random.randint(strengths, (), 0, 31)`, negative if
        `jax.random.bernoulli(signs)`.
        """
        check_channels(self, image)
        kinds, strengths, signs = jax.random.split(context.key, 3)
        kind = jax.random.randint(kinds, (), 0, len(KINDS))
        strength = jax.random.randint(strengths, (), 0, LEVELS + 1)
        return operate(image, kind, strength, jax.random.bernoulli(signs), Strongest(0.99, 32.0, 32.0, 135.0, 0.99, 6))
