"""`NormedMuon`, step by step against the program it is of, in float64; and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import parts
from cnn_jax.errors import InputError
from cnn_jax.runs import fit
from cnn_jax.training import SGD, Group, NormedMuon, Optimizer, normed_muon
from tests import quick
from tests.tiny import make_dataset, make_execution, make_recipe

STEPS = 6
DRAW = np.random.default_rng(0)
SHAPES = {"few inputs": (3, 3, 2, 30), "many inputs": (3, 3, 8, 6), "dense": (12, 5)}
PARAMS = {name: 3 * DRAW.normal(size=shape) for name, shape in SHAPES.items()}
GRADS = {name: DRAW.normal(size=(STEPS, *shape)) for name, shape in SHAPES.items()}


def as_matrix(kernel):
    """(h, w, I, O) as (O, I h w), whose rows are the filters."""
    return np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)


def newton_schulz(matrix, steps):
    """The singular values alone, which the iteration takes through its quintic one by one."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s /= np.linalg.norm(s)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


def descend(part):
    """The parameters after each step, of a rate that falls to 0."""
    optimizer = part(lambda count: part.learning_rate * (1 - count / STEPS))

    def step(carry, grads):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params, grads = (jax.tree.map(np.float32, tree) for tree in (PARAMS, GRADS))
    return jax.device_get(quick.jit(lambda: jax.lax.scan(step, (params, optimizer.init(params)), grads)[1])())


@pytest.mark.parametrize(("half", "off"), [(jnp.bfloat16, 0.02), (jnp.float32, 1e-5)])
@pytest.mark.parametrize("part", [NormedMuon(), NormedMuon(0.5, 0.9, 5), NormedMuon(0.1, 0.0, 1)], ids=str)
def test_each_step_is_that_of_the_program(part, half, off, monkeypatch):
    """To the rounding of what the iteration is taken in, whose errors add up: as it is, eight bits."""
    monkeypatch.setattr(normed_muon, "_HALF", half)
    found = descend(part)
    for name in SHAPES:
        kernel, total = as_matrix(PARAMS[name]), 0.0
        for k in range(STEPS):
            gradient = as_matrix(GRADS[name][k])
            total = part.momentum * total + gradient
            update = newton_schulz(gradient + part.momentum * total, part.ns_steps)
            kernel = kernel * np.sqrt(len(kernel)) / np.linalg.norm(kernel)
            kernel = kernel - part.learning_rate * (1 - k / STEPS) * update
            difference = np.linalg.norm(as_matrix(found[name][k]) - kernel)
            assert difference < off * part.learning_rate * np.linalg.norm(update) * (k + 1), name


def test_a_run_needs_a_group_for_what_is_no_kernel():
    groups = (Group("bias", optimizer=SGD(0.1)),)
    result = fit(make_recipe(optimizer=NormedMuon(), groups=groups), make_dataset(), execution=make_execution())
    assert np.isfinite(result.train["loss"]).all()
    with pytest.raises(InputError, match=r"^normed_muon: expected kernels alone, got conv/bias; give it an optimiser"):
        fit(make_recipe(optimizer=NormedMuon()), make_dataset(), execution=make_execution())


def test_its_text_is_read_back():
    part = NormedMuon(0.1, momentum=0.9)
    assert parts.short_text(part) == "normed_muon(learning_rate=0.1, momentum=0.9)"
    assert parts.parse(parts.text(part), Optimizer) == part


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "normed_muon: expected learning_rate to be a positive number"),
        ({"momentum": 1.0}, "normed_muon: expected momentum to be a number from 0 to below 1, got 1.0"),
        ({"ns_steps": 0}, "normed_muon: expected ns_steps to be a whole number >= 1, got 0"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(InputError) as caught:
        NormedMuon(**fields)
    assert str(caught.value).startswith(message)
