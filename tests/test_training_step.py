"""Losses, optimisers, schedules and the steps, against the formulas they come from."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import InputError
from cnn_jax.training import (
    AugmentConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    TrainState,
    create_state,
    make_augment,
    make_eval_step,
    make_loss,
    make_optimizer,
    make_schedule,
    make_train_step,
)
from cnn_jax.training.optimizers import decays
from tests import quick

OPTIMIZERS = ["sgd", "adam", "adamw", "lamb", "lion", "rmsprop"]


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_its_definition(smoothing):
    draw = np.random.default_rng(1)
    scores, labels = 5 * draw.normal(size=(6, 4)), draw.integers(0, 4, 6)
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    expected = -(targets * np.log(softmax(scores))).sum(-1)
    found = make_loss(LossConfig(label_smoothing=smoothing))(jnp.asarray(scores, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_map_criterion_is_its_definition():
    """LeCun et al. 1998, equation 9, for penalties y = -scores, in float64."""
    scores = -np.abs(np.random.default_rng(0).normal(size=(5, 7), scale=4))
    labels = np.array([0, 3, 6, 6, 1])
    expected = -scores[range(5), labels] + np.log(np.exp(-2.5) + np.exp(scores).sum(-1))
    found = make_loss(LossConfig(name="map", rubbish_penalty=2.5))(
        jnp.asarray(scores, jnp.float32), jnp.asarray(labels)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_distortions_are_drawn_anew_in_every_step_and_for_every_image():
    """The step sees what `augment` gives: a marked picture a step and an image, nothing else of the batch changed."""
    config = AugmentConfig(name="affine", translation=3.0, scale=0.0, squeeze=0.0, shear=0.0)
    augment = make_augment(config)
    images = jnp.zeros((4, 9, 9, 1)).at[:, 4, 4].set(1.0)
    first, second = (np.asarray(augment(jax.random.fold_in(jax.random.key(0), step), images)) for step in (0, 1))
    pictures = [*first, *second]
    for i, one in enumerate(pictures):
        assert one.sum() == pytest.approx(1.0, abs=1e-5)  # a pixel of light, moved
        assert all(np.abs(one - other).max() > 1e-3 for other in pictures[:i])
    assert make_augment(AugmentConfig()) is None


def test_the_train_step_distorts_by_the_key_of_the_step():
    seen = []

    def spy(key, images):
        seen.append(jax.random.key_data(key))
        return images * 0

    model, optimizer = Linear(), optax.sgd(0.1)
    state = create_state(model, optimizer, (4, 4, 1), 0)
    batch = {"image": jnp.ones((2, 4, 4, 1), jnp.uint8), "label": jnp.zeros(2, jnp.int32)}
    plain, distorted = (
        make_train_step(model, optimizer, make_loss(LossConfig()), lambda x: x.astype(jnp.float32), augment)
        for augment in (None, spy)
    )
    black = batch | {"image": batch["image"] * 0}
    later, metrics = distorted(state, batch)
    np.testing.assert_allclose(metrics["loss"], plain(state, black)[1]["loss"], rtol=1e-6)
    distorted(later, batch)
    assert not np.array_equal(seen[0], seen[1])


def test_squared_error_is_its_definition():
    draw = np.random.default_rng(2)
    scores, labels = draw.normal(size=(5, 2, 4)), draw.integers(0, 4, (5, 2))
    expected = ((scores - np.eye(4)[labels]) ** 2).sum(-1)
    found = make_loss(LossConfig(name="squared_error"))(jnp.asarray(scores, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_one_step_is_gradient_descent_by_hand():
    """Dense + softmax cross-entropy: the gradient of the kernel is x^T (softmax - onehot) / N."""
    batch, rate = random_batch(), 0.5
    optimizer = make_optimizer(OptimizerConfig(name="sgd", momentum=0.0), optax.constant_schedule(rate))
    state = create_state(Linear(), optimizer, (4, 4, 1), seed=3)
    step = make_train_step(Linear(), optimizer, make_loss(LossConfig()), preprocess)
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_shrinks_kernels_and_leaves_biases_and_norms_alone(name):
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    }
    assert decays(params) == {
        "conv": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "dense": {"kernel": True, "bias": False},
    }
    schedule = optax.constant_schedule(0.1)
    optimizer = make_optimizer(OptimizerConfig(name=name, weight_decay=0.3, momentum=0.5), schedule)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for layer, leaves in updates.items():
        for leaf, update in leaves.items():
            if leaf == "kernel":
                assert (update < 0).all(), f"{layer} is not decayed"
            else:
                assert (update == 0).all(), f"{layer}/{leaf} is decayed"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_descends_a_quadratic(name):
    optimizer = make_optimizer(OptimizerConfig(name=name), optax.constant_schedule(0.02))
    params = {"kernel": jnp.array([[2.0, -3.0]])}
    opt_state = optimizer.init(params)

    @quick.jit
    def step(params, opt_state):
        grads = jax.grad(lambda p: jnp.sum(p["kernel"] ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(400):
        params, opt_state = step(params, opt_state)
    assert float(jnp.sum(params["kernel"] ** 2)) < 0.1


def test_clipping_bounds_the_gradient():
    config = OptimizerConfig(name="sgd", momentum=0.0, clip_norm=0.5)
    optimizer = make_optimizer(config, optax.constant_schedule(1.0))
    params = {"kernel": jnp.zeros((2, 2))}
    for size in (0.1, 10.0):
        grads = {"kernel": jnp.full((2, 2), size / 2)}  # of norm `size`
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        assert float(optax.global_norm(updates)) == pytest.approx(min(size, 0.5), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("name", ["constant", "cosine", "onecycle", "step"])
def test_schedules_stay_between_zero_and_the_peak(name, steps):
    schedule = make_schedule(ScheduleConfig(name=name), 0.25, steps)
    rates = np.asarray(quick.jit(jax.vmap(schedule))(np.arange(steps + 1)))
    assert rates.shape == (steps + 1,)
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates.max() <= 0.25 * (1 + 1e-6)


def test_schedules_have_their_shapes():
    steps, peak = 1000, 2.0
    at = {n: make_schedule(ScheduleConfig(name=n), peak, steps) for n in ("constant", "cosine", "onecycle", "step")}
    assert at["constant"](0) == at["constant"](steps) == peak
    assert [float(at["cosine"](k)) for k in (0, 150, 300)] == pytest.approx([0, peak / 2, peak])
    assert float(at["cosine"](650)) == pytest.approx(peak / 2)
    assert float(at["cosine"](steps)) == pytest.approx(0, abs=1e-6)
    assert [float(at["onecycle"](k)) for k in (0, 300)] == pytest.approx([peak / 25, peak])
    assert float(at["onecycle"](steps)) < peak / 1000
    assert [float(at["step"](k)) for k in (499, 501, 749, 751)] == pytest.approx([2, 0.2, 0.2, 0.02])


def test_state_holds_statistics_and_randomness():
    optimizer = make_optimizer(OptimizerConfig(), optax.constant_schedule(0.01))
    model, batch = Everything(), random_batch()
    state = create_state(model, optimizer, (4, 4, 1), seed=0)
    assert isinstance(state, TrainState)
    assert jax.tree.structure(jax.tree.map(lambda leaf: leaf, state)) == jax.tree.structure(state)
    step = quick.jit(make_train_step(model, optimizer, make_loss(LossConfig()), preprocess))
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
    optimizer = make_optimizer(OptimizerConfig(), optax.constant_schedule(0.01))
    model = Everything()
    state = create_state(model, optimizer, (4, 4, 1), seed=0)
    eval_step = make_eval_step(model, make_loss(LossConfig()), preprocess)
    batch = random_batch(n=8) | {"mask": np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)}
    sums, scores = eval_step(state.variables, batch)
    reference = np.asarray(scores, np.float64)[:5]
    labels = batch["label"][:5]
    assert float(sums["count"]) == 5
    assert float(sums["correct"]) == np.sum(reference.argmax(-1) == labels)
    np.testing.assert_allclose(sums["loss"], -np.log(softmax(reference)[np.arange(5), labels]).sum(), rtol=1e-5)
    changed = batch | {"image": np.concatenate([batch["image"][:5], 255 - batch["image"][5:]])}
    np.testing.assert_allclose(eval_step(state.variables, changed)[0]["loss"], sums["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerConfig(learning_rate=0.0), "optimizer.learning_rate: expected a positive number, got 0.0"),
        (lambda: OptimizerConfig(learning_rate=float("nan")), "positive number, got nan"),
        (lambda: OptimizerConfig(weight_decay=-1.0), "optimizer.weight_decay"),
        (lambda: OptimizerConfig(momentum=1.0), "optimizer.momentum"),
        (lambda: OptimizerConfig(clip_norm=0.0), "optimizer.clip_norm"),
        (lambda: TrainConfig(steps_per_call=0), "steps_per_call: expected a whole number >= 1 or None, got 0"),
        (lambda: ScheduleConfig(warmup=1.0), "schedule.warmup"),
        (lambda: ScheduleConfig(decay_at=(0.5, 0.2)), "schedule.decay_at"),
        (lambda: ScheduleConfig(decay_factor=0.0), "schedule.decay_factor"),
        (lambda: LossConfig(label_smoothing=1.0), "loss.label_smoothing"),
        (lambda: LossConfig(name="squared_error", label_smoothing=0.1), "expected 0 with squared_error"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=r".") as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
