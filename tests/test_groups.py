"""Groups of parameters train as these leaves would by Optax alone; and Muon, against Optax on plain matrices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from cnn_jax import command, parts
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment
from cnn_jax.runs import fit, texts
from cnn_jax.training import (
    SGD,
    AdamW,
    Constant,
    Group,
    Grouping,
    Linear,
    Muon,
    OneCycle,
    Recipe,
    create_state,
    make_train,
    train_arrays,
)
from cnn_jax.training.groups import make_optimizer
from tests import quick
from tests.tiny import TinyNet, make_dataset, make_execution, make_recipe

STEPS = 10
DRAW = np.random.default_rng(0)
SHAPES = {"conv": {"kernel": (3, 3, 2, 5), "bias": (5,)}, "scores": {"kernel": (6, 3), "bias": (3,)}}
PARAMS = jax.tree.map(
    lambda shape: DRAW.normal(size=shape).astype(np.float32), SHAPES, is_leaf=lambda leaf: isinstance(leaf, tuple)
)
GRADS = jax.tree.map(lambda leaf: DRAW.normal(size=(STEPS, *leaf.shape)).astype(np.float32), PARAMS)


def rate(schedule, peak):
    return schedule(peak, STEPS)


def descend(optimizer, params, grads):
    """The parameters after all steps."""

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = quick.jit(lambda params, grads: jax.lax.scan(step, (params, optimizer.init(params)), grads)[0][0])
    return jax.device_get(run(params, grads))


def descend_in(*groups, optimizer=None, schedule=None):
    made = make_optimizer(optimizer or AdamW(0.1, 0.05), schedule or Constant(), groups, rate)
    return descend(made, PARAMS, GRADS)


@functools.cache
def alone(transformation, layer, leaf):
    """What Optax makes of one leaf of which it knows no other."""
    tree = {layer: {leaf: PARAMS[layer][leaf]}}
    return descend(transformation, tree, {layer: {leaf: GRADS[layer][leaf]}})[layer][leaf]


@functools.cache
def adamw(rate, decay=0.05):
    mask = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.adamw(rate, weight_decay=decay, mask=mask)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_groups_it_is_the_recipes_optimiser():
    found = descend_in()
    for layer, leaves in found.items():
        for leaf, value in leaves.items():
            same(value, alone(adamw(0.1), layer, leaf))


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group("conv", rate=0.1), adamw(0.01)),
        (Group("conv", weight_decay=0.5), adamw(0.1, 0.5)),
        (Group("conv", rate=2.0, weight_decay=0.0), adamw(0.2, 0.0)),
        (Group("conv", optimizer="sgd(0.3, momentum=0.5)"), optax.sgd(0.3, momentum=0.5)),
        (Group("conv", optimizer="sgd(0.3, momentum=0.0)", rate=0.5), optax.sgd(0.15)),
        (Group("conv", schedule="linear(end=0.5)"), adamw(optax.linear_schedule(0.1, 0.05, STEPS))),
        (
            Group("conv", optimizer=SGD(0.3, momentum=0.0), schedule=Linear(), rate=2.0),
            optax.sgd(optax.linear_schedule(0.6, 0.0, STEPS)),
        ),
        (
            Group("conv", optimizer=SGD(0.3, 0.2, momentum=0.5, decay_all=True), until=0.45),
            optax.chain(optax.add_decayed_weights(0.2), optax.sgd(lambda k: 0.3 * (k < 4), momentum=0.5)),
        ),
    ],
    ids=["rate", "decay", "rate and no decay", "optimizer", "optimizer and rate", "schedule", "parts", "until"],
)
def test_a_group_is_trained_as_its_leaves_are_by_optax(group, expected):
    found = descend_in(group)
    for leaf in ("kernel", "bias"):
        same(found["conv"][leaf], alone(expected, "conv", leaf))
        same(found["scores"][leaf], alone(adamw(0.1), "scores", leaf))


def test_frozen_parameters_keep_their_bits_and_have_no_moments():
    group = Group("conv/kernel", frozen=True)
    found = descend_in(group)
    assert found["conv"]["kernel"].tobytes() == PARAMS["conv"]["kernel"].tobytes()
    assert (found["conv"]["bias"] != PARAMS["conv"]["bias"]).all()
    state = make_optimizer(AdamW(0.1), Constant(), (group,), rate).init(PARAMS)
    assert PARAMS["conv"]["kernel"].shape not in [np.shape(leaf) for leaf in jax.tree.leaves(state)]


def test_the_first_that_fits_counts():
    found = descend_in(Group("kernel", frozen=True), Group("conv", rate=0.5), Group("^scores/bias$", rate=0.1))
    for layer in SHAPES:
        assert found[layer]["kernel"].tobytes() == PARAMS[layer]["kernel"].tobytes()
    same(found["conv"]["bias"], alone(adamw(0.05), "conv", "bias"))
    same(found["scores"]["bias"], alone(adamw(0.01), "scores", "bias"))


def test_each_clips_by_its_own_norm():
    found = descend_in(Group("conv/bias", rate=1.0), optimizer=SGD(0.1, momentum=0.0, clip_norm=0.01))
    same(found["conv"]["bias"], alone(optax.chain(optax.clip_by_global_norm(0.01), optax.sgd(0.1)), "conv", "bias"))


@pytest.mark.parametrize(
    "groups", [(Group("dense"),), (Group("conv"), Group("conv/kernel")), (Group("."), Group("scores"))], ids=str
)
def test_one_that_fits_nothing_is_refused_in_a_line(groups):
    with pytest.raises(InputError, match="groups: expected each to have parameters, none is left for") as caught:
        make_optimizer(SGD(), Constant(), groups, rate).init(PARAMS)
    message = str(caught.value)
    assert "conv/kernel" in message
    assert f"none is left for {parts.short_text(groups[-1])}; there are conv/bias" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Group(""), "group: expected pattern to be a regular expression that fits something, got ''"),
        (lambda: Group("("), "group: expected pattern to be a regular expression"),
        (lambda: Group("a", rate=0.0), "group: expected rate to be a positive number, got 0.0"),
        (lambda: Group("a", until=0.0), "group: expected until to be a share above 0, at most 1, got 0.0"),
        (lambda: Group("a", weight_decay=-1.0), "group: expected weight_decay to be a number >= 0 or None, got -1.0"),
        (lambda: descend_in(Group("conv", optimizer="sgdd()")), "sgdd"),
        (lambda: descend_in(Group("conv", schedule="step(factor=0.0)")), "step: expected factor"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=r".") as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


GROUPS = (
    Group("conv", rate=0.1, weight_decay=0.0),
    Group("scores/bias", frozen=True),
    Group("scores", optimizer="muon(0.02)", schedule="linear(warmup=0.2)"),
)


def test_texts_are_read_back():
    text = " | ".join(map(parts.short_text, GROUPS))
    assert parts.parse_several(text, Grouping) == GROUPS
    assert parts.parse(parts.text(GROUPS[2]), Grouping) == GROUPS[2]


def test_the_command_line_takes_them(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train"])
    text = " | ".join(map(parts.short_text, GROUPS))
    config = command.parse(Experiment, ["--groups", text], "About it.")
    assert config.recipe.groups == GROUPS
    # Quotes in quotes: a part's text within a part's text.
    config = command.parse(Experiment, ["--groups", "group('conv', optimizer='sgd(0.1)')"], "About it.")
    assert config.recipe.groups == (Group("conv", optimizer="sgd(0.1)"),)


def test_a_run_trains_its_groups_and_a_sweep_scales_them():
    train, groups = make_dataset(), (Group("conv/bias", frozen=True), Group("scores", optimizer=Muon(0.02)))
    recipe = make_recipe(groups=groups, epochs=1, optimizer=AdamW(0.01), schedule=OneCycle())
    run = fit(recipe, train, execution=make_execution())
    begun = create_state(TinyNet(), optax.sgd(0.1), (6, 6, 1), 0)
    assert np.asarray(run.state.params["conv"]["bias"]).tobytes() == np.asarray(begun.params["conv"]["bias"]).tobytes()
    assert (run.state.params["scores"]["kernel"] != begun.params["scores"]["kernel"]).any()
    swept = quick.jit(make_train(recipe, train))
    arrays = train_arrays(recipe, train, 0)
    state, _ = swept(jax.random.key(0), {"optimizer.learning_rate": jnp.float32(0.01)}, arrays)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state.params, run.state.params)


# Muon.
def as_matrix(kernel):
    """(h, w, I, O) as (O, I h w), whose rows are the filters."""
    return np.moveaxis(np.asarray(kernel), -1, 0).reshape(kernel.shape[-1], -1)


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (5, 5, 1, 6), (6, 3), (3, 3, 8, 4)], ids=str)
def test_the_singular_values_of_muons_update_are_about_one(shape):
    """The gradient's are spread over a factor of a hundred; then comes the factor for the shape (Optax's default)."""
    rows, columns = shape[-1], int(np.prod(shape[:-1]))
    u, _, v = np.linalg.svd(np.random.default_rng(1).normal(size=(rows, columns)), full_matrices=False)
    gradient = (u * np.geomspace(1, 0.05, len(v))) @ v
    kernel = np.moveaxis(gradient.reshape(rows, *shape[:-1]), 0, -1).astype(np.float32)
    optimizer = Muon(1.0)(optax.constant_schedule(1.0))
    params = {"kernel": jnp.zeros(shape)}
    updates, _ = quick.jit(lambda grads: optimizer.update(grads, optimizer.init(params), params))({"kernel": kernel})
    found = np.linalg.svd(as_matrix(updates["kernel"]) / np.sqrt(max(1, rows / columns)), compute_uv=False)
    assert found.min() > 0.6
    assert found.max() < 1.25


@pytest.mark.parametrize("part", [Muon(0.02), Muon(0.02, 0.1, beta=0.5, nesterov=False, ns_steps=3)], ids=str)
def test_muon_of_a_kernel_is_optaxs_of_the_matrix(part):
    grads, params = GRADS["conv"]["kernel"], PARAMS["conv"]["kernel"]
    found = descend(part(optax.constant_schedule(0.02)), {"kernel": params}, {"kernel": grads})["kernel"]
    plain = contrib.muon(
        0.02, beta=part.beta, nesterov=part.nesterov, ns_steps=part.ns_steps, weight_decay=part.weight_decay
    )
    matrices = {"kernel": params.reshape(-1, 5)}, {"kernel": grads.reshape(STEPS, -1, 5)}
    expected = descend(plain, *matrices)["kernel"]
    np.testing.assert_allclose(found.reshape(-1, 5), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("other", [None, 0.005])
def test_muon_leaves_biases_to_adam(other):
    part = Muon(0.02, 0.3, adam_learning_rate=other)
    found = descend(part(optax.constant_schedule(0.02)), PARAMS, GRADS)
    adam = optax.adamw(other or 0.02, weight_decay=0.0, nesterov=True)
    for layer in SHAPES:
        same(found[layer]["bias"], alone(adam, layer, "bias"))


def test_the_file_of_a_groups_own_optimiser_is_one_of_the_run(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nimport optax\nfrom cnn_jax.training import Optimizer\n"
        "@dataclass(frozen=True)\nclass Plain(Optimizer):\n"
        "    def __call__(self, schedule):\n        return optax.sgd(schedule)\n"
    )
    group = Group("bias", optimizer=f"{file}:Plain(0.1)")
    recipe = Recipe(groups=(group,))
    assert parts.files_of(*texts.parts_of(recipe)) == {str(file): file}


def test_a_text_that_is_none_is_refused_at_once():
    with pytest.raises(InputError, match="sgd"):
        Group("bias", optimizer="sdg(0.1)")
