"""The networks of `models.MODELS` as tests ask something of each."""

from __future__ import annotations

from cnn_jax import models

# These have only more of the layers that others have too, and take seconds to trace.
DEEPER = ("resnet32", "resnet34", "resnet44", "resnet56", "resnet101", "resnet110", "resnet152", "wrn28x10")
KINDS = [name for name in models.MODELS if name not in DEEPER]
# Those with batch norms, for colour images.
MODERN = [name for name in models.MODELS if name.startswith(("cifarnet", "resnet", "wrn"))]


def channels(name):
    return 3 if name in MODERN else 1
