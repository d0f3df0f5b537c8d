"""Losses, metrics, optimisers and schedules, against the formulas they come from in float64."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import InputError
from cnn_jax.models import LeNet5
from cnn_jax.training import (
    LAMB,
    LARS,
    MAP,
    SGD,
    Accuracy,
    Adam,
    AdamW,
    BinaryCrossEntropy,
    CalibrationError,
    Constant,
    Cosine,
    CrossEntropy,
    Focal,
    Linear,
    Lion,
    OneCycle,
    Recipe,
    RMSprop,
    SoftmaxCrossEntropy,
    SquaredError,
    Step,
    TopK,
    WarmupStableDecay,
)
from cnn_jax.training.optimizers import decays
from tests import quick

CLASSES = 4
SCORES = np.random.default_rng(0).normal(size=(6, 2, CLASSES), scale=3)
CERTAIN = np.eye(CLASSES)[np.random.default_rng(1).integers(0, CLASSES, (6, 2))]
SOFT = np.random.default_rng(2).dirichlet(np.ones(CLASSES), (6, 2))


def softmax(scores):
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores))


def smoothed(targets, share):
    return (1 - share) * targets + share / targets.shape[-1]


# Losses.
def cross_entropy(scores, targets, share=0.0, weights=1.0):
    return -(smoothed(targets, share) * weights * np.log(softmax(scores))).sum(-1)


def binary_cross_entropy(scores, targets, share=0.0, threshold=None):
    t, p = smoothed(targets, share), sigmoid(scores)
    t = t if threshold is None else t > threshold
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(-1)


def focal(scores, targets, gamma=2.0, alpha=None):
    """Lin et al. 2017, equation 5, p_t being the probability of the class's own answer."""
    p = sigmoid(scores)
    p_t = p * targets + (1 - p) * (1 - targets)
    entropy = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    weight = 1.0 if alpha is None else alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * (1 - p_t) ** gamma * entropy).sum(-1)


def squared_error(scores, targets):
    return ((scores - targets) ** 2).sum(-1)


def maximum_a_posteriori(scores, targets, j=10.0):
    """LeCun et al. 1998, equation 9, for penalties y = -scores; of uncertain targets the mean over their labels."""
    of_label = -scores + np.log(np.exp(-j) + np.exp(scores).sum(-1, keepdims=True))
    return (targets * of_label).sum(-1)


LOSSES = [
    (SoftmaxCrossEntropy(), cross_entropy, {}),
    (SoftmaxCrossEntropy(0.1), cross_entropy, {"share": 0.1}),
    (SoftmaxCrossEntropy(0.5, (1.0, 0.0, 2.5, 3.0)), cross_entropy, {"share": 0.5, "weights": [1, 0, 2.5, 3]}),
    (BinaryCrossEntropy(), binary_cross_entropy, {}),
    (BinaryCrossEntropy(0.2), binary_cross_entropy, {"share": 0.2}),
    (BinaryCrossEntropy(0.2, 0.3), binary_cross_entropy, {"share": 0.2, "threshold": 0.3}),
    (Focal(), focal, {}),
    (Focal(gamma=0.0), binary_cross_entropy, {}),
    (Focal(gamma=0.5, alpha=0.25), focal, {"gamma": 0.5, "alpha": 0.25}),
    (SquaredError(), squared_error, {}),
    (MAP(), maximum_a_posteriori, {}),
    (MAP(2.5), maximum_a_posteriori, {"j": 2.5}),
]


@pytest.mark.parametrize("targets", [CERTAIN, SOFT], ids=["certain", "soft"])
@pytest.mark.parametrize(("loss", "formula", "numbers"), LOSSES, ids=[str(loss) for loss, _, _ in LOSSES])
def test_a_loss_is_its_formula(loss, formula, numbers, targets):
    found = quick.jit(loss)(SCORES.astype(np.float32), targets.astype(np.float32))
    assert (found.shape, found.dtype) == ((6, 2), jnp.float32)
    np.testing.assert_allclose(found, formula(SCORES, targets, **numbers), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [loss for loss, _, _ in LOSSES], ids=str)
