"""cnn_jax: convolutional neural networks as pure functions, on JAX and Flax Linen.

Its subpackages, each importing only from those before it:

- `cnn_jax.functional`: convolution, pooling and dense layers as pure functions;
- `cnn_jax.layers`: Flax Linen modules standing on those functions;
- `cnn_jax.models`: the networks, one file a family;
- `cnn_jax.augment`: what is done to images while training;
- `cnn_jax.data`: where arrays come from;
- `cnn_jax.training`: what decides the numbers of a run, as pure functions: recipes, losses, optimisers, steps;
- `cnn_jax.runs`: what runs them: `fit`, checkpoints, records, and runs read back;
- `cnn_jax.cli`: what to do with a finished run.
"""

__version__ = "0.2.0"
