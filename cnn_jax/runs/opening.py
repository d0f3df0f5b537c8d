"""What comes before a run is trained: its data, its model, and what its folder says of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn

from cnn_jax import data, models, parts
from cnn_jax.data.batching import order_name
from cnn_jax.data.source import Source
from cnn_jax.errors import InputError
from cnn_jax.runs.capacity import check_fits, reading
from cnn_jax.runs.execution import Execution, Feed
from cnn_jax.runs.fit import check_parameters, check_validation, for_data
from cnn_jax.runs.folder import environment
from cnn_jax.runs.load import load_run
from cnn_jax.runs.mesh import choose_layout
from cnn_jax.runs.texts import to_json
from cnn_jax.training.evaluation import input_size
from cnn_jax.training.recipe import Recipe

_ANY = (224, 224)  # height and width of images that differ, for a model that takes any size


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a run is made of: its options checked, its data loaded.

    Attributes:
        recipe: with the model `for_data`.
        train: the training images, those held out among them.
        test: the test images.
        validation: images of their own to choose by, if there are any.
        held_out: how many training images are held out.
        begin_with: gives the weights to begin with, if there are any.
        where: the devices that it is trained on, in words.
    """

    recipe: Recipe
    train: data.Dataset
    test: data.Dataset
    validation: data.Dataset | None
    held_out: int
    begin_with: Callable[[], dict[str, Any]] | None
    where: str


def open_data(recipe: Recipe, source: Source, seeds: Sequence[int], execution: Execution, resumed: bool) -> Opened:
    """Loads the data and checks the model.

    Args:
        recipe: what decides the numbers.
        source: where the data come from.
        seeds: the seeds.
        execution: how many steps a call, and on which devices.
        resumed: whether the run has begun before, so that it may be all that is left of what it began with.

    Raises:
        InputError: one of them cannot be used.
    """
    begin_with, weights = None, None
    if recipe.init is not None:
        begin_with = functools.cache(functools.partial(_weights, Path(recipe.init)))
        if not resumed:
            weights = begin_with()

    # Data.
    size = models.input_size(recipe.model) or _ANY
    source = reading(source, size, execution.feed)
    train, test = source("train", size), source("test", size)
    if recipe.pixel_range is not None:
        train = data.rescale(train, *recipe.pixel_range)
    validation = None if recipe.validation else source.validation(size)
    check_validation(recipe, validation)
    held_out = 0
    if recipe.validation:
        held_out = len(data.holdout_indices(train, recipe.validation, seeds[0])[1])

    # Model.
    recipe = for_data(recipe, train)
    shape = (*input_size(recipe.model, train.images), train.images.shape[-1])
    recipe.check_sizes(shape, len(train) - held_out)
    check_fits(recipe, execution, len(train) - held_out, shape, len(seeds))
    where = choose_layout(recipe, execution, shape, len(seeds)).where
    if type(recipe.model) not in models.MODELS.values():  # ours are known to be sound, and the check takes a trace
        models.check_scores(recipe.model, shape, len(train.class_names))
    # The check takes a trace of the model.
    if recipe.groups or recipe.data_init or recipe.optimizer.kernels_only or weights is not None:
        check_parameters(recipe, train, weights)
    return Opened(
        recipe=recipe, train=train, test=test, validation=validation, held_out=held_out, begin_with=begin_with,
        where=where,
    )  # fmt: skip


def check_input_sizes(source: Source, train: data.Dataset, tried: Sequence[nn.Module], feed: Feed) -> None:
    """InputError where models take images of different sizes, and a source does not give the same for each."""
    sizes = list(dict.fromkeys(models.input_size(model) or _ANY for model in tried))
    for size in sizes if len(sizes) > 1 else ():
        if reading(source, size, feed)("train", size).fingerprint != train.fingerprint:
            texts = ", ".join(f"{height}x{width}" for height, width in sizes)
            raise InputError(
                f"sweep: expected models of one input size, as these pictures are brought to it when read, "
                f"got {texts}; sweep them apart, or make all pictures of one size"
            )


def contents_of(
    recipe: Recipe, train: data.Dataset, source: Source, seeds: Sequence[int], execution: Execution
) -> dict[str, Any]:
    """What config.json is to hold, see `read_config`, without what the experiment adds."""
    held_out = len(data.holdout_indices(train, recipe.validation, seeds[0])[1]) if recipe.validation else 0
    name = order_name(len(train) - held_out)
    order = {} if name is None else {"order": name}
    return {
        "recipe": to_json(recipe),
        "data": _describe_data(train) | order,
        "seeds": list(seeds),
        "source": parts.text(source.here()),
        "execution": dataclasses.asdict(execution),
        **environment(),
    }


def _describe_data(train: data.Dataset) -> dict[str, Any]:
    """What is needed of the data to use the model later, and to tell whether a run resumes on the same data."""
    return {
        "name": train.name,
        "version": train.version,
        "fingerprint": train.fingerprint,
        "images": len(train),
        "image_shape": list(train.images.shape[1:]),
        "class_names": list(train.class_names),
        "statistics": dataclasses.asdict(train.statistics) | {"ink": train.ink.extent if train.ink else None},
    }


def _weights(path: Path) -> dict[str, Any]:
    try:
        return load_run(path).variables
    except InputError as error:
        raise InputError(f"init: {error}") from None
