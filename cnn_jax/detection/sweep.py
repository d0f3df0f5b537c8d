"""A network over a whole picture at once.

A convolutional network made for one digit, given a larger picture, computes what it would say of every window of it at
the network's own stride, each layer once for all windows: the space displacement network of LeCun, Bottou, Bengio and
Haffner 1998, "Gradient-based learning applied to document recognition", section VII.
"""

from __future__ import annotations

import math
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax import models
from cnn_jax.detection.windows import EXTENT
from cnn_jax.errors import InputError

_STEP = 2 ** (1 / 3)  # between the scales of a pyramid, at the most


def side_of(model: nn.Module) -> int:
    """The side in pixels of the windows that a model looks at, which is that of the images it is made for.

    Raises:
        InputError: it is made for images of any size, or for others than squares.
    """
    size = models.input_size(model)
    if size is None or size[0] != size[1]:
        raise InputError(f"{type(model).__name__}: expected a model whose input_size is a square, got {size}")
    return size[0]


def stride_of(model: nn.Module) -> int:
    """How many pixels apart the windows are whose scores a model gives for an image larger than its `input_size`.

    Raises:
        InputError: the model gives no grid of scores, or as `side_of`.
    """
    side = side_of(model)
    for extra in range(1, side + 1):
        image = jax.ShapeDtypeStruct((1, side + extra, side + extra, 1), jnp.float32)
        scores, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)
        if scores.ndim == 4:
            return extra
    raise InputError(f"{type(model).__name__}: expected a network that gives a grid of scores, as lenet5 does")


def sweep(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Scores (N, h, w, classes) of all windows of normalised images (N, H, W, C), as one convolution.

    The window in row i and column j has its upper left pixel at (i * stride, j * stride).
    """
    scores = cast(jax.Array, model.apply(variables, images))
    return scores if scores.ndim == 4 else scores[:, None, None]


def pyramid(smallest: float, largest: float, side: int) -> tuple[float, ...]:
    """Factors to resize a picture by, so that each digit is about `EXTENT` of a window's side long at one of them.

    Args:
        smallest: longer side of the smallest digits to look for, in pixels of the picture.
        largest: of the largest ones.
        side: of the windows, in pixels.

    Returns:
        Factors evenly apart, by 2 ** (1 / 3) at the most, the largest first: at one of them any digit is right to
        within half of such a step.
    """
    count = max(1, math.ceil(math.log(largest / smallest, _STEP) - 1e-6))
    step = (largest / smallest) ** (1 / count)
    return tuple(EXTENT * side / (smallest * step ** (k + 0.5)) for k in range(count))
