"""The input gradient of a strided convolution, and so a transposed convolution, as one convolution at stride 1.

Where the window is a whole number of strides, an input sees as many outputs as any other, and inputs that lie at the
same place of a stride (a phase) see them through the same part of the window. All phases of a stride together are the
channels of one convolution over the outputs, and are then laid side by side ("depth to space"; Shi et al., "Real-Time
Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", 2016,
arXiv:1609.05158, section 3.2). No zero between the outputs is multiplied, as XLA:CPU's own convolution does.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering import direct
from cnn_jax.lowering.geometry import Geometry


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O); the window is a multiple of the strides."""
    (n, *_, outputs), inputs, (down, right) = y.shape, kernel.shape[2], geometry.strides
    parts = rows, columns = geometry.window[0] // down, geometry.window[1] // right
    # Strides of the window in turned order, each with its phases and channels as outputs.
    strides = jnp.flip(kernel.reshape(rows, down, columns, right, inputs, outputs), (0, 2))
    strides = strides.transpose(0, 2, 5, 1, 3, 4).reshape(*parts, outputs, -1)
    over = dataclasses.replace(
        geometry, size=geometry.out, window=parts, strides=(1, 1), padding=tuple((part - 1, part - 1) for part in parts)
    )
    (rows, columns), phases = over.out, direct.conv(y, strides, over)
    x = phases.reshape(n, rows, columns, down, -1).swapaxes(2, 3).reshape(n, rows * down, columns * right, inputs)
    config = [(0, 0, 0)]
    for (low, _), size, extent in zip(geometry.padding, geometry.size, x.shape[1:3], strict=True):
        config.append((-low, size + low - extent, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), [*config, (0, 0, 0)])