def test_losses_and_their_slopes_are_finite_where_scores_are_sure(loss):
    """Right and wrong by far: softmax and sigmoid are exactly 0 and 1 there."""
    scores, targets = (
        np.float32(200) * np.float32([[1, -1, -1, -1], [-1, 1, -1, -1]]),
        np.eye(4, dtype=np.float32)[[0, 0]],
    )
    value, slope = quick.jit(jax.value_and_grad(lambda scores: loss(scores, targets).sum()))(scores)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_weights_are_one_a_class(count):
    with pytest.raises(InputError, match=f"^class_weights: expected 4, one a class, got {count}$"):
        SoftmaxCrossEntropy(class_weights=(1.0,) * count)(SCORES, CERTAIN)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
@pytest.mark.parametrize(
    ("kind", "best"),
    [(SoftmaxCrossEntropy, np.log), (BinaryCrossEntropy, lambda p: np.log(p / (1 - p)))],
)
def test_the_floor_is_what_the_best_scores_reach(kind, best, share):
    loss, targets = kind(share), np.eye(CLASSES)[2]
    if not share:
        assert loss.floor(CLASSES) is None
        return
    scores = best(smoothed(targets, share)).astype(np.float32)
    value, slope = quick.jit(jax.value_and_grad(lambda scores: loss(scores, targets)))(scores)
    assert loss.floor(CLASSES) == pytest.approx(float(value), rel=1e-5)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_losses_that_do_not_smooth_have_no_floor():
    for loss in (Focal(), SquaredError(), MAP(), BinaryCrossEntropy(0.1, 0.5), SoftmaxCrossEntropy(0.1, (1.0,) * 4)):
        assert loss.floor(CLASSES) is None


# Metrics.
def test_accuracy_and_top_k_count_the_likeliest_class():
    ranks = (np.take_along_axis(SCORES, SOFT.argmax(-1)[..., None], -1) < SCORES).sum(-1)
    metrics = [(Accuracy(), 1), *((TopK(k), k) for k in (1, 2, 3, CLASSES, 9))]
    found = quick.jit(lambda *of: [metric(*of) for metric, _ in metrics])(SCORES, SOFT)
    for values, (_, k) in zip(found, metrics, strict=True):
        np.testing.assert_array_equal(values, ranks < k)


def test_of_equal_scores_the_class_named_first_comes_first():
    """Whatever the number of ties, exactly k classes are among the k largest."""
    scores, targets = np.float32([[1, 2, 2, 2]] * 4), np.eye(4, dtype=np.float32)
    *found, first = quick.jit(lambda: [m(scores, targets) for m in (*map(TopK, (1, 2, 3, 4)), Accuracy())])()
    assert [one.tolist() for one in found] == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert first.tolist() == found[0].tolist()


def test_cross_entropy_is_not_smoothed():
    np.testing.assert_allclose(quick.jit(CrossEntropy())(SCORES, SOFT), cross_entropy(SCORES, SOFT), 1e-5)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_its_definition(bins):
    """Guo et al. 2017, equation 3, with a loop over the bins."""
    draw = np.random.default_rng(3)
    scores, labels = draw.normal(size=(500, CLASSES), scale=2), draw.integers(0, CLASSES, 500)
    probabilities = softmax(scores)
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    expected = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    metric = CalibrationError(bins)
    values = quick.jit(metric)(scores.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[labels])
    assert values.shape == (500, bins)
    assert float(metric.finish(np.asarray(values, np.float64).mean(0))) == pytest.approx(expected, abs=1e-5)


def test_metrics_say_what_they_are_called_and_which_way_is_up():
    assert [m.name for m in (Accuracy(), TopK(), TopK(3), CrossEntropy(), CalibrationError())] == [
        "accuracy", "top5", "top3", "cross_entropy", "calibration_error"
    ]  # fmt: skip
    assert Accuracy().rank(0.9) > Accuracy().rank(0.8)
    assert CrossEntropy().rank(0.9) < CrossEntropy().rank(0.8)
    assert (Accuracy().shown(0.985), CrossEntropy().shown(0.985)) == ("98.50%", "0.9850")


# Optimisers.
RATES = (0.1, 0.2, 0.05, 0.4, 0.1)  # by step
PARAMS = {"kernel": np.random.default_rng(4).normal(size=(2, 3)), "bias": np.random.default_rng(5).normal(size=3)}
GRADS = [
    {name: np.random.default_rng([k, leaf.size]).normal(size=leaf.shape) for name, leaf in PARAMS.items()}
    for k in range(len(RATES))
]


def norm(values):
    return np.sqrt((values**2).sum())


