"""The networks of `models.MODELS` as tests ask something of each."""

from __future__ import annotations

from cnn_jax import models

# These have only more of the layers that others have too, and take seconds to trace.
KINDS = [name for name in models.MODELS if name not in ("resnet34", "resnet101", "resnet152")]
# Those with batch norms, for colour images.
MODERN = [name for name in models.MODELS if name == "cifarnet" or name.startswith("resnet")]


def channels(name):
    return 3 if name in MODERN else 1
