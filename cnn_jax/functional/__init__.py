"""The mathematics of convolutional networks as pure functions of arrays.

Everything is channels last: inputs (*batch, *spatial, channels), kernels (*window, in, out). Argument names and
meanings are those of Flax Linen wherever Linen has the function. Misuse raises a one-line ValueError that says what
was expected and what arrived. How a function is lowered to XLA is the business of `cnn_jax.lowering`.
"""

from cnn_jax.functional.convolution import conv, conv_transpose
from cnn_jax.functional.pointwise import dense, scaled_tanh, squared_distances
from cnn_jax.functional.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool, min_pool, sum_pool

__all__ = [
    "avg_pool",
    "conv",
    "conv_transpose",
    "dense",
    "global_avg_pool",
    "global_max_pool",
    "max_pool",
    "min_pool",
    "scaled_tanh",
    "squared_distances",
    "sum_pool",
]
