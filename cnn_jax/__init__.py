"""cnn_jax: convolutional neural networks as pure functions, on JAX and Flax Linen.

The parts, each importing only from those before it:

- `cnn_jax.functional`: convolution, pooling and dense layers as pure functions;
- `cnn_jax.layers`: Flax Linen modules standing on those functions;
- `cnn_jax.models`: the networks, one file a family;
- `cnn_jax.data`: where arrays come from;
- `cnn_jax.training`: state, losses, steps, checkpoints and the loop;
- `cnn_jax.cli`: what to do with a finished run.
"""

__version__ = "0.1.0"
