"""The layers of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from flax.linen.dtypes import promote_dtype
from flax.typing import Initializer

from cnn_jax import functional
from cnn_jax.functional import arguments
from cnn_jax.functional.arguments import Padding
from cnn_jax.layers.shapes import channels_of, kernel_window


class PartialConv(nn.Module):
    """Convolution in which each output map sees only some of the input maps, as C3 of LeNet-5 does (Table I).

    Its parameters are the weights that exist and no others: `kernel` (*window, number of connections) holds one
    window for each connected pair of maps, those of output map 0 first, in the order of `connections`; `bias` is
    (features,). For the computation they are put into an ordinary kernel with zeros elsewhere.

    Attributes:
      features: number of output maps.
      kernel_size: extent of the window in each spatial dimension; an int is one dimension.
      connections: for each output map the numbers of the input maps that it sees, each at least one and each once.
      strides, padding: as in `cnn_jax.functional.conv`.
      kernel_init: initialiser of all windows at once, as of a kernel (*window, 1, number of connections); each output
        map's are then divided by the square root of how many input maps it sees. So variance 1 / inputs goes by the
        inputs of each output map.
    """

    features: int
    kernel_size: int | Sequence[int]
    connections: tuple[tuple[int, ...], ...]
    strides: int | Sequence[int] | None = 1
    padding: Padding = "SAME"
    kernel_init: Initializer = initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, I) to (*batch, *out, features); ValueError for connections that do not fit."""
        window = kernel_window("PartialConv", self.kernel_size)
        channels = channels_of("PartialConv", inputs)
        self._check_connections(channels)

        counts = np.array([len(seen) for seen in self.connections])

        def init_kernel(key: jax.Array) -> jax.Array:
            drawn = self.kernel_init(key, (*window, 1, int(counts.sum())), jnp.float32)
            inputs = np.repeat(counts, counts).reshape(*(1,) * len(window), -1)
            return drawn[..., 0, :] / np.sqrt(inputs).astype(np.float32)

        weights = self.param("kernel", init_kernel)
        bias = self.param("bias", initializers.zeros_init(), (self.features,))
        sources = np.concatenate(self.connections)
        targets = np.repeat(np.arange(self.features), counts)
        kernel = jnp.zeros((*window, channels, self.features), weights.dtype)
        kernel = kernel.at[..., sources, targets].set(weights, unique_indices=True)
        return functional.conv(inputs, kernel, bias, strides=self.strides, padding=self.padding)

    def _check_connections(self, channels: int) -> None:
        if len(self.connections) != self.features:
            raise ValueError(
                f"PartialConv: connections must name the input maps of each of {self.features} output maps, "
                f"got {len(self.connections)} entries"
            )
        for seen in self.connections:
            if not seen or len(set(seen)) < len(seen) or not set(seen) <= set(range(channels)):
                raise ValueError(
                    f"PartialConv: each entry of connections must be one or more of the {channels} input maps, "
                    f"counted from 0, each once; got {seen}"
                )


class Subsample(nn.Module):
    """The sum of each window times one trained coefficient a map, plus one trained bias a map (section II.B).

    The windows do not overlap: the stride is the window's extent, and what is left over at the end is not seen.
    The coefficient `scale` (C,) begins as 1 / (size of the window), `bias` (C,) as zero: at first, a plain average.

    Attributes:
      window_shape: extent of the window in each spatial dimension.
    """

    window_shape: Sequence[int]

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (*batch, *spatial, C) to (*batch, *out, C)."""
        window = arguments.window("Subsample", "window_shape", self.window_shape)
        channels = channels_of("Subsample", inputs)
        scale = self.param("scale", initializers.constant(1 / math.prod(window)), (channels,))
        bias = self.param("bias", initializers.zeros_init(), (channels,))
        inputs, scale, bias = promote_dtype(inputs, scale, bias)
        scale, bias = (jax.lax.expand_dims(a, range(inputs.ndim - 1)) for a in (scale, bias))
        return functional.sum_pool(inputs, window, strides=window) * scale + bias


class RadialBasis(nn.Module):
    """Euclidean radial basis units: the squared distances of the input to fixed centres (section II.B, equation 7).

    Attributes:
      centres: (units, I); no parameters.
    """

    centres: np.ndarray

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps (..., I) to (..., units)."""
        # Unlike parameters, the centres cannot be cast to the dtype of the inputs beforehand.
        with jax.numpy_dtype_promotion("standard"):
            return functional.squared_distances(inputs, jnp.asarray(self.centres))
