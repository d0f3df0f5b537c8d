"""What is made of the training images before the first step, in place of random numbers."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.errors import InputError
from cnn_jax.parts import Part, is_positive
from cnn_jax.training.state import path_of


class DataInit(Part, abc.ABC):
    """Sets parameters by the training images: the base of all data-dependent initialisations. A pure function.

    Attributes:
        images: how many it looks at, the first of those that a run learns from, or all where there are fewer.
    """

    images: int

    @abc.abstractmethod
    def __call__(self, params: Any, images: jax.Array) -> Any:
        """The parameters before the first step.

        Args:
            params: as drawn, or as another part has left them.
            images: float32 (n, H, W, C), normalised as the model takes them.

        Returns:
            Parameters of the same shapes.

        Raises:
            InputError: there is nothing among them that it could set.
        """


_CHUNK = 500  # images whose windows are in memory together


@dataclass(frozen=True)
class Whiten(DataInit):
    """A kernel whose outputs are uncorrelated, with variance 1, and the same negated.

    Of all windows of the images, the eigenvectors of their second moments E[x x^T] by falling eigenvalue, each divided
    by sqrt(eigenvalue + eps): Jordan 2024, arXiv:2404.00498, and its program airbench94.
    """

    parameter: str = "whiten/kernel"
    """Path of the kernel, (height, width, C, 2 * height * width * C)."""
    images: int = 5000
    """How many of the training images are looked at, the first ones."""
    eps: float = 5e-4
    """Added to the eigenvalues, so that directions in which images hardly differ are not blown up."""

    def __post_init__(self) -> None:
        self.check("parameter", bool, "the path of a kernel, such as whiten/kernel")
        self.check("images", lambda count: count >= 1, "a whole number >= 1")
        self.check("eps", is_positive, "a positive number that float32 holds")

    def __call__(self, params: Any, images: jax.Array) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        names = [path_of(path) for path, _ in leaves]
        if self.parameter not in names:
            raise InputError(
                f"whiten: expected parameter to be one of {', '.join(names[:8])}{', ...' * (len(names) > 8)}, "
                f"got {self.parameter!r}"
            )
        set_by_data = [
            self._kernel(leaf, images) if name == self.parameter else leaf
            for name, (_, leaf) in zip(names, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, set_by_data)

    def _kernel(self, old: jax.Array, images: jax.Array) -> jax.Array:
        window = (*old.shape[:2], images.shape[-1])
        if old.shape != (*window, 2 * math.prod(window)):
            raise InputError(
                f"whiten: expected parameter to be a kernel (height, width, {images.shape[-1]}, twice their product), "
                f"got {self.parameter} of shape {old.shape}"
            )
        values, vectors = jnp.linalg.eigh(_second_moments(images, window[0], window[1]))
        vectors = (vectors / jnp.sqrt(values + self.eps))[:, ::-1].reshape(*window, -1)
        return jnp.concatenate([vectors, -vectors], axis=-1).astype(old.dtype)


def _second_moments(images: jax.Array, rows: int, columns: int) -> jax.Array:
    """The mean of x x^T over all windows x, of so many rows and columns, of images (n, H, W, C): float32 (x, x)."""
    height, width = images.shape[1] - rows + 1, images.shape[2] - columns + 1

    def of_image(image: jax.Array) -> jax.Array:
        shifted = [image[i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
        x = jnp.stack(shifted, axis=2).reshape(height * width, -1)
        return jnp.matmul(x.T, x, precision="highest") / len(x)

    return jnp.mean(jax.lax.map(of_image, images, batch_size=_CHUNK), axis=0)
