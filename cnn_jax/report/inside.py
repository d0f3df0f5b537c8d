"""The sections of a report that look inside the network: what it attends to, its feature maps and its filters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from cnn_jax import data, pictures
from cnn_jax.describe import LayerRow, describe
from cnn_jax.pictures import canvas
from cnn_jax.pictures.mistakes import worst_mistakes
from cnn_jax.report import page
from cnn_jax.report.findings import Findings, Measured
from cnn_jax.report.sections import no_images
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.load import Run
from cnn_jax.training import create_state


def attention(found: Findings) -> str:
    """Grad-CAM and gradient maps of a few test images."""
    title = "What it looks at"
    run, test = found.run, found.test
    if test is None:
        return page.section(title, no_images(found), wide=False)
    layer = deepest_map(describe(run.model, _input_shape(run)))
    # Long names need wider tiles.
    chosen = _examples(test, 3 if max(map(canvas.columns, run.class_names)) <= canvas.BRIEF else 2)
    images, inputs = _as_input(run, test.dataset.images[chosen])
    taken = test.predicted[chosen]

    # Both maps of all images in one program.
    @_run_once
    @jax.vmap
    def explain(image: jax.Array, label: jax.Array) -> dict[str, jax.Array]:
        maps = {"gradient": pictures.saliency(run.model, run.variables, image, label)}
        if layer is not None:
            maps["Grad-CAM"] = pictures.grad_cam(run.model, run.variables, image, label, layer)
        return maps

    maps = jax.device_get(explain(inputs, taken))
    names = run.class_names
    labels = canvas.labels(names, 10)
    captions = [
        f"is {labels[true]}\nsaid {labels[k]}" for true, k in zip(test.dataset.labels[chosen], taken, strict=True)
    ]
    rows = {"gradient at the input": maps["gradient"]}
    caption = (
        "For each picture, which parts speak for the answer given. The gradient at the input marks the pixels whose "
        "change would move the score most."
    )
    if layer is not None:
        rows = {f"Grad-CAM at {layer}": maps["Grad-CAM"], **rows}
        caption += (
            f" Grad-CAM marks the places where the features of layer {layer} speak for the class; it is coarser, "
            "because that layer sees the image at a lower resolution."
        )
    alt = f"Test images with maps of what the score depends on: {', '.join(rows)}."
    return page.section(
        title, page.picture(pictures.heat_maps(images, rows, captions=captions), alt, caption), wide=False
    )


def features(found: Findings) -> str:
    """The feature maps of one test image."""
    title = "One image through all layers"
    run, test = found.run, found.test
    if test is None:
        return page.section(title, no_images(found))
    chosen = _examples(test, 1)[0]
    _, inputs = _as_input(run, test.dataset.images[[chosen]])
    figures = pictures.feature_maps_in_two(run.model, run.variables, inputs[0], class_names=run.class_names)
    caption = (
        "What a test image becomes, layer by layer: the first layers keep its shape, the later ones only say what is "
        "where, and the last gives one score a class. Red is above zero, blue below, white zero; each layer has its "
        "own scale and is shown before its activation function."
    )
    parts = (
        page.picture(figures[0], "Feature maps of a test image in the first layers.", caption),
        page.picture(
            figures[1], "Feature maps of the same image in the last layers.", "The later layers, down to the scores."
        ),
    )
    return page.section(title, page.side_by_side(*parts))


def filters(found: Findings) -> str:
    """The filters of the first layer, before and after training."""
    title = "Filters of the first layer"
    run = found.run
    path = first_kernel(run)
    seed = found.seed
    if path is None or seed is None:
        return page.section(
            title, page.paragraph("Left out: the first layer's weights do not act on an image."), wide=False
        )

    # Only the first layer's parameters are asked for, so nothing else is compiled.
    @_run_once
    def begin() -> jax.Array:
        return _at(create_state(run.model, optax.identity(), _input_shape(run), seed).params, path)

    kernels = [_as_filters(np.asarray(kernel), run) for kernel in (begin(), _at(run.variables["params"], path))]
    figure = pictures.filters_before_after(*kernels)
    colours = (
        "in the colours it answers to, grey for zero" if kernels[0].shape[2] == 3 else "red above zero, blue below"
    )
    caption = (
        f"Each square is one filter of the first layer, each pixel of it a weight: {colours}. "
        f"{'As drawn, before the images set any, they' if run.data_init else 'Before training they'} are "
        "noise. Afterwards look for edges (one side unlike the other), bars and corners."
    )
    return page.section(
        title, page.picture(figure, "Filters of the first layer before and after training.", caption), wide=False
    )


def _run_once(function: Callable[..., Any]) -> Any:
    """`jax.jit` of what runs once: on CPU with no optimising, which takes longer than it can save."""
    options = {"xla_backend_optimization_level": 0} if current_device().platform == "cpu" else None
    return jax.jit(function, compiler_options=options)


def deepest_map(rows: Sequence[LayerRow]) -> str | None:
    """The last layer, called once, whose output still has places: a height and a width that are not both 1."""
    names = [row.layer for row in rows]
    maps = [r.layer for r in rows if len(r.output) == 3 and max(r.output[:2]) > 1 and names.count(r.layer) == 1]
    return maps[-1] if maps else None


def first_kernel(run: Run) -> tuple[str, ...] | None:
    """Where the first layer's kernel is among the parameters, if its weights can be drawn as pictures."""
    shape = _input_shape(run)
    for row in describe(run.model, shape):
        path = (*row.layer.split("/"), "kernel")
        try:
            kernel = _at(run.variables["params"], path)
        except (KeyError, TypeError):
            continue
        return path if kernel.ndim == 4 or kernel.shape[0] == np.prod(shape) else None
    return None


def _as_filters(kernel: np.ndarray, run: Run) -> np.ndarray:
    """A convolution's kernel as it is; that of a dense layer on the flattened image as filters of the image's size."""
    return kernel if kernel.ndim == 4 else kernel.reshape(*_input_shape(run), -1)


def _at(tree: Any, path: Sequence[str]) -> Any:
    return functools.reduce(lambda node, name: node[name], path, tree)


def _input_shape(run: Run) -> tuple[int, int, int]:
    return *run.input_size, run.image_shape[-1]


def _as_input(run: Run, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images at the size of the model's input, uint8 and normalised."""
    images = data.fit_images(images, run.input_size)
    return images, data.normalise(images, run.statistics)


def _examples(test: Measured, count: int) -> np.ndarray:
    """Indices of images to look at: right ones of as many classes as possible, and as many confident mistakes."""
    right = np.flatnonzero(test.predicted == test.dataset.labels)
    _, first = np.unique(test.dataset.labels[right], return_index=True)
    wrong = worst_mistakes(test.dataset.labels, test.probabilities)
    return np.concatenate([right[np.sort(first)][:count], wrong[:count]])
