"""`python -m cnn_jax` is `cnn-jax`."""

import sys

from cnn_jax.cli import main

sys.argv[0] = "cnn-jax"
main()
