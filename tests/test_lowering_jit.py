"""`lowering.jit` takes what `jax.jit` takes, and is plain inside another program."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import lowering
from cnn_jax.lowering import onednn
from tests.geometries import normal

X, KERNEL = (jnp.asarray(a, jnp.float32) for a in normal(0, (2, 8, 8, 3), (3, 3, 3, 3)))
# An option that every XLA knows, so that there are some to compile with where there is no oneDNN too.
OPTIONS = {"xla_cpu_enable_fast_math": False}


def conv(x, kernel=KERNEL):
    return F.conv(x, kernel)


ways = pytest.mark.parametrize("options", [{}, {"compiler_options": OPTIONS}], ids=["plain", "with options"])


@ways
def test_it_is_called_as_jit_is(options):
    expected = F.conv(X, KERNEL)

    @lowering.jit
    def bare(x, kernel):
        return conv(x, kernel)

    @lowering.jit(donate_argnums=0, **options)
    def donating(x, kernel):
        """Of the function."""
        return conv(x, kernel) + x

    pool = lowering.jit(lambda x, *, side: F.max_pool(x, (side, side)), static_argnames="side", **options)
    donated = X + 0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(bare(X, KERNEL), expected)
    close(donating(donated, kernel=KERNEL), expected + X)
    close(lowering.jit(functools.partial(conv, kernel=KERNEL), **options)(X), expected)
    assert donated.is_deleted()
    assert (donating.__name__, donating.__doc__) == ("donating", "Of the function.")
    assert pool(X, side=2).shape == (2, 7, 7, 3)
    assert donating.eval_shape(X, KERNEL).shape == donating.trace(X, KERNEL).out_info.shape == X.shape
    close(bare.lower(X, KERNEL).compile()(X, KERNEL), expected)
    donating.clear_cache()


def test_methods_are_bound():
    class Layer:
        @functools.partial(lowering.jit, static_argnums=0, compiler_options=OPTIONS)
        def apply(self, x):
            return 2 * x

    assert Layer().apply(3.0) == 6.0


@ways
def test_inside_another_program_it_is_plain(options):
    inner = lowering.jit(conv, **options)

    def loss(x):
        return (inner(x) ** 2).sum()

    stepped = [
        jax.jit(lambda x: inner(x)),
        lowering.jit(lambda x: inner(x), **options),
        lambda x: jax.lax.scan(lambda x, _: (inner(x), None), x, length=1)[0],
        lambda x: jax.lax.cond(True, inner, inner, x),
        lambda x: jax.vmap(inner)(x[None])[0],
        jax.jit(lambda x: jax.vmap(inner)(x[None])[0]),
        jax.checkpoint(inner),
        lambda _: jax.jit(lambda: inner(X))(),
    ]
    expected = F.conv(X, KERNEL)
    for function in stepped:
        np.testing.assert_allclose(function(X), expected, rtol=1e-4, atol=1e-4)
    gradient = jax.grad(lambda x: (F.conv(x, KERNEL) ** 2).sum())(X)
    for function in (jax.grad(loss), jax.jit(jax.grad(loss)), lowering.jit(jax.grad(jax.checkpoint(loss)))):
        np.testing.assert_allclose(function(X), gradient, rtol=1e-3, atol=1e-3)


def test_options_of_the_user_go_before_ours(monkeypatch):
    given = []

    def compiled_with(function, compiler_options=None, **_):
        given.append(compiler_options)
        return jit(function)

    jit = jax.jit
    monkeypatch.setattr(jax, "jit", compiled_with)
    monkeypatch.setattr(onednn, "compiler_options", lambda: {"a": 1, "b": 2})
    lowering.jit(conv, compiler_options={"b": 3, "c": 4})
    assert given[-1] == {"a": 1, "b": 3, "c": 4}


def test_an_option_that_xla_does_not_know_is_refused():
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        lowering.jit(conv, compiler_options={"no_such_option": 1})(X)
    with pytest.raises(TypeError, match="no_such_argument"):
        lowering.jit(conv, no_such_argument=1)
    with pytest.raises(TypeError, match="callable"):
        lowering.jit(3)


@pytest.mark.skipif(not onednn.compiler_options(), reason="this XLA has no oneDNN")
def test_programs_with_oneDNN_say_so_also_through_transformations():  # noqa: N802
    inner = lowering.jit(conv, compiler_options=OPTIONS)

    def calls(function):
        return "__onednn$convolution" in function.lower(X).compile().as_text()

    assert calls(inner)
    assert calls(lowering.jit(lambda x: inner(x)))
    assert not calls(jax.jit(lambda x: inner(x)))
    assert not calls(lowering.jit(conv, compiler_options={"xla_cpu_experimental_onednn_custom_call": False}))
