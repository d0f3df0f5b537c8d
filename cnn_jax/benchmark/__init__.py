"""`python -m cnn_jax.benchmark`: how fast we are beside stock Flax and beside PyTorch."""
