"""Convolution as matrix products of channels, one for each place ("tap") of the window, or all of them together.

At each tap the convolution is a product: the elements of the input which that tap meets, (N * h * w, I), with the
kernel's matrix there, (I, O). XLA:CPU's own convolution is as fast where images are large, since it never writes the
patches down. It is slower where images are small, and its weight gradient nearly everywhere.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.lowering.geometry import Geometry
from cnn_jax.lowering.padding import padded
from cnn_jax.lowering.products import product, wide
from cnn_jax.lowering.tiles import added


def conv(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Convolution of x (N, H, W, I) with kernel (kh, kw, I, O): the taps side by side, in one product."""
    y = product(_patches(x, geometry), kernel.reshape(-1, kernel.shape[-1]), (1, 0), geometry.precision, x.dtype)
    return y.reshape(x.shape[0], *geometry.out, -1)


def weight_gradient(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the kernel, from x (N, H, W, I) and the cotangent y (N, h, w, O): a product for each tap."""
    inputs, outputs = x.shape[-1], y.shape[-1]
    y = y.reshape(-1, outputs)
    each = [product(tap.reshape(-1, inputs), y, (0, 0), geometry.precision, x.dtype) for tap in seen(x, geometry)]
    return jnp.stack(each).reshape(*geometry.window, inputs, outputs)


def weight_gradient_together(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """The same: the taps side by side, in one product."""
    gradient = product(_patches(x, geometry), y.reshape(-1, y.shape[-1]), (0, 0), geometry.precision, x.dtype)
    return gradient.reshape(*geometry.window, x.shape[-1], y.shape[-1])


def weight_gradient_stacked(x: jax.Array, y: jax.Array, geometry: Geometry, tiles: int, runs: int) -> jax.Array:
    """The same: the taps of each channel one above the other, and a product for each of some runs of images.

    Images and places then lie along the rows of the first operand, of which XLA's products are the faster ones, and
    what a tap meets is copied by rows of an image instead of by the few channels of a place.
    """
    inputs, outputs = x.shape[-1], y.shape[-1]

    def gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        x = padded(x, geometry)
        # Both are written down, or XLA looks for an element of x at every tap, and again in the product.
        x = lax.optimization_barrier(jnp.moveaxis(x.reshape(runs, -1, *x.shape[1:]), -1, 1))
        y = y.reshape(runs, -1, outputs)
        stacked = jnp.concatenate(_slices(x, geometry, 3), 1).reshape(runs, -1, y.shape[1])
        each = functools.partial(product, axes=(1, 0), precision=geometry.precision, dtype=wide(x.dtype))
        return jax.vmap(each)(lax.optimization_barrier(stacked), y).sum(0)

    return added(gradient, (x, y), tiles).reshape(*geometry.window, inputs, outputs).astype(x.dtype)


def input_gradient(y: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Gradient to the input, from the cotangent y (N, h, w, O): one product, and the taps added up where they lie."""
    inputs, outputs = kernel.shape[2:]
    matrix = kernel.reshape(-1, outputs)
    shares = product(y.reshape(-1, outputs), matrix, (1, 1), geometry.precision, wide(y.dtype))
    shares = shares.reshape(*y.shape[:3], -1, inputs)
    return spread([shares[..., n, :] for n in range(shares.shape[3])], geometry).astype(y.dtype)


def _patches(x: jax.Array, geometry: Geometry) -> jax.Array:
    """What the taps meet of x (N, H, W, I), side by side: a matrix (N * h * w, kh * kw * I)."""
    patches = jnp.concatenate(seen(x, geometry), -1)
    return patches.reshape(-1, patches.shape[-1])


def seen(x: jax.Array, geometry: Geometry) -> list[jax.Array]:
    """What each tap, the last dimension first, meets of x (N, *size, C): arrays (N, *out, C)."""
    return _slices(padded(x, geometry), geometry, 1)


def _slices(x: jax.Array, geometry: Geometry, axis: int) -> list[jax.Array]:
    """What each tap meets of padded x, whose spatial dimensions are those from `axis` on."""
    runs = [
        [slice(k * step, k * step + (out - 1) * stride + 1, stride) for k in range(window)]
        for window, out, stride, step in zip(
            geometry.window, geometry.out, geometry.strides, geometry.kernel_dilation, strict=True
        )
    ]
    return [x[*(slice(None),) * axis, *run] for run in itertools.product(*runs)]


def spread(taps: list[jax.Array], geometry: Geometry) -> jax.Array:
    """The transpose of `seen`: each of `taps`, (N, h, w, C), put back where it was met, and all added up."""
    zero = jnp.zeros((), taps[0].dtype)
    total = None
    for tap, at in zip(taps, itertools.product(*map(range, geometry.window)), strict=True):
        config = [(0, 0, 0)]
        for i, (low, _), size, out, stride in zip(
            at, geometry.padding, geometry.size, geometry.out, geometry.strides, strict=True
        ):
            config.append((i - low, size - (i - low) - (out - 1) * stride - 1, stride - 1))
        piece = lax.pad(tap, zero, [*config, (0, 0, 0)])
        total = piece if total is None else total + piece
    # Without the barrier XLA adds the taps up again for every use.
    return lax.optimization_barrier(total)
