"""The engine: compiled training of one seed or of several, and their evaluation. It knows no files and no clock."""

from __future__ import annotations

import bisect
import collections
import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.data.streamed import Streamed
from cnn_jax.runs.beginnings import Variables, fitting
from cnn_jax.runs.calls import compiler, count_per_call, settle_per_call
from cnn_jax.runs.execution import Execution
from cnn_jax.runs.feeding import make_feed
from cnn_jax.runs.mesh import choose_layout
from cnn_jax.training.averaging import Average
from cnn_jax.training.evaluation import EVAL_BATCH, Evaluation, at_input_size, collect, input_size
from cnn_jax.training.proxy import Picker, make_picker
from cnn_jax.training.recipe import Functions, Recipe, make_functions
from cnn_jax.training.state import TrainState, path_of
from cnn_jax.training.statistics import make_estimate
from cnn_jax.training.step import Batch, Metrics, make_train_steps
from cnn_jax.training.train import Numbers, with_numbers

_ESTIMATED = 4096  # images that statistics of norms are estimated from
_UNDER_WAY = 2  # calls with streamed images that are not over: one at work, one that waits, and no more of their images
_PICKING = 16  # steps a call of a proxy, between which a signal is heeded


class Engine:
    """A recipe with its data and seeds, compiled. Everything "of each seed" is in the order of `seeds`.

    In a sweep a seed occurs once for each combination of numbers, which are arguments of the compiled functions.

    The images stay on the devices, and the host sends which of them make a batch; or it sends the batches themselves,
    see `Execution.feed`. Each seed holds out its own validation images, as `data.holdout` does, unless there are some
    for all of them. States of several seeds have a leading axis of them.

    Attributes:
        seeds: the seeds that are trained.
        images: number of training images of each seed.
        image_shape: (height, width, channels) of one, as the model takes it.
        total: number of steps.
        per_call: number of steps that a call takes at most; after the first call it may be less than before.
        held_out: names of the splits to measure on, "validation" before "test".
        measures: the metrics by name.
        smooths: whether the loss smooths the labels.
        where: the devices that they are trained on, in words.
        streams: whether images are streamed.
        starts: the steps that a program begins with, the first and those from which on images have another size.

    Args:
        recipe: everything that decides the numbers, besides data and seeds.
        train: images and labels to learn from.
        seeds: the seeds.
        execution: how fast.
        validation: images to choose the best checkpoint by, in place of a share of the training images.
        test: images to measure on.
        numbers: by dotted name, as for `with_numbers`, what each seed has in place of the recipe's own.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: data.Dataset,
        seeds: Sequence[int],
        execution: Execution,
        validation: data.Dataset | None,
        test: data.Dataset | None,
        numbers: Mapping[str, Sequence[float]] | None = None,
    ):
        self.seeds, count = tuple(seeds), len(seeds)
        numbers = numbers or {}
        # Of each split, where its images are and which rows of them each seed takes.
        size = input_size(recipe.model, train.images)
        train = at_input_size(train, size)
        self._layout = choose_layout(recipe, execution, train.images.shape[1:], count)
        splits = {"validation": validation, "test": test}
        others = {name: at_input_size(split, size) for name, split in splits.items() if split}
        if recipe.validation:
            parts = zip(*(data.holdout_indices(train, recipe.validation, seed) for seed in self.seeds), strict=True)
            self._rows = dict(zip(("train", "validation"), map(np.stack, parts), strict=True))
        else:
            self._rows = {"train": np.tile(np.arange(len(train)), (count, 1))}
        self._rows |= {name: np.tile(np.arange(len(split)), (count, 1)) for name, split in others.items()}
        self.where = self._layout.where
        self.images: int = self._rows["train"].shape[1]
        self.held_out = tuple(self._rows)[1:]
        self.image_shape: tuple[int, ...] = train.images.shape[1:]
        self.total = recipe.count_steps(self.images)
        self._settled = execution.steps_per_call is not None or self._layout.platform != "cpu"

        share = self._layout.share
        self._feed, self._read = make_feed(
            train, others, self._rows["train"], self.seeds, recipe, execution, self.total, self._layout
        )
        self.streams = isinstance(self._feed, Streamed)
        self._under_way: collections.deque[Metrics] = collections.deque()  # of the last calls, whose images are held
        self.per_call = self._feed.most(count_per_call(recipe, execution, self.images))

        classes = len(train.class_names)
        ends = recipe.epoch_ends(self.images) if recipe.averaging else ()
        rows_of = zip(*numbers.values(), strict=True)
        each = [with_numbers(recipe, dict(zip(numbers, row, strict=True))) for row in rows_of] or [recipe]
        measures = {name: metric for one in each for name, metric in one.measures(classes).items()}
        self.measures = measures
        self.smooths = any(one.loss.floor(classes) is not None for one in each)
        spread = self._layout.spread
        self._numbers = {name: spread([np.asarray(v, np.float32) for v in values]) for name, values in numbers.items()}

        def functions(numbers: Numbers, share: float = 0.0) -> Functions:
            shape = train.images.shape[1:]
            return make_functions(
                with_numbers(recipe, numbers).after(share), train.statistics, shape, classes, self.total, ends,
                measures, self._layout.gradient,
            )  # fmt: skip

        def take_images(chunk: Any, k: jax.Array) -> Batch:
            return self._feed.take(_without_numbers(chunk), k)

        def take(chunk: Any, k: jax.Array) -> Batch:
            return take_images(chunk, k) | {"numbers": chunk[1]["numbers"]}

        def rate(step: jax.Array, numbers: Numbers) -> jax.Array:
            return functions(numbers).schedule(step)

        own = functions({})
        compiled = self._layout.compile
        self._rates = jax.jit(jax.vmap(rate, (None, 0)) if numbers and count > 1 else rate)
        first = [train.images[rows[: recipe.first_images]] for rows in self._rows["train"]]
        # The first images are the same for all seeds, unless each holds out others.
        apart = count == 1 or recipe.validation
        self._first, axis = (spread(first), 0) if apart else (share(first[0]), None)
        self._init = compiled(
            lambda seed, images, numbers: functions(numbers).init(jax.random.key(seed), images), (0, axis, 0)
        )

        def compile_steps(step: Callable[..., Any]) -> Any:
            step = self._layout.divided(step)
            steps = make_train_steps(step, take, lambda chunk: self._feed.length(_without_numbers(chunk)))
            return self._layout.compile_steps(steps, compiler(recipe, execution))

        def train_step(share: float) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
            return lambda state, batch: functions(batch.pop("numbers"), share).train_step(state, batch)

        stages = recipe.stages(self.images)
        self.starts = tuple(stages)
        self._train_steps = [compile_steps(train_step(share)) for share in stages.values()]
        self._begin_picking: Any = None
        if recipe.selection:

            def picker(numbers: Numbers) -> Picker:
                return make_picker(
                    with_numbers(recipe, numbers), train.statistics, train.images.shape[1:], classes, self.total
                )

            self._begin_picking = compiled(
                lambda seed, images, numbers: picker(numbers).init(jax.random.key(seed), images), (0, axis, 0)
            )
            self._pick_steps = compile_steps(lambda state, batch: picker(batch.pop("numbers")).step(state, batch))
        self._eval_step = compiled(
            lambda variables, batch, numbers: functions(numbers).eval_step(self._layout.gathered(variables), batch),
            (0, 0, 0),
        )
        estimates = bool(recipe.averaging) and recipe.averaging[0].estimates_statistics
        self._estimate: Any = None
        if estimates and jax.eval_shape(own.init, jax.random.key(0), first[0]).batch_stats:
            estimate = make_estimate(recipe.model, own.preprocess, recipe.precision, take_images)
            self._batches = min(self.total, -(-min(_ESTIMATED, self.images) // recipe.batch_size))
            self._estimate = compiled(lambda state, chunk: estimate(state, chunk, self._batches), (0, (None, 0)))
        self._all_finite = self._layout.compile_light(all_finite)
        self._choose = self._layout.compile_light(_choose)

    def init(self) -> TrainState:
        """The state before the first step; if the recipe has a selection, before `select` has given it its picks."""
        return self._layout.place(self._init(self._spread_seeds(), self._first, self._numbers))

    def select(self, state: TrainState, stop: Callable[[], bool] = lambda: False) -> TrainState:
        """The state before the first step with the picks of the recipe's selection, if it has one.

        Where `stop`, which is asked every few steps of the proxy, says so, the state is returned as it is.
        """
        if self._begin_picking is None:
            return state
        proxy, picks = self._begin_picking(self._spread_seeds(), self._first, self._numbers), []
        length = min(self.per_call, _PICKING)

        if not self._settled:
            length = settle_per_call(self._lower(self._pick_steps, proxy, length), length)
        for step in range(0, self.total, length):
            if stop():
                return state
            count = min(length, self.total - step)
            chunk = self._with_numbers(self._feed.chunk(step, count, length))
            proxy, found = self._pick_steps(proxy, chunk, np.int32(count))
            picks.append(found["picked"][..., :count, :])
        joined = jnp.concatenate(picks, axis=-2)
        return state.replace(picks=jax.device_put(joined, jax.tree.leaves(state.picks)[0].sharding))

    def _spread_seeds(self) -> Any:
        return self._layout.spread([np.array(seed, np.int32) for seed in self.seeds])

    def learning_rates(self, step: int) -> np.ndarray:
        """The learning rate of each seed in a step, float32 (seeds,)."""
        return np.broadcast_to(self._rates(step, self._numbers), len(self.seeds))

    def _with_numbers(self, chunk: Any) -> Any:
        shared, order = chunk
        return shared, {"order": order, "numbers": self._numbers}

    def begin_with(self, state: TrainState, variables: Variables) -> tuple[TrainState, list[str]]:
        """The state before the first step with other variables put in, the same for all seeds.

        Returns:
            The state, and the paths of those that the model has in other shapes or lacks, which are left out.

        Raises:
            InputError: none of them fits.
        """
        own, lead = {"params": state.params, "batch_stats": state.batch_stats}, len(self.seeds) > 1
        fits, left_out = fitting(own, variables, int(lead))

        def put(path: Any, old: jax.Array) -> jax.Array:
            new = fits.get(path_of(path))
            return old if new is None else jnp.broadcast_to(jnp.asarray(new, old.dtype), old.shape)

        begun = jax.tree_util.tree_map_with_path(put, own)
        average = state.average
        if isinstance(average, Average):
            copied = jax.tree.map(jnp.copy, begun)
            average = average.replace(params=copied["params"], batch_stats=copied["batch_stats"])
        state = state.replace(params=begun["params"], batch_stats=begun["batch_stats"], average=average)
        return self._layout.place(state), left_out

    def train_steps(
        self,
        state: TrainState,
        step: int,
        count: int,
        reading: AbstractContextManager[Callable[[], None] | None] | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Takes `count` steps, from 1 to `per_call`, the first being step `step`; the given state is consumed.

        They must not go on past one of `starts`, which no epoch does. While it waits for streamed images it is within
        `reading`, and calls what this gives if the steps before were still being taken when they had come.

        Metrics are (n,), or (seeds, n) with several seeds, where n >= count; ignore what follows the first `count`.
        """

        if not self._settled:
            self.per_call, self._settled = settle_per_call(self.lower(state), self.per_call), True
        if len(self._under_way) == _UNDER_WAY:
            jax.block_until_ready(self._under_way.popleft())
        with reading if reading and self.streams else contextlib.nullcontext() as unneeded:
            chunk = self._feed.chunk(step, count, self.per_call)
            if unneeded and self._under_way and not _are_ready(self._under_way[-1]):
                unneeded()
        steps = self._train_steps[bisect.bisect_right(self.starts, step) - 1]
        state, metrics = steps(state, self._with_numbers(chunk), np.int32(count))
        if self.streams:
            self._under_way.append(metrics)
        return state, metrics

    def settle(self, state: TrainState) -> TrainState:
        """The state as it is measured: where weights are averaged, with statistics of norms that belong to them.

        These are estimated on the first batches of a run, on enough images to settle them.
        """
        if self._estimate is None:
            return state
        return self._estimate(state, self._with_numbers(self._feed.aside(0, self._batches)))

    def lower(self, state: TrainState) -> Any:
        """The program of the train steps, to be compiled; of several that for the images of the last size."""
        return self._lower(self._train_steps[-1], state, self.per_call)

    def _lower(self, steps: Any, state: Any, length: int) -> Any:
        return steps.lower(state, self._with_numbers(self._feed.blank(length)), np.int32(1))

    def evaluate(self, state: TrainState, split: str) -> list[Evaluation]:
        """Measures each seed."""
        rows = self._rows[split]
        count, results, length = rows.shape[1], [], self._layout.whole(EVAL_BATCH)
        batches = [np.arange(start, start + length) for start in range(0, count, length)]
        chosen = [rows[:, np.minimum(positions, count - 1)].astype(np.int32) for positions in batches]
        counts = [int(np.count_nonzero(positions < count)) for positions in batches]
        for positions, batch in zip(batches, self._read[split](chosen, counts), strict=True):
            mask = [(positions < count).astype(np.float32)] * len(rows)
            batch |= {"mask": self._layout.rows(mask)}
            results.append(self._eval_step(state.eval_variables, batch, self._numbers))
        results = [self._layout.split(part) for part in self._layout.fetch(results)]
        return [collect(of_seed, count, self.measures) for of_seed in zip(*results, strict=True)]

    def fetch(self, tree: Any) -> Any:
        """A tree of arrays, such as metrics of steps, as NumPy arrays."""
        return self._layout.fetch(tree)

    def finite(self, state: TrainState) -> np.ndarray:
        """Whether all numbers of each seed are finite: bool (seeds,)."""
        return np.atleast_1d(self._all_finite(state))

    def close(self) -> None:
        """Ends what reads images; it begins again when it is needed."""
        self._feed.close()

    def choose(self, chosen: Sequence[bool], state: TrainState, other: TrainState) -> TrainState:
        """`state` for the chosen seeds, `other` for the rest. A single seed is always chosen."""
        if len(self.seeds) == 1:
            return state
        return self._choose(np.array(chosen), state, other)


def _are_ready(metrics: Metrics) -> bool:
    return all(values.is_ready() for values in jax.tree.leaves(metrics))


def _without_numbers(chunk: Any) -> Any:
    """A chunk as the feed gave it."""
    return chunk[0], chunk[1]["order"]


def all_finite(state: TrainState) -> jax.Array:
    """Whether every floating-point number of a state is finite: bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _choose(chosen: jax.Array, state: TrainState, other: TrainState) -> TrainState:
    return jax.tree.map(functools.partial(jnp.where, chosen), state, other)
