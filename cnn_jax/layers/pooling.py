"""Pools as modules."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from cnn_jax import functional
from cnn_jax.functional.arguments import Padding


class MaxPool(nn.Module):
    """Maximum over windows; fields as the arguments of `cnn_jax.functional.max_pool`."""

    window_shape: Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, C) to (*batch, *out, C)."""
        return functional.max_pool(inputs, self.window_shape, self.strides, self.padding)


class MinPool(nn.Module):
    """Minimum over windows; fields as the arguments of `cnn_jax.functional.min_pool`."""

    window_shape: Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, C) to (*batch, *out, C)."""
        return functional.min_pool(inputs, self.window_shape, self.strides, self.padding)


class AvgPool(nn.Module):
    """Average over windows; fields as the arguments of `cnn_jax.functional.avg_pool`."""

    window_shape: Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"
    count_include_pad: bool = True

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, C) to (*batch, *out, C)."""
        return functional.avg_pool(inputs, self.window_shape, self.strides, self.padding, self.count_include_pad)


class GlobalAvgPool(nn.Module):
    """Average over all spatial dimensions."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (N, *spatial, C) to (N, C)."""
        return functional.global_avg_pool(inputs)


class GlobalMaxPool(nn.Module):
    """Maximum over all spatial dimensions."""

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (N, *spatial, C) to (N, C)."""
        return functional.global_max_pool(inputs)
