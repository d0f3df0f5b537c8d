"""Which pixels a score depends on: class activation maps and gradient maps, as pure functions.

All take a Linen model, what its `apply` takes, and one image, (H, W, C) floats normalised as the model is used to; all
can be jitted and vmapped over images and labels. A layer is named by its path within the model, "C1" or "block/conv",
as `describe` lists it, and is looked at as it leaves the module, before an activation function that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_jax.describe import describe
from cnn_jax.describe.marks import intercepted

Variables = dict[str, Any]
_Visit = Callable[[str, nn.Module, jax.Array, jax.Array], jax.Array]


def layer_names(model: nn.Module, input_shape: Sequence[int]) -> list[str]:
    """The names of the layers that are called for an image (H, W, C), in their order; functions are not among them."""
    return [row.layer for row in describe(model, input_shape) if row.kind != "function"]


def layer_outputs(model: nn.Module, variables: Variables, images: jax.Array) -> list[jax.Array]:
    """What every layer makes of images.

    Args:
      model: a Linen module called as `model.apply(variables, images)`.
      variables: its parameters and statistics.
      images: floats (N, H, W, C).

    Returns:
      The output (N, ..., features) of each call of a layer, in the order of `layer_names`.
    """
    found: list[jax.Array] = []

    def keep(name: str, module: nn.Module, inputs: jax.Array, output: jax.Array) -> jax.Array:
        found.append(output)
        return output

    _apply(model, variables, images, keep)
    return found


def grad_cam(model: nn.Module, variables: Variables, image: jax.Array, label: Any, layer: str) -> jax.Array:
    """The gradient-weighted class activation map of a layer.

    L = ReLU(sum_k a_k A_k), a_k = the mean over positions of d score / d A_k: Selvaraju et al. 2017, "Grad-CAM: visual
    explanations from deep networks via gradient-based localization", equations 1 and 2. The score is the one before
    the softmax.

    Args:
      label: index of the class whose score is explained, an int or an int scalar.
      layer: name of a layer whose output has a height and a width.

    Returns:
      (h, w), the layer's height and width; non-negative, in units of the score.

    Raises:
      ValueError: there is no such layer, it is called more than once, its output has no height and width, or the
        model does not give one score a class.
    """

    def score(shift: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        volumes = []

        def add(name: str, module: nn.Module, inputs: jax.Array, output: jax.Array) -> jax.Array:
            if name != layer:
                return output
            volumes.append(output)
            return output if shift is None else output + shift

        scores = _scores("grad_cam", _apply(model, variables, image[None], add))
        if len(volumes) != 1 or volumes[0].ndim != 4:
            found = f"{len(volumes)} calls" if len(volumes) != 1 else f"an output of shape {volumes[0].shape[1:]}"
            raise ValueError(f"grad_cam: expected a layer called once with output (h, w, k), {layer!r} has {found}")
        return scores[label], volumes[0][0]

    # What is added is zero, but gives something to differentiate with respect to, wherever the layer is in the model.
    zero = jnp.zeros_like(jax.eval_shape(lambda: score(None))[1])
    gradient, volume = jax.grad(score, has_aux=True)(zero)
    weights = gradient.mean(axis=(0, 1))
    return jax.nn.relu(volume @ weights)


def class_activation_map(model: nn.Module, variables: Variables, image: jax.Array, label: Any) -> jax.Array:
    """The class activation map of a model that ends in a global average pool and one dense layer.

    M = sum_k w_k A_k, w_k the weight of channel k for the class: Zhou et al. 2016, "Learning deep features for
    discriminative localization", equation 2. The score is its mean over the positions, plus the class's bias.

    Args:
      label: index of the class whose score is explained, an int or an int scalar.

    Returns:
      (h, w), the height and width of what is pooled; in units of the score, of either sign.

    Raises:
      ValueError: the last two layers of the model are not a `GlobalAvgPool` and a `Dense`.
    """
    calls: list[tuple[nn.Module, jax.Array]] = []

    def keep(name: str, module: nn.Module, inputs: jax.Array, output: jax.Array) -> jax.Array:
        calls.append((module, inputs))
        return output

    _apply(model, variables, image[None], keep)
    kinds = [type(module).__name__ for module, _ in calls[-2:]]
    if kinds != ["GlobalAvgPool", "Dense"]:
        raise ValueError(f"class_activation_map: expected GlobalAvgPool and Dense as the last layers, got {kinds}")
    (_, volumes), (dense, _) = calls[-2:]
    params = variables["params"]
    for name in dense.path:
        params = params[name]
    return volumes[0] @ jnp.asarray(params["kernel"])[:, label]


def saliency(model: nn.Module, variables: Variables, image: jax.Array, label: Any) -> jax.Array:
    """How strongly the score of a class depends on each pixel.

    max over c of |d score / d image_c|: Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks",
    section 3.1.

    Args:
      label: index of the class whose score is explained, an int or an int scalar.

    Returns:
      (H, W), non-negative, in units of the score a unit of the normalised image.

    Raises:
      ValueError: the model does not give one score a class.
    """

    def score(image: jax.Array) -> jax.Array:
        return _scores("saliency", cast(jax.Array, model.apply(variables, image[None])))[label]

    return jnp.abs(jax.grad(score)(image)).max(axis=-1)


def _scores(caller: str, scores: jax.Array) -> jax.Array:
    if scores.ndim != 2:
        raise ValueError(f"{caller}: expected one score a class, the model gives {scores.shape[1:]} for this image")
    return scores[0]


def _apply(model: nn.Module, variables: Variables, images: jax.Array, visit: _Visit) -> jax.Array:
    """Runs the model; what `visit` returns of a layer's name, module, input and output takes the output's place."""
    names = set(layer_names(model, images.shape[1:]))

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        name = "/".join(context.module.path) or type(context.module).__name__
        if context.method_name != "__call__" or name not in names:
            return output
        return visit(name, context.module, args[0], output)

    with intercepted(intercept):
        return cast(jax.Array, model.apply(variables, images))