def clipped(gradients, largest):
    total = np.sqrt(sum(norm(g) ** 2 for g in gradients.values()))
    return {name: g * min(1.0, largest / total) for name, g in gradients.items()}


def adam_direction(part, g, state, step):
    """Kingma and Ba 2015, algorithm 1."""
    state["m"] = part.b1 * state.get("m", 0.0) + (1 - part.b1) * g
    state["v"] = part.b2 * state.get("v", 0.0) + (1 - part.b2) * g**2
    mean, square = state["m"] / (1 - part.b1 ** (step + 1)), state["v"] / (1 - part.b2 ** (step + 1))
    return mean / (np.sqrt(square) + part.eps)


def momentum(part, value, state):
    state["trace"] = value + part.momentum * state.get("trace", 0.0)
    return value + part.momentum * state["trace"] if getattr(part, "nesterov", False) else state["trace"]


def sgd(part, g, p, decay, rate, state, step):
    return -rate * momentum(part, g + decay * p, state)


def adam(part, g, p, decay, rate, state, step):
    return -rate * adam_direction(part, g + decay * p, state, step)


def adamw(part, g, p, decay, rate, state, step):
    return -rate * (adam_direction(part, g, state, step) + decay * p)


def lamb(part, g, p, decay, rate, state, step):
    """You et al. 2020, algorithm 2, the norm itself standing for the paper's phi."""
    u = adam_direction(part, g, state, step) + decay * p
    return -rate * norm(p) / norm(u) * u


def lars(part, g, p, decay, rate, state, step):
    """You, Gitman and Ginsburg 2017, with the norm of the decayed gradient; biases move as in SGD."""
    u = g + decay * p
    u = u * part.trust_coefficient * norm(p) / norm(u) if p.ndim > 1 else u
    return momentum(part, -rate * u, state)


def lion(part, g, p, decay, rate, state, step):
    """Chen et al. 2023, program 1."""
    before = state.get("m", 0.0)
    state["m"] = part.b2 * before + (1 - part.b2) * g
    return -rate * (np.sign(part.b1 * before + (1 - part.b1) * g) + decay * p)


def rmsprop(part, g, p, decay, rate, state, step):
    g = g + decay * p
    state["v"] = part.decay * state.get("v", 0.0) + (1 - part.decay) * g**2
    return momentum(part, -rate * g / np.sqrt(state["v"] + part.eps), state)


FORMULAS = {SGD: sgd, Adam: adam, AdamW: adamw, LAMB: lamb, LARS: lars, Lion: lion, RMSprop: rmsprop}
OPTIMIZERS = [
    *(kind() for kind in FORMULAS),
    *(kind(weight_decay=0.3, clip_norm=0.7) for kind in FORMULAS),
    SGD(momentum=0.0), SGD(momentum=0.5, nesterov=True), SGD(weight_decay=0.3, decay_all=True),
    LARS(momentum=0.5, nesterov=True, trust_coefficient=0.1),
    RMSprop(momentum=0.0, decay=0.5, eps=1e-3), Lion(b1=0.5, b2=0.7),
    *(kind(b1=0.5, b2=0.7, eps=0.1) for kind in (Adam, AdamW)),
]  # fmt: skip


def by_formula(part):
    """The parameters after each step."""
    params, states, path = dict(PARAMS), {name: {} for name in PARAMS}, []
    for step, (rate, grads) in enumerate(zip(RATES, GRADS, strict=True)):
        grads = grads if part.clip_norm is None else clipped(grads, part.clip_norm)
        for name, p in params.items():
            decay = part.weight_decay if name == "kernel" or getattr(part, "decay_all", False) else 0.0
            update = FORMULAS[type(part)](part, grads[name], p, decay, rate, states[name], step)
            params = params | {name: p + update}
        path.append(params)
    return jax.tree.map(lambda *each: np.stack(each), *path)


def steps(part):
    """The same by the part; in x64."""
    optimizer = part(lambda count: jnp.array(RATES)[count])

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params, grads = jax.tree.map(jnp.asarray, PARAMS), jax.tree.map(lambda *each: jnp.stack(each), *GRADS)
    return jax.lax.scan(step, (params, optimizer.init(params)), grads)[1]


