"""`python -m cnn_jax` is `cnn-jax`."""

import sys

from cnn_jax import start


def main() -> None:
    """The console script `cnn-jax`."""
    start.begin()

    from cnn_jax import cli

    cli.main()


if __name__ == "__main__":
    sys.argv[0] = "cnn-jax"
    main()
