"""How each function is lowered to XLA.

`cnn_jax.functional` says what a function means: it checks the arguments, turns every accepted form of a geometry
into plain tuples, and then comes through the names below, and through nothing else. What arrives here is therefore
always valid: one batch dimension, channels last, explicit zero padding, arrays of one inexact dtype (pools also
take integers). A faster way of computing the same thing is chosen here, and its caller need not know.

`choice` says which way is taken where, `use` overrides it. README.md beside this file says what was measured.
"""

from cnn_jax.lowering.choice import use
from cnn_jax.lowering.direct import dot
from cnn_jax.lowering.dispatch import add_bias, conv, reduce_window
from cnn_jax.lowering.general import conv_general_dilated
from cnn_jax.lowering.onednn import jit

__all__ = ["add_bias", "conv", "conv_general_dilated", "dot", "jit", "reduce_window", "use"]