@pytest.mark.parametrize("part", OPTIMIZERS, ids=str)
def test_an_optimiser_is_its_formula(part):
    """Five steps of a rate that changes: decay of the kernel, or of all, and clipping by the norm of all gradients."""
    with jax.enable_x64(True):
        found = jax.device_get(quick.jit(lambda: steps(part))())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, by_formula(part))


TRACED = [
    (kind, field.name, value)
    for kind, value in [(kind, 0.3) for kind in FORMULAS]
    for field in dataclasses.fields(kind)
    if field.type in ("float", "float | None") and field.name != "learning_rate"
]


@pytest.mark.parametrize(("kind", "field", "value"), TRACED)
def test_a_traced_number_is_the_configured_one(kind, field, value):
    """As in a sweep: mapped over, where no check can look at it."""
    with jax.enable_x64(True):
        found = quick.jit(jax.vmap(lambda number: steps(kind(**{field: number}))))(jnp.array([0.5, value]))
    expected = by_formula(kind(**{field: value}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), found, expected)


@pytest.mark.parametrize("kind", FORMULAS)
def test_decay_shrinks_kernels_and_leaves_biases_and_norms_alone(kind):
    params = {
        "conv": {"kernel": np.ones((3, 3, 1, 2), np.float32), "bias": np.ones(2, np.float32)},
        "norm": {"scale": np.ones(2, np.float32), "bias": np.ones(2, np.float32)},
        "dense": {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)},
    }
    assert decays(params) == {
        "conv": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "dense": {"kernel": True, "bias": False},
    }
    optimizer = kind(weight_decay=0.3)(optax.constant_schedule(0.1))

    @quick.jit
    def step(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optimizer.update(zeros, optimizer.init(params), params)[0]

    updates = jax.device_get(step(params))
    for layer, leaves in updates.items():
        for leaf, update in leaves.items():
            if leaf == "kernel":
                assert (update < 0).all(), f"{layer} is not decayed"
            else:
                assert (update == 0).all(), f"{layer}/{leaf} is decayed"


@pytest.mark.parametrize(
    "part", [kind() for kind in FORMULAS if kind is not LARS] + [LARS(trust_coefficient=0.1)], ids=str
)
def test_every_optimiser_descends_a_quadratic(part):
    optimizer = part(optax.constant_schedule(0.02))

    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(lambda p: jnp.sum(p["kernel"] ** 2))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    @quick.jit
    def descend(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), length=400)[0][0]

    assert np.sum(descend({"kernel": np.float32([[2.0, -3.0]])})["kernel"] ** 2) < 0.1


def test_clipping_bounds_the_gradient():
    optimizer = SGD(momentum=0.0, clip_norm=0.5)(optax.constant_schedule(1.0))
    params = {"kernel": np.zeros((2, 2), np.float32)}
    update = quick.jit(lambda grads: optimizer.update(grads, optimizer.init(params), params)[0])
    for size in (0.1, 10.0):
        updates = update({"kernel": np.full((2, 2), size / 2, np.float32)})  # of norm `size`
        assert norm(np.asarray(updates["kernel"])) == pytest.approx(min(size, 0.5), rel=1e-5)


# Schedules, of the step k and the number of steps; the peak is 1.
def rise(k, over, start):
    return start + (1 - start) * k / over


def half_cosine(k, over, start, end):
    return end + (start - end) * (1 + math.cos(math.pi * k / over)) / 2


def cosine(k, n, warmup=0.3):
    up = round(warmup * n)
    return rise(k, up, 0.0) if k < up else half_cosine(k - up, n - up, 1.0, 0.0)


def one_cycle(k, n, warmup=0.3):
    """Smith and Topin 2018, with PyTorch's numbers: from 1/25 of the peak, to 1/250,000 of it."""
    up = int(warmup * n)
    return half_cosine(k, up, 1 / 25, 1.0) if k < up else half_cosine(k - up, n - up, 1.0, 1 / 250_000)


def linear(k, n, warmup=0.0, start=0.0, end=0.0, end_at=1.0):
    up, down = round(warmup * n), round(end_at * n)
    return rise(k, up, start) if k < up else 1 - (1 - end) * (min(k, down) - up) / (down - up)


def step(k, n, at=(0.5, 0.75), factor=0.1, warmup=0.0, start=0.1, ramp=False):
    if ramp and k < warmup * n:
        return rise(k, warmup * n, start)
    return start if k < warmup * n else factor ** sum(k >= share * n for share in at)


