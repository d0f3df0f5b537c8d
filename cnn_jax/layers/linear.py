"""Convolution, transposed convolution and dense layer."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from flax.linen.dtypes import promote_dtype
from flax.typing import Dtype, Initializer
from jax.lax import PrecisionLike

from cnn_jax import functional
from cnn_jax.functional import arguments
from cnn_jax.functional.arguments import Padding
from cnn_jax.layers.shapes import channels_of, kernel_window


class Conv(nn.Module):
    """Convolution; see `cnn_jax.functional.conv` for the meaning of the geometry.

    Attributes:
      features: number of output channels.
      kernel_size: extent of the window in each spatial dimension; an int is one dimension.
      strides, padding, input_dilation, kernel_dilation, feature_group_count, precision: as in `functional.conv`.
      use_bias: whether a bias is added.
      mask: array of the kernel's shape that multiplies the kernel, or None.
      dtype: of the computation and the result; None takes the common dtype of input and parameters.
      param_dtype: of the parameters.
      kernel_init, bias_init: initialisers of `kernel` (*window, I / feature_group_count, O) and `bias` (O,).
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: Padding = "SAME"
    input_dilation: int | Sequence[int] | None = 1
    kernel_dilation: int | Sequence[int] | None = 1
    feature_group_count: int = 1
    use_bias: bool = True
    mask: jax.Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros_init()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, I) to (*batch, *out, features)."""
        window = kernel_window("Conv", self.kernel_size)
        groups = arguments.positive("Conv", "feature_group_count", self.feature_group_count)
        channels = channels_of("Conv", inputs)
        if channels % groups:
            raise ValueError(f"Conv: {channels} input channels cannot be divided into feature_group_count={groups}")
        kernel = self.param("kernel", self.kernel_init, (*window, channels // groups, self.features), self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        inputs, kernel, bias = promote_dtype(inputs, _masked("Conv", kernel, self.mask), bias, dtype=self.dtype)
        return functional.conv(
            inputs,
            kernel,
            bias,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=groups,
            precision=self.precision,
        )


class ConvTranspose(nn.Module):
    """Transposed convolution; see `cnn_jax.functional.conv_transpose` for the meaning of the geometry.

    Attributes:
      features: number of output channels.
      kernel_size: extent of the window in each spatial dimension; an int is one dimension.
      strides, padding, kernel_dilation, transpose_kernel, precision, preferred_element_type: as in
        `functional.conv_transpose`.
      use_bias, mask, dtype, param_dtype, kernel_init, bias_init: as in `Conv`; `kernel` is (*window, I, O), or
        (*window, O, I) with `transpose_kernel`.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] | None = None
    use_bias: bool = True
    mask: jax.Array | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros_init()
    transpose_kernel: bool = False
    preferred_element_type: Dtype | None = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, I) to (*batch, *out, features)."""
        window = kernel_window("ConvTranspose", self.kernel_size)
        channels = (channels_of("ConvTranspose", inputs), self.features)
        shape = window + (channels[::-1] if self.transpose_kernel else channels)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        kernel = _masked("ConvTranspose", kernel, self.mask)
        inputs, kernel, bias = promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return functional.conv_transpose(
            inputs,
            kernel,
            bias,
            strides=self.strides,
            padding=self.padding,
            kernel_dilation=self.kernel_dilation,
            transpose_kernel=self.transpose_kernel,
            precision=self.precision,
            preferred_element_type=self.preferred_element_type,
        )


class Dense(nn.Module):
    """Affine map of the last dimension.

    Attributes:
      features: number of outputs.
      use_bias, dtype, param_dtype, precision, kernel_init, bias_init: as in `Conv`; `kernel` is (I, features).
    """

    features: int
    use_bias: bool = True
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    precision: PrecisionLike = None
    kernel_init: Initializer = initializers.lecun_normal()
    bias_init: Initializer = initializers.zeros_init()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (..., I) to (..., features)."""
        shape = (channels_of("Dense", inputs), self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        inputs, kernel, bias = promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        return functional.dense(inputs, kernel, bias, precision=self.precision)


def _masked(caller: str, kernel: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return kernel
    if jnp.shape(mask) != kernel.shape:
        raise ValueError(f"{caller}: mask must have the kernel's shape {kernel.shape}, got {jnp.shape(mask)}")
    return kernel * mask
