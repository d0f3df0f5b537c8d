"""Batches taken in parts, and norms over parts of a batch: the same as those parts by hand."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import layers
from cnn_jax.augment import BatchTransform
from cnn_jax.errors import InputError
from cnn_jax.training import SoftmaxCrossEntropy, create_state, make_train_step
from tests import quick
from tests.test_training_step import ACCURACY, LOSS, Everything, Linear, preprocess, random_batch
from tests.tiny import assert_close, make_recipe

SHAPE = (4, 4, 1)
SGD = optax.sgd(0.5, momentum=0.9)


class PerExample(nn.Module):
    """One that may be taken in tiles."""

    per_example = True

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(layers.Conv(3, (3, 3))(images))
        return layers.Dense(3)(x.reshape(len(x), -1))


class Normed(nn.Module):
    """A norm without dropout."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(self.num_classes)(nn.relu(x).mean(axis=(1, 2)))


class Dropped(nn.Module):
    """Scores that are what dropout leaves of the pixels."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        self.param("unused", nn.initializers.zeros, (1,))
        return nn.Dropout(0.5, deterministic=not train)(x)


def steps_of(model, batch, *several, loss=LOSS):
    """A first state, and the state and the metrics after the step by each of several options, in one program."""
    state = create_state(model, SGD, batch["image"].shape[1:], 0)
    steps = [make_train_step(model, SGD, loss, preprocess, metrics=ACCURACY, **options) for options in several]
    return state, *jax.device_get(quick.jit(lambda state, batch: [step(state, batch) for step in steps])(state, batch))


@pytest.mark.parametrize("model", [Linear(), PerExample()], ids=["joined", "per_example"])
def test_the_gradient_of_parts_is_that_of_the_batch(model):
    _, (whole, expected), *parts = steps_of(model, random_batch(n=12), {}, *({"accumulate": n} for n in (2, 4, 12)))
    for state, metrics in parts:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, whole.params)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5)


class Neighbours(BatchTransform):
    """Mixes each image with the next, and more of it the later it comes."""

    def __call__(self, context, images, targets):
        share = jnp.linspace(0.1, 0.6, len(images))

        def mixed(rows):
            of_row = share.reshape(-1, *(1,) * (rows.ndim - 1))
            return of_row * rows + (1 - of_row) * jnp.roll(rows, -1, axis=0)

        return mixed(images), mixed(targets)


def test_targets_that_were_mixed_go_with_their_images():
    batch = random_batch(n=12) | {"index": np.arange(12, dtype=np.int32), "epoch": np.zeros(12, np.int32)}
    options = {"augment": (Neighbours(),), "classes": 3}
    _, (whole, _), (state, _) = steps_of(Linear(), batch, options, options | {"accumulate": 3})
    assert_close(state.params, whole.params)


class Zeros(SoftmaxCrossEntropy):
    """Notes the scores, in the order of the parts."""

    def __call__(self, scores, targets):
        jax.debug.callback(lambda found: SEEN.append(np.asarray(found)), scores)
        return jnp.zeros(len(scores))


SEEN: list[np.ndarray] = []


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"norm_batch": 4}, {"accumulate": 3, "norm_batch": 2}], ids=str)
def test_each_part_has_its_own_dropout(options):
    SEEN.clear()
    batch = {"image": np.full((12, *SHAPE), 255, np.uint8), "label": np.zeros(12, np.int32)}
    steps_of(Dropped(), batch, options, loss=Zeros())
    jax.effects_barrier()
    masks = np.concatenate(SEEN)
    assert masks.shape == (12, 16)
    assert set(np.unique(masks)) == {0.0, 2.0}
    assert len(np.unique(masks, axis=0)) == 12


def by_hand(state, model, batch, sizes):
    """For each size, the mean gradient over groups of so many images, one after another, and of their statistics."""
    images, labels = preprocess(batch["image"]), batch["label"]

    def loss(params, images, labels):
        variables = {"params": params, "batch_stats": state.batch_stats}
        scores, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return LOSS(scores, jax.nn.one_hot(labels, 3)).mean(), updated["batch_stats"]

    def of_size(size):
        groups = [rows.reshape(-1, size, *rows.shape[1:]) for rows in (images, labels)]
        each = jax.lax.map(lambda group: jax.value_and_grad(loss, has_aux=True)(state.params, *group), groups)
        return jax.tree.map(lambda leaf: leaf.mean(0), each)

    return jax.device_get(quick.jit(lambda: {size: of_size(size) for size in sizes})())


def test_norms_see_the_images_of_a_group_alone():
    several = [
        ({"norm_batch": 3}, 3),
        ({"norm_batch": 12}, 12),
        ({"accumulate": 3}, 4),
        ({"accumulate": 2, "norm_batch": 3}, 3),
        ({"accumulate": 4, "norm_batch": 1}, 1),
    ]
    model, batch = Normed(), random_batch(n=12)
    before, *after = steps_of(model, batch, *(options for options, _ in several))
    groups = by_hand(before, model, batch, {size for _, size in several})
    for (_, size), (state, metrics) in zip(several, after, strict=True):
        (loss, stats), grads = groups[size]
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        assert_close(state.batch_stats, stats, rtol=1e-5, atol=1e-6)
        expected = jax.tree.map(lambda p, g: p - 0.5 * g, before.params, grads)
        assert_close(state.params, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-4)


def test_everything_at_once_is_finite_and_moves():
    options = {"accumulate": 2, "norm_batch": 3}
    before, (state, metrics) = steps_of(Everything(), random_batch(n=12), options)
    assert all(np.isfinite(value) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), before.params, state.params)
    assert moved["Dense_0"] == {"kernel": True, "bias": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 0}, "accumulate: expected a whole number that divides batch_size, 8, got 0"),
        ({"accumulate": 3}, "accumulate: expected a whole number that divides batch_size, 8, got 3"),
        ({"norm_batch": 0}, "norm_batch: expected a whole number that divides the images of a part, 8, got 0"),
        ({"norm_batch": 3}, "norm_batch: expected a whole number that divides the images of a part, 8, got 3"),
        (
            {"accumulate": 2, "norm_batch": 8},
            "norm_batch: expected a whole number that divides the images of a part, 4, got 8",
        ),
    ],
    ids=str,
)
def test_what_does_not_divide_is_refused_in_a_line(changes, message):
    with pytest.raises(InputError, match=r".") as caught:
        make_recipe(**changes)
    assert str(caught.value) == message