def warmup_stable_decay(k, n, warmup=0.05, decay=0.2):
    return min(rise(k, warmup * n, 0.0) if warmup else 1.0, 1.0, (n - k) / (decay * n))


SCHEDULES = [
    (Constant(), lambda k, n: 1.0),
    (Cosine(), cosine),
    (Cosine(0.0), lambda k, n: cosine(k, n, 0.0)),
    (OneCycle(), one_cycle),
    (OneCycle(0.5), lambda k, n: one_cycle(k, n, 0.5)),
    (Linear(), linear),
    (Linear(0.25, 0.1, 0.2), lambda k, n: linear(k, n, 0.25, 0.1, 0.2)),
    (Linear(0.125, end_at=0.375), lambda k, n: linear(k, n, 0.125, end_at=0.375)),
    (Step(), step),
    (Step((0.1, 0.2, 0.9), 0.5), lambda k, n: step(k, n, (0.1, 0.2, 0.9), 0.5)),
    (Step(warmup=0.02, start=0.3), lambda k, n: step(k, n, warmup=0.02, start=0.3)),
    (Step((0.4,), 0.1, 0.25, 0.2, True), lambda k, n: step(k, n, (0.4,), warmup=0.25, start=0.2, ramp=True)),
    (WarmupStableDecay(), warmup_stable_decay),
    (WarmupStableDecay(0.0, 1.0), lambda k, n: warmup_stable_decay(k, n, 0.0, 1.0)),
    (WarmupStableDecay(0.4, 0.6), lambda k, n: warmup_stable_decay(k, n, 0.4, 0.6)),
]


@pytest.mark.parametrize(("part", "formula"), SCHEDULES, ids=[str(part) for part, _ in SCHEDULES])
def test_a_schedule_is_its_formula(part, formula):
    found = quick.jit(jax.vmap(part(2.5, 200)))(np.arange(201))
    np.testing.assert_allclose(found, [2.5 * formula(k, 200) for k in range(201)], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", [part for part, _ in SCHEDULES], ids=str)
def test_schedules_stay_between_zero_and_the_peak_however_short_the_run(part):
    lengths = (1, 2, 3, 10)
    found = quick.jit(lambda: [jax.vmap(part(0.25, n))(jnp.arange(n + 1)) for n in lengths])()
    for n, rates in zip(lengths, found, strict=True):
        assert rates.shape == (n + 1,)
        assert np.isfinite(rates).all()
        assert rates.min() >= -0.25 * 1e-6
        assert rates.max() <= 0.25 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("kind", "field"), [(Linear, "start"), (Linear, "end"), (Step, "factor"), (Step, "start"),
                        (SoftmaxCrossEntropy, "label_smoothing"),
                        (BinaryCrossEntropy, "label_smoothing"), (Focal, "gamma"), (Focal, "alpha"),
                        (MAP, "rubbish_penalty")]
)  # fmt: skip
def test_traced_numbers_of_losses_and_schedules_are_the_configured_ones(kind, field):
    def call(number):
        if kind in (Linear, Step):
            others = {"warmup": 0.4} if kind is Linear or field == "start" else {}
            return jax.vmap(kind(**{field: number}, **others)(1.0, 20))(jnp.arange(20))
        return kind(**{field: number})(jnp.asarray(SCORES, jnp.float32), jnp.asarray(SOFT, jnp.float32))

    numbers = 0.2, 0.6
    found, *expected = quick.jit(lambda traced: [jax.vmap(call)(traced), *map(call, numbers)])(np.float32(numbers))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Recipes, and what is refused.
def test_accuracy_is_always_measured_and_the_cross_entropy_where_labels_are_smoothed():
    assert list(Recipe().measures(10)) == ["accuracy"]
    assert list(Recipe(loss=SoftmaxCrossEntropy(0.1)).measures(10)) == ["accuracy", "cross_entropy"]
    assert list(Recipe(metrics=(TopK(3), CrossEntropy())).measures(10)) == ["top3", "cross_entropy", "accuracy"]
    asked = Recipe(metrics=(CrossEntropy(),), loss=BinaryCrossEntropy(0.1))
    assert list(asked.measures(10)) == ["cross_entropy", "accuracy"]


