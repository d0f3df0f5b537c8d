"""The gradients of a convolution as convolutions written the way that XLA:CPU computes fast wherever they stand.

XLA:CPU hands a convolution to its fast kernel if its arrays are in the order NHWC, HWIO, NHWC and its window is not
reversed. JAX's own gradients are not written so. At the top of a program XLA rewrites them; in the body of a loop it
does not, and there they run ten times slower and more (jax-ml/jax#12868). Here the arrays are brought into that order
first, and the fast kernel runs in both places.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering import direct
from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.tiles import added


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, *out, O): its convolution with the kernel turned round."""
    # Without the barrier XLA turns the window instead, of which its fast kernels know nothing.
    return direct.conv(y, lax.optimization_barrier(turned(kernel, geometry.groups)), geometry.turned)


def turned(kernel: jax.Array, groups: int) -> jax.Array:
    """A kernel (*window, I / groups, O) with its window turned round and its channels swapped, (*, O / groups, I)."""
    window, (inputs, outputs) = kernel.shape[:-2], kernel.shape[-2:]
    kernel = jnp.flip(kernel, range(len(window))).reshape(*window, inputs, groups, outputs // groups)
    return kernel.swapaxes(-1, -3).reshape(*window, outputs // groups, groups * inputs)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int = 1) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): x is convolved with y.

    For that each input channel is an image, and the images of the batch are its channels.
    """
    return added(functools.partial(_weight_gradient, geometry=geometry), (x, y), tiles)


def _weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    groups, inputs = geometry.groups, x.shape[-1] // geometry.groups
    # Without the barrier XLA computes x anew, in the order of the transpose, if that can be done element by element.
    x, y = lax.optimization_barrier((x, y))
    images = x.reshape(*x.shape[:-1], groups, inputs)
    images = jnp.moveaxis(images, (0, -1), (-1, 0)).reshape(inputs, *geometry.size, groups * len(x))
    return jnp.moveaxis(direct.conv(images, jnp.moveaxis(y, 0, -2), geometry.correlation), 0, -2)
