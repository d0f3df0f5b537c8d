"""Functions that act on each position by itself: dense layer, radial basis units, activations that jax.nn lacks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from cnn_jax import lowering
from cnn_jax.functional import arguments


def dense(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, *, precision: PrecisionLike = None
) -> jax.Array:
    """The affine map x @ kernel + bias over the last dimension; `flax.linen.Dense` as a function.

    Args:
      x: (..., I).
      kernel: (I, O).
      bias: (O,) or None.
      precision: as in `jax.lax.dot_general`.

    Returns:
      (..., O), in the common dtype of x, kernel and bias; integers are first converted to float32.

    Raises:
      ValueError: in one line, for shapes that do not go together.
    """
    x, kernel, bias = arguments.promote(x, kernel, bias)
    if kernel.ndim != 2:
        raise ValueError(f"dense: kernel must have shape (in, out), got {kernel.shape}")
    inputs, outputs = kernel.shape
    if x.ndim < 1 or x.shape[-1] != inputs:
        raise ValueError(f"dense: kernel has {inputs} input features, input has shape {x.shape}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"dense: bias must have shape ({outputs},), one per output feature, got {bias.shape}")
    y = lowering.dot(x, kernel, precision=precision)
    return y if bias is None else y + lax.expand_dims(bias, range(y.ndim - 1))


def squared_distances(x: jax.Array, centres: jax.Array) -> jax.Array:
    """The squared Euclidean distance of x to each centre: `y[..., i] = sum over j of (x[..., j] - centres[i, j])^2`.

    LeCun, Bottou, Bengio and Haffner (1998), equation 7. Differences are squared and then summed, so that the
    distance of a centre to itself is exactly zero; the cheaper |x|^2 - 2 x c + |c|^2 loses that to rounding.

    Args:
      x: (..., I).
      centres: (O, I).

    Returns:
      (..., O), in the common dtype of x and centres; integers are first converted to float32.

    Raises:
      ValueError: in one line, for shapes that do not go together.
    """
    x, centres = arguments.promote(x, centres)
    if centres.ndim != 2 or x.ndim < 1 or x.shape[-1] != centres.shape[-1]:
        raise ValueError(
            f"squared_distances: x must be (..., I) and centres (O, I), got shapes {x.shape} and {centres.shape}"
        )
    centres = lax.expand_dims(centres, range(x.ndim - 1))
    return jnp.square(x[..., None, :] - centres).sum(-1)


def scaled_tanh(x: jax.Array) -> jax.Array:
    """LeCun's activation 1.7159 tanh(2x / 3), for which f(1) = 1 and f(-1) = -1.

    LeCun, Bottou, Orr and Müller, "Efficient BackProp" (1998), section 4.4; LeNet-5 of 1998 uses it.
    """
    return 1.7159 * jnp.tanh(2 / 3 * jnp.asarray(x))
