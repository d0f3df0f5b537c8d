"""How much of what a chip can do a run uses, its "model FLOP/s utilisation"."""

from __future__ import annotations

import contextlib
import functools

import jax

from cnn_jax.errors import InputError
from cnn_jax.training.recipe import Recipe
from cnn_jax.training.state import TrainState

# Multiplications and additions a second of dense products in bfloat16, as the makers' data sheets have them, by parts
# of JAX's names of devices. NVIDIA's do half as many in TF32, in which XLA multiplies float32 there; TPUs multiply
# float32 in bfloat16 as well.
_PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12,
    "TPU v6 lite": 918e12, "TPU v6e": 918e12,
}  # fmt: skip


class Peak:
    """Compares a run with the peak of its devices.

    Args:
        recipe: its network and precision.
        image_shape: (height, width, channels) of one image, before it is augmented.
    """

    def __init__(self, recipe: Recipe, image_shape: tuple[int, ...]):
        self._recipe, self._image_shape = recipe, image_shape

    def share(self, state: TrainState, images_per_second: float) -> float | None:
        """The share that training uses, from 0 to 1: its multiplications and additions, of the model's layers alone.

        None where the devices that the state is on are not known, or the model cannot be described.
        """
        devices = list(jax.tree.leaves(state.step)[0].devices())
        most = peak(devices[0].device_kind, self._recipe.precision)
        if most is None or not self._multiply_adds:
            return None
        # A product and a sum each; and a gradient takes twice as many as the scores that it is of.
        return 6 * self._multiply_adds * images_per_second / (most * len(devices))

    @functools.cached_property
    def _multiply_adds(self) -> int:
        """Of the scores of one image, in its first size if it has several; 0 where that is not known."""
        from cnn_jax.describe import describe

        with contextlib.suppress(InputError):
            shape = self._recipe.after(0.0).trained_shape(self._image_shape)
            return describe(self._recipe.model, shape).total.multiply_adds
        return 0


def peak(kind: str, precision: str) -> float | None:
    """What a device can do at most, in multiplications and additions a second, each counted; None if that is not known.

    Args:
        kind: as `jax.Device.device_kind` has it.
        precision: that a recipe computes in.
    """
    found = next((value for name, value in _PEAKS.items() if name.lower() in kind.lower()), None)
    return found if found is None or precision == "bfloat16" or "TPU" in kind else found / 2
