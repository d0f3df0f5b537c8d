"""Linen modules on `cnn_jax.functional`.

Each has the fields, defaults, parameter names, initial values and results of the flax.linen module or function of
the same name, so that either can stand in for the other and parameters load across. Left out are Linen's hooks for
replacing the computation itself (`promote_dtype`, `conv_general_dilated`, `dot_general`): that is what
`cnn_jax.lowering` is for. Pools, which Linen has as functions only, are modules here so that they can have a name.
`PartialConv`, `Subsample` and `RadialBasis` are those of LeCun et al. (1998) that Flax lacks.
"""

from cnn_jax.layers.lecun import PartialConv, RadialBasis, Subsample
from cnn_jax.layers.linear import Conv, ConvTranspose, Dense
from cnn_jax.layers.pooling import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool, MinPool

__all__ = [
    "AvgPool",
    "Conv",
    "ConvTranspose",
    "Dense",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "MaxPool",
    "MinPool",
    "PartialConv",
    "RadialBasis",
    "Subsample",
]
