"""The steps, against the formulas they come from: gradients, distortions, statistics, padding."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.augment import Affine, BatchTransform, ImageTransform
from cnn_jax.training import (
    SGD,
    Accuracy,
    AdamW,
    SoftmaxCrossEntropy,
    TrainState,
    create_state,
    make_eval_step,
    make_train_step,
)
from tests import quick

LOSS, ACCURACY = SoftmaxCrossEntropy(), {"accuracy": Accuracy()}


class Linear(nn.Module):
    """Scores as one matrix product: a model whose gradient is written down in a line."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3, name="scores")(images.reshape(len(images), -1))


class Everything(nn.Module):
    """Batch norm and dropout: what needs running statistics and random keys."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def preprocess(images):
    return images.astype(jnp.float32) / 255


def random_batch(seed=0, n=8, shape=(4, 4, 1)):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (n, *shape), dtype=np.uint8)
    return {"image": images, "label": draw.integers(0, 3, n).astype(np.int32)}


def softmax(scores):
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


class Spy(ImageTransform):
    """Blackens the image, and notes the contexts."""

    def __init__(self):
        self.seen = []

    def __call__(self, context, image):
        jax.debug.callback(
            lambda *seen: self.seen.append(seen),
            jax.random.key_data(context.key),
            context.index,
            context.epoch,
            context.progress,
        )
        return image * 0

    def contexts(self):
        """Keys, indices, epochs and progress, in the order of the indices."""
        jax.effects_barrier()
        found = sorted(self.seen, key=lambda seen: int(seen[1]))
        self.seen = []
        return [np.stack(values) for values in zip(*found, strict=True)]


class Swap(BatchTransform):
    """Gives each image the target of the next."""

    def __call__(self, context, images, targets):
        return images, jnp.roll(targets, -1, axis=0)


def test_distortions_are_drawn_anew_in_every_step_and_for_every_image():
    """A marked picture a step and an image: what the loss is given are moved pixels of light, no two alike."""
    seen = []

    def loss(scores, targets):
        jax.debug.callback(lambda scores: seen.extend(scores.reshape(-1, 9, 9)), scores)
        return scores[:, 0] * 0

    class Pixels(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            return images.reshape(len(images), -1) + self.param("zero", nn.initializers.zeros, ())

    augment = (Affine(translation=3.0, scale=0.0, squeeze=0.0, shear=0.0),)
    state = create_state(Pixels(), optax.sgd(0.1), (9, 9, 1), 0)
    image = np.zeros((4, 9, 9, 1), np.uint8)
    image[:, 4, 4] = 1
    batch = {"image": image, "label": np.zeros(4, np.int32)} | places(4)
    step = quick.jit(make_train_step(Pixels(), optax.sgd(0.1), loss, lambda x: x.astype(jnp.float32), augment))
    state, _ = step(state, batch)
    step(state, batch)
    jax.effects_barrier()
    assert len(seen) == 8
    for i, one in enumerate(seen):
        assert one.sum() == pytest.approx(1.0, abs=1e-5)  # a pixel of light, moved
        assert all(np.abs(one - other).max() > 1e-3 for other in seen[:i])


def places(n, epoch=0):
    """Which images of their set those of a batch are, and in which pass."""
    return {"index": np.arange(n, dtype=np.int32), "epoch": np.full(n, epoch, np.int32)}


def test_the_train_step_distorts_by_the_key_of_the_step_and_says_where_the_run_stands():
    model, optimizer, spy = Linear(), optax.sgd(0.1), Spy()
    state = create_state(model, optimizer, (4, 4, 1), 0)
    batch = {"image": np.ones((2, 4, 4, 1), np.uint8), "label": np.zeros(2, np.int32)} | places(2, epoch=3)
    plain, distorted = (
        quick.jit(make_train_step(model, optimizer, LOSS, lambda x: x.astype(jnp.float32), augment, steps=8))
        for augment in ((), (spy,))
    )
    black = batch | {"image": batch["image"] * 0}
    later, metrics = distorted(state, batch)
    np.testing.assert_allclose(metrics["loss"], plain(state, black)[1]["loss"], rtol=1e-6)
    first = spy.contexts()
    distorted(later, batch)
    second = spy.contexts()
    keys = np.concatenate([first[0], second[0]])
    assert len(np.unique(keys, axis=0)) == 4
    for (_, index, epoch, progress), share in ((first, 0.0), (second, 1 / 8)):
        assert (index.tolist(), epoch.tolist(), progress.tolist()) == ([0, 1], [3, 3], [share, share])


def test_a_batch_transform_gives_targets_to_loss_and_metrics():
    """With the targets of the next image the step is that of the labels moved on by one."""
    batch, optimizer = random_batch() | places(8), optax.sgd(0.1)
    state = create_state(Linear(), optimizer, (4, 4, 1), 0)
    swapped, plain = (
        quick.jit(make_train_step(Linear(), optimizer, LOSS, preprocess, augment, ACCURACY, classes=3))
        for augment in ((Swap(),), ())
    )
    found = swapped(state, batch)
    expected = plain(state, batch | {"label": np.roll(batch["label"], -1)})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found[0].params, expected[0].params
    )
    assert {k: float(v) for k, v in found[1].items()} == pytest.approx({k: float(v) for k, v in expected[1].items()})


def test_one_step_is_gradient_descent_by_hand():
    """Dense + softmax cross-entropy: the gradient of the kernel is x^T (softmax - onehot) / N."""
    batch, rate = random_batch(), 0.5
    optimizer = SGD(momentum=0.0)(optax.constant_schedule(rate))
    state = create_state(Linear(), optimizer, (4, 4, 1), seed=3)
    step = quick.jit(make_train_step(Linear(), optimizer, LOSS, preprocess, metrics=ACCURACY))
    new, metrics = step(state, batch)

    x = batch["image"].reshape(8, -1) / 255.0
    kernel, bias = (np.asarray(state.params["scores"][name], np.float64) for name in ("kernel", "bias"))
    probabilities, targets = softmax(x @ kernel + bias), np.eye(3)[batch["label"]]
    d_scores = (probabilities - targets) / 8
    grads = x.T @ d_scores, d_scores.sum(0)
    np.testing.assert_allclose(new.params["scores"]["kernel"], kernel - rate * grads[0], atol=1e-6)
    np.testing.assert_allclose(new.params["scores"]["bias"], bias - rate * grads[1], atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], -np.log((probabilities * targets).sum(-1)).mean(), rtol=1e-5)
    assert metrics["accuracy"] == np.mean(probabilities.argmax(-1) == batch["label"])
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(sum((g**2).sum() for g in grads)), rtol=1e-5)
    assert (int(state.step), int(new.step)) == (0, 1)


def test_state_holds_statistics_and_randomness():
    optimizer = AdamW()(optax.constant_schedule(0.01))
    model, batch = Everything(), random_batch()
    state = create_state(model, optimizer, (4, 4, 1), seed=0)
    assert isinstance(state, TrainState)
    assert jax.tree.structure(jax.tree.map(lambda leaf: leaf, state)) == jax.tree.structure(state)
    step = quick.jit(make_train_step(model, optimizer, LOSS, preprocess))
    one, metrics = step(state, batch)
    again, _ = step(state, batch)
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)
    # Running statistics move half of the way to the batch's own (momentum 0.5), from mean 0 and variance 1.
    conv = nn.Conv(4, (3, 3)).apply({"params": state.params["Conv_0"]}, preprocess(batch["image"]))
    np.testing.assert_allclose(
        one.batch_stats["BatchNorm_0"]["mean"], 0.5 * np.asarray(conv).mean(axis=(0, 1, 2)), atol=1e-5
    )
    # Another step draws other dropout masks: the same parameters and batch give another loss.
    _, later = step(state.replace(step=jnp.int32(1)), batch)
    assert float(later["loss"]) != float(metrics["loss"])
    # Another seed gives other parameters, the same seed the same.
    other = create_state(model, optimizer, (4, 4, 1), seed=1)
    assert not np.array_equal(other.params["Conv_0"]["kernel"], state.params["Conv_0"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, create_state(model, optimizer, (4, 4, 1), seed=0).params, state.params)


def test_evaluation_leaves_padding_out():
    optimizer = AdamW()(optax.constant_schedule(0.01))
    model = Everything()
    state = create_state(model, optimizer, (4, 4, 1), seed=0)
    eval_step = quick.jit(make_eval_step(model, LOSS, preprocess, ACCURACY))
    batch = random_batch(n=8) | {"mask": np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)}
    sums, scores = eval_step(state.variables, batch)
    reference = np.asarray(scores, np.float64)[:5]
    labels = batch["label"][:5]
    assert float(sums["count"]) == 5
    assert float(sums["accuracy"]) == np.sum(reference.argmax(-1) == labels)
    np.testing.assert_allclose(sums["loss"], -np.log(softmax(reference)[np.arange(5), labels]).sum(), rtol=1e-5)
    changed = batch | {"image": np.concatenate([batch["image"][:5], 255 - batch["image"][5:]])}
    np.testing.assert_allclose(eval_step(state.variables, changed)[0]["loss"], sums["loss"], rtol=1e-6)
