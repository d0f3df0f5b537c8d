"""A whole training as one pure function, for `jax.jit`, `jax.vmap` and whatever else JAX does to functions.

Ten seeds are `jax.vmap` over keys, a sweep is `jax.vmap` over learning rates:

    digits = data.load("digits", "train")
    recipe = training.Recipe(model=models.MLP(), epochs=5)
    train = training.make_train(recipe, digits)
    arrays = training.train_arrays(recipe, digits, seeds=range(10))
    keys = jax.vmap(jax.random.key)(jnp.arange(10))
    numbers = {"optimizer.learning_rate": 3e-3}
    each = {"image": None, "label": None, "order": 0}  # one copy of the images, ten orders of them
    states, metrics = jax.jit(jax.vmap(train, (0, None, each)))(keys, numbers, arrays)
    print(metrics["accuracy"][:, -10:].mean(axis=1))  # of each seed, over its last ten batches

A race is training and the evaluation of a test set in one program, `make_measure` giving the latter:

    measure = training.make_measure(recipe, digits)
    state, metrics = train(key, {}, arrays)
    measured = measure(state.eval_variables, {"image": test.images, "label": test.labels})

`runs.fit` takes the same steps in many calls, and adds what has no place in a function: checkpoints, records, signals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, models
from cnn_jax.data.batching import epochs_of
from cnn_jax.data.feed import Resident
from cnn_jax.errors import InputError
from cnn_jax.training.evaluation import at_input_size, input_size
from cnn_jax.training.proxy import make_picker
from cnn_jax.training.recipe import Functions, Recipe, make_functions
from cnn_jax.training.state import TrainState
from cnn_jax.training.step import Batch, Metrics

_MEASURED = 500  # images that are measured together
Numbers = Mapping[str, Any]
"""Numbers of a recipe's parts by their dotted names, as "optimizer.learning_rate"; they may be traced."""
Train = Callable[[jax.Array, Numbers, Batch], tuple[TrainState, Metrics]]
Measure = Callable[[Mapping[str, Any], Batch], Metrics]


def with_numbers(recipe: Recipe, numbers: Numbers) -> Recipe:
    """The recipe with numbers of its parts replaced; of several parts joined, where there is just one.

    Raises:
        InputError: there is no such part or field.
    """
    for name, value in numbers.items():
        part, _, field = name.partition(".")
        held: Any = getattr(recipe, part, None)
        is_several = isinstance(held, tuple) and len(held) == 1
        old: Any = held[0] if is_several else held
        fields = {f.name for f in dataclasses.fields(old)} if dataclasses.is_dataclass(old) else set()
        if field not in fields:
            raise InputError(f"{name}: expected a part of a recipe and a field of it, as in 'optimizer.learning_rate'")
        new = dataclasses.replace(old, **{field: value})
        changes: dict[str, Any] = {part: (new,) if is_several else new}
        recipe = dataclasses.replace(recipe, **changes)
    return recipe


def make_train(recipe: Recipe, train: data.Dataset) -> Train:
    """Training as a pure function, not yet compiled.

    Args:
        recipe: epochs and batch size are not used.
        train: the training images; only their statistics and classes are used.

    Returns:
        `train(key, numbers, data) -> (state, metrics)`. The key `jax.random.key(s)` gives what `runs.fit` gives with
        the seed s; the numbers, by dotted name, stand in for the recipe's; the data are those of `train_arrays`. The
        state is the last; the metrics are those of `make_train_step` for every step, float32 (steps,).
    """
    classes = len(train.class_names)
    recipe = dataclasses.replace(recipe, model=models.with_classes(recipe.model, classes))

    def run(key: jax.Array, numbers: Numbers, data: Batch) -> tuple[TrainState, Metrics]:
        (steps, batch_size), image_shape = data["order"].shape, data["image"].shape[1:]
        chosen = with_numbers(recipe, numbers)
        images = {"image": data["image"], "label": data["label"]}
        ends = chosen.epoch_ends(len(data["label"])) if chosen.averaging else ()
        stages = {start: share for start, share in chosen.stages(len(data["label"])).items() if start < steps}
        each = [
            make_functions(chosen.after(share), train.statistics, image_shape, classes, steps, ends)
            for share in stages.values()
        ]
        order: dict[str, jax.Array] = {"index": data["order"]}
        if recipe.augment:
            epochs = epochs_of(len(data["image"]), batch_size, 0, steps)
            order["epoch"] = jnp.asarray(epochs.astype(np.int32))

        first = data["image"][: recipe.first_images]
        state = each[0].init(key, first)
        if chosen.selection:
            picker = make_picker(chosen, train.statistics, image_shape, classes, steps)

            def pick(state: TrainState, k: jax.Array) -> tuple[TrainState, Any]:
                return picker.step(state, Resident.take((images, order), k))

            state = state.replace(picks=jax.lax.scan(pick, picker.init(key, first), jnp.arange(steps))[1]["picked"])
        found: list[Metrics] = []
        for functions, start, end in zip(each, stages, [*list(stages)[1:], steps], strict=True):

            def step(state: TrainState, k: jax.Array, own: Functions = functions) -> tuple[TrainState, Metrics]:
                return own.train_step(state, Resident.take((images, order), k))

            state, metrics = jax.lax.scan(step, state, jnp.arange(start, end))
            found.append(metrics)
        return state, found[0] if len(found) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    return run


