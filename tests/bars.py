"""A stand-in for a trained detector, which finds upright bars, and a picture of some."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.runs import Run
from cnn_jax.training import Accuracy, SoftmaxCrossEntropy

SIDE = 32
STATISTICS = data.Statistics(mean=(0.1,), std=(0.3,))
BARS = np.array([(30, 20, 48, 23), (60, 70, 84, 74), (82, 115, 100, 119)])  # one in a corner
LONG_BAR, TICK = (20, 95, 70, 105), (5, 60, 14, 63)


class BarFinder:
    """Takes the place of a network of two classes: says "bar" of windows with something 14 to 24 pixels high in them.

    More exactly, of those with ink in the rows 9 and 22 of their four middle columns and none in the rows 3 and 28.
    Windows are four pixels apart.
    """

    input_size = (SIDE, SIDE)

    def apply(self, variables, images):
        ink = images[..., 0] > 1.0
        height, width = (length - SIDE + 1 for length in ink.shape[1:])
        middle = jnp.stack([ink[:, :, x : x + width : 4] for x in range(14, 18)]).any(axis=0)
        above, top, bottom, below = (middle[:, y : y + height : 4] for y in (3, 9, 22, 28))
        bar = top & bottom & ~above & ~below
        scores = 8.0 * jnp.stack([bar, ~bar], axis=-1)
        return scores[:, 0, 0] if scores.shape[1:3] == (1, 1) else scores

    def init_with_output(self, key, images):
        return self.apply({}, images), {}


def picture() -> np.ndarray:
    """Three bars, a tick that is too short, and a bar that is too long where digits are 15 to 30 pixels: (100, 120)."""
    image = np.full((100, 120), 10, np.uint8)
    for top, left, bottom, right in (*BARS, LONG_BAR, TICK):
        image[top:bottom, left:right] = 220
    return image


def run() -> Run:
    """What `load_run` would give, were there a folder "bars"."""
    return Run(
        path=Path("bars"), model=BarFinder(), variables={}, step=1, best=False, data_name="bars",
        image_shape=(SIDE, SIDE, 1), class_names=("bar", "background"), statistics=STATISTICS,
        loss=SoftmaxCrossEntropy(), metrics=(Accuracy(),),
    )  # fmt: skip
