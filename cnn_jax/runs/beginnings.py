"""The variables that a run begins with, where it does not draw its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from cnn_jax.errors import InputError
from cnn_jax.training.state import path_of

Variables = Mapping[str, Any]
"""What `model.apply` takes: "params", and "batch_stats" where there are any."""


def fitting(own: Any, variables: Variables, lead: int = 0) -> tuple[dict[str, Any], list[str]]:
    """What a model can use, of some variables, to start from.

    Args:
        own: the model's variables, or their shapes and dtypes.
        variables: those to begin with.
        lead: how many leading axes the model's own have beside theirs.

    Returns:
        By their paths those that the model has in the same shapes; and the paths of the others.

    Raises:
        InputError: no parameter fits.
    """
    given = {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(dict(variables))[0]}
    shapes = {path_of(path): leaf.shape[lead:] for path, leaf in jax.tree_util.tree_flatten_with_path(own)[0]}
    fits = {name: leaf for name, leaf in given.items() if shapes.get(name) == leaf.shape}
    if not any(name.startswith("params/") for name in fits):
        raise InputError(f"init: expected parameters of the model's shapes, got {', '.join(list(given)[:4])}, ...")
    return fits, [name for name in given if name not in fits]