def make_measure(recipe: Recipe, train: data.Dataset) -> Measure:
    """The evaluation of a whole split as a pure function, not yet compiled.

    Args:
        recipe: what is measured, in which precision and by which views.
        train: the training images; only their statistics and classes are used.

    Returns:
        `measure(variables, split) -> metrics`. The split holds "image", uint8 (n, H, W, C) at the size of the model's
        input, and "label", int32 (n,); the metrics are the mean "loss" and those of `Recipe.measures`, float32 scalars.
    """
    classes = len(train.class_names)
    recipe = dataclasses.replace(recipe, model=models.with_classes(recipe.model, classes))
    measures = recipe.measures(classes)

    def measure(variables: Mapping[str, Any], split: Batch) -> Metrics:
        images = split["image"]
        functions = make_functions(recipe, train.statistics, images.shape[1:], classes, steps=1)
        batches, filling = -(-len(images) // _MEASURED), -len(images) % _MEASURED

        def in_batches(values: jax.Array) -> jax.Array:
            padded = jnp.pad(values, ((0, filling), *[(0, 0)] * (values.ndim - 1)))
            return padded.reshape(batches, _MEASURED, *values.shape[1:])

        rows = {**split, "mask": jnp.ones(len(images))}
        sums = jax.lax.map(lambda batch: functions.eval_step(dict(variables), batch)[0], jax.tree.map(in_batches, rows))
        totals = jax.tree.map(lambda values: jnp.sum(values, axis=0), sums)
        count = totals.pop("count")
        means = {name: total / count for name, total in totals.items()}
        return {name: measures[name].finish(mean) if name in measures else mean for name, mean in means.items()}

    return measure


def train_arrays(recipe: Recipe, train: data.Dataset, seeds: int | Iterable[int]) -> dict[str, jax.Array]:
    """What a `make_train` function learns from, on the device.

    Args:
        recipe: its model has the `input_size` that the images are brought to; and number of epochs and batch size.
        train: the training images.
        seeds: one seed, or several.

    Returns:
        "image", uint8 (n, H, W, C), "label", int32 (n,), and "order", int32 (steps, batch size): the indices of the
        batches that `runs.fit` takes with the seed. Of several seeds the orders are stacked, (seeds, steps, batch
        size).
    """
    train = at_input_size(train, input_size(recipe.model, train.images))
    arrays = {"image": train.images, "label": train.labels, "order": whole_order(recipe, len(train), seeds)}
    return jax.tree.map(jnp.asarray, arrays)


def whole_order(recipe: Recipe, images: int, seeds: int | Iterable[int]) -> np.ndarray:
    """The "order" of `train_arrays` for that many training images, on the host."""
    steps = recipe.count_steps(images)
    each = [
        data.train_order(images, recipe.batch_size, seed) for seed in ([seeds] if isinstance(seeds, int) else seeds)
    ]
    orders = np.stack([order(0, steps) for order in each]).astype(np.int32)
    return orders[0] if isinstance(seeds, int) else orders