@pytest.mark.parametrize(("steps", "taken"), [(None, 16), (5, 5), (50, 16)])
def test_a_run_takes_the_steps_asked_for_or_those_of_its_epochs(steps, taken):
    assert Recipe(epochs=2, batch_size=8, steps=steps).count_steps(61) == taken


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SGD(learning_rate=0.0),
            "sgd: expected learning_rate to be a positive number that float32 holds, got 0",
        ),
        (lambda: AdamW(learning_rate=float("nan")), "adamw: expected learning_rate to be a positive number"),
        (lambda: Lion(weight_decay=-1.0), "lion: expected weight_decay to be a number >= 0"),
        (lambda: SGD(momentum=1.0), "sgd: expected momentum to be a number from 0 to below 1, got 1.0"),
        (lambda: LARS(momentum=-0.1), "lars: expected momentum"),
        (lambda: LARS(trust_coefficient=0.0), "lars: expected trust_coefficient to be a positive number, got 0.0"),
        (lambda: LAMB(clip_norm=0.0), "lamb: expected clip_norm to be a positive number or None, got 0.0"),
        (lambda: Adam(b1=1.0), "adam: expected b1"),
        (lambda: Lion(b2=1.0), "lion: expected b2"),
        (lambda: LAMB(eps=0.0), "lamb: expected eps"),
        (lambda: RMSprop(decay=1.0), "rmsprop: expected decay"),
        (lambda: Cosine(warmup=1.0), "cosine: expected warmup to be a share from 0 to below 1, got 1.0"),
        (lambda: OneCycle(warmup=-0.1), "one_cycle: expected warmup"),
        (lambda: Linear(start=1.1), "linear: expected start to be a share from 0 to 1, got 1.1"),
        (lambda: Linear(end=-1.0), "linear: expected end"),
        (lambda: Linear(0.5, end_at=0.5), "linear: expected end_at to be a share above that of the warm-up, at most 1"),
        (lambda: Step(at=(0.5, 0.2)), "step: expected at to be ascending shares between 0 and 1, got (0.5, 0.2)"),
        (lambda: Step(factor=0.0), "step: expected factor to be a factor above 0, at most 1, got 0.0"),
        (lambda: Step(warmup=0.5), "step: expected warmup to be a share below the first of `at`, got 0.5"),
        (lambda: Step(start=0.0), "step: expected start to be a share above 0, at most 1, got 0.0"),
        (lambda: WarmupStableDecay(0.5, 0.6), "warmup_stable_decay: expected decay to be at most what the warm-up"),
        (lambda: SoftmaxCrossEntropy(1.0), "softmax_cross_entropy: expected label_smoothing"),
        (lambda: SoftmaxCrossEntropy(class_weights=(1.0, -1.0)), "softmax_cross_entropy: expected class_weights"),
        (lambda: BinaryCrossEntropy(-0.1), "binary_cross_entropy: expected label_smoothing"),
        (lambda: Focal(gamma=-1.0), "focal: expected gamma to be a number >= 0, got -1.0"),
        (lambda: Focal(alpha=1.0), "focal: expected alpha to be a share between 0 and 1, or None, got 1.0"),
        (lambda: MAP(0.0), "map: expected rubbish_penalty to be a positive number, got 0.0"),
        (lambda: TopK(0), "topk: expected k to be a whole number >= 1, got 0"),
        (lambda: CalibrationError(0), "calibration_error: expected bins to be a whole number >= 1, got 0"),
        (lambda: Recipe(epochs=0), "epochs: expected a whole number >= 1, got 0"),
        (lambda: Recipe(steps=0), "steps: expected a whole number >= 1 or None, got 0"),
        (lambda: Recipe(batch_size=0), "batch_size: expected a whole number >= 1, got 0"),
        (lambda: Recipe(validation=1.5), "validation: expected a fraction from 0 to 1 or a whole number of images"),
        (lambda: Recipe(metrics=(TopK(5), TopK(5))), "metrics: expected names that differ"),
        (lambda: Recipe(pixel_range=(1.0, 0.0)), "pixel_range: expected two finite numbers, black below white"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=r".") as caught:
        make()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_metrics_may_not_be_called_as_what_is_there_already():
    @dataclasses.dataclass(frozen=True)
    class Loss(Accuracy):
        """Called "loss"."""

    with pytest.raises(InputError, match="none of loss, count, grad_norm, param_norm, update_norm, got 'loss'"):
        Recipe(model=LeNet5(), metrics=(Loss(),))
