"""How each function is put to XLA.

`cnn_jax.functional` says what a function means: it checks the arguments, turns every accepted form of a geometry
into plain tuples, and then comes through the names below, and through nothing else. What arrives here is therefore
always valid: one batch dimension, channels last, explicit zero padding, arrays of one inexact dtype (pools also
take integers). A faster way of computing the same thing is chosen here, and its caller need not know.
"""

from cnn_jax.lowering.direct import conv, dot, reduce_window

__all__ = ["conv", "dot", "reduce_window"]
