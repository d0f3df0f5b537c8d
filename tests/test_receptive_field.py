"""Receptive fields are what gradients say: a unit sees exactly the pixels for which its derivative is not zero."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cnn_jax import functional, layers
from cnn_jax.describe import describe
from tests import quick
from tests.geometries import ints


class Stack(nn.Module):
    """Layers given as (kind, library, fields). With positive weights no derivative is zero by chance."""

    parts: tuple[tuple[str, Any, dict[str, Any]], ...]

    @nn.compact
    def __call__(self, x):
        for kind, library, fields in self.parts:
            if kind == "conv":
                x = library.Conv(1, **fields, use_bias=False)(x)
            elif kind == "partial":
                x = layers.PartialConv(1, **fields, connections=((0,),))(x)
            elif kind == "pool":
                pool = layers.AvgPool(**fields) if library is layers else lambda x, f=fields: nn.avg_pool(x, **f)
                x = pool(x)
            elif kind == "subsample":
                x = layers.Subsample(**fields)(x)
            elif kind == "residual":
                x = x + nn.softplus(library.Conv(1, **fields, use_bias=False)(x))
            elif kind == "branches":
                x = jnp.concatenate([x, library.Conv(2, **fields, use_bias=False)(x)], axis=-1)
                x = library.Conv(1, (1, 1), use_bias=False)(x)
            else:
                x = nn.softplus(jnp.pad(x, ((0, 0), (0, 1), (2, 0), (0, 0)))[:, ::3, ::2])
        return x


def seen(model, shape, count=1):
    """Whether each unit of the output depends on each pixel, over some inputs: (*out, *in), channels left out."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 1, (count, *shape)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x[:1])
    variables = jax.tree.map(lambda s: rng.uniform(0.1, 1, s.shape).astype(s.dtype), shapes)

    def jacobian(x):
        return jax.jacrev(lambda x: model.apply(variables, x[None])[0].sum(-1))(x)

    jacobians = quick.jit(jax.vmap(jacobian))(x)
    return (np.asarray(jacobians) != 0).any((0, -1))


def check(fields, depends):
    """`depends` (*out, *in) is what the fields say, for each axis of the input whatever lies along the others."""
    axes = len(fields)
    for unit in np.ndindex(depends.shape[:-axes]):
        # Fields without a stride are the same for all units.
        positions = iter(unit)
        units = [0 if field.stride is None else next(positions) for field in fields]
        said = [field.pixels(position) for field, position in zip(fields, units, strict=True)]
        for axis, (field, position) in enumerate(zip(fields, units, strict=True)):
            pixels = tuple(np.flatnonzero(depends[unit].any(tuple(other for other in range(axes) if other != axis))))
            if not all(said):  # Where a window lies between pixels along one axis, nothing is seen of any.
                assert pixels == ()
                continue
            assert pixels == said[axis]
            first = field.offset + position * (field.stride or 0)
            last = first + field.size - 1
            assert first <= pixels[0]
            assert pixels[-1] <= last
            if first >= 0 and last < depends.shape[axis - axes]:
                assert (pixels[0], pixels[-1]) == (first, last)


def paddings(kernel):
    pairs = st.tuples(*(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in kernel))
    return st.one_of(st.sampled_from(["SAME", "VALID"]), pairs)


@st.composite
def parts(draw):
    kind = draw(st.sampled_from(["conv", "conv", "partial", "pool", "subsample", "residual", "branches", "spaced"]))
    library = draw(st.sampled_from([layers, nn]))
    if kind in ("residual", "branches"):
        odd = st.sampled_from([1, 3])
        return kind, library, {"kernel_size": (draw(odd), draw(odd))}
    kernel = draw(ints(1, 3, 2))
    strides = draw(ints(1, 3, 2))
    if kind == "subsample":
        return kind, layers, {"window_shape": draw(ints(1, 2, 2))}
    if kind == "pool":
        return kind, library, {"window_shape": kernel, "strides": strides, "padding": draw(paddings(kernel))}
    fields = {"kernel_size": kernel, "strides": strides, "padding": draw(paddings(kernel))}
    if kind == "conv":
        fields["kernel_dilation"] = draw(ints(1, 2, 2))
    return kind, library, fields


@settings(max_examples=15, deadline=None)
@given(st.lists(parts(), min_size=1, max_size=4).map(tuple), ints(7, 12, 2))
# Two pixels are in no window of the pool: the convolution's padding stands for them.
@example((("pool", layers, {"window_shape": (3, 3), "strides": (3, 3)}), ("conv", nn, {"kernel_size": (3, 3)})), (8, 8))
# Windows with gaps, and half of one in the padding.
@example(
    (("conv", layers, {"kernel_size": (2, 2), "kernel_dilation": 2}), ("conv", nn, {"kernel_size": (3, 3)})), (7, 7)
)
# A convolution whose padding is written down first, since XLA would misread it.
@example((("conv", layers, {"kernel_size": (1, 2), "strides": (1, 2), "padding": ((0, 0), (1, 1))}),), (7, 4))
def test_stacks(stack, size):
    shape = (*size, 1)
    model = Stack((*stack, ("conv", layers, {"kernel_size": (1, 1)})))
    try:
        row = describe(model, shape)[-1]
    except ValueError:  # A window that does not fit.
        assume(False)
    assume(0 not in row.output)
    check(row.receptive_field, seen(model, shape))


class Model(nn.Module):
    """A function of layers and an input as a model, with a dense layer behind it."""

    function: Any

    @nn.compact
    def __call__(self, x):
        return layers.Dense(2)(self.function(x))


def conv(**fields):
    return layers.Conv(2, (3, 3), **fields)


def excite(x):
    """Squeeze and excitation: every unit sees everything."""
    return x * nn.sigmoid(layers.Dense(2)(layers.GlobalAvgPool()(x)))[:, None, None]


def bottleneck(x):
    y = nn.relu6(layers.Conv(4, (1, 1))(x))
    y = nn.BatchNorm(use_running_average=True)(layers.Conv(4, (3, 3), strides=2, feature_group_count=4)(y))
    return nn.remat(nn.Conv)(2, (1, 1), strides=2)(x) + nn.jit(nn.Dense)(2)(nn.silu(y))


def masked(x):
    mask = np.zeros((3, 3, 2, 2))
    mask[..., 0, 1] = 1
    return layers.Conv(2, (3, 3), mask=mask)(x)


MODELS = {
    "flattened": lambda x: conv(strides=2)(x).reshape(x.shape[0], -1),
    "flattened in two steps": lambda x: jnp.ravel(conv(padding="VALID")(x).reshape(-1, 6, 2)[:, 1:5])[None],
    "flattened branches": lambda x: jnp.concatenate([conv()(x).reshape(1, -1), x.mean((1, 2))], axis=-1),
    "global": lambda x: layers.GlobalAvgPool()(conv(padding=2)(x)),
    "global in the middle": lambda x: conv(padding="VALID")(excite(conv(padding="VALID")(x))),
    "rows in one": lambda x: layers.Conv(2, (1, 3), padding="VALID")(x).reshape(1, 6, 12),
    "one axis": lambda x: nn.Conv(2, (3,), padding="SAME_LOWER", strides=2)(conv(padding="VALID")(x).sum(2)),
    "transposed axes": lambda x: layers.Conv(2, (2, 3), strides=(2, 1))(x.swapaxes(1, 2)).swapaxes(1, 2),
    "bottleneck": lambda x: conv(padding="VALID")(bottleneck(x)),
    "halves": lambda x: conv(padding="VALID")(nn.glu(jnp.split(conv()(x), 2, axis=1)[1])),
    "halves added": lambda x: conv()(x)[:, :, ::2] + conv()(x)[:, :, 1::2],
    "functions": lambda x: functional.avg_pool(functional.conv(x, np.ones((3, 3, 2, 2)), padding="VALID"), (2, 3)),
    "masked": masked,
    "transposed with stride one": lambda x: layers.ConvTranspose(2, (4, 3), padding=((1, 2), (2, 2)))(x),
    "normalised over positions": lambda x: conv(padding="VALID")(nn.GroupNorm(1)(x)),
    "rolled and averaged": lambda x: jnp.roll(conv(padding="VALID")(x), 1, 1).mean((1, 2)),
    "dense over all": lambda x: nn.DenseGeneral(3, axis=(1, 2, 3))(conv(padding="VALID")(x)),
    "one pixel": lambda x: layers.Conv(3, (6, 8), padding="VALID")(x).squeeze((1, 2)),
    "in a branch not taken": lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.sin, x.mean((1, 2))),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model, shape = Model(MODELS[name]), (6, 8, 2)
    check(describe(model, shape)[-1].receptive_field, seen(model, shape))


def test_one_spatial_axis():
    model = Model(lambda x: layers.Conv(2, 3, padding="CAUSAL", kernel_dilation=2)(nn.max_pool(x, (2,), (2,))))
    fields = describe(model, (12, 3))[-1].receptive_field
    assert [(field.size, field.stride, field.offset) for field in fields] == [(10, 2, -8)]
    check(fields, seen(model, (12, 3), count=60))


def test_maxima_see_what_wins_somewhere():
    model = Model(lambda x: layers.MinPool((2, 3), strides=(1, 2))(layers.MaxPool((3, 2), (2, 1), "SAME")(x)))
    check(describe(model, (6, 7, 1))[-1].receptive_field, seen(model, (6, 7, 1), count=300))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: layers.ConvTranspose(2, (3, 3), strides=(2, 2))(x),
        lambda x: nn.ConvTranspose(2, (3, 3), strides=(2, 1))(x),
        lambda x: layers.Conv(2, (3, 3), input_dilation=2)(x),
        lambda x: layers.Conv(2, (3, 3), padding="CIRCULAR")(x),
        lambda x: nn.Conv(2, (3, 3), padding="REFLECT")(x),
        lambda x: layers.Conv(2, (3, 3), mask=np.tril(np.ones((3, 3)))[..., None, None] * np.ones((2, 2)))(x),
        lambda x: layers.Conv(2, (3, 3), mask=jnp.ones((3, 3, 2, 2)))(x),
        lambda x: jax.image.resize(x, (1, 12, 16, 2), "linear"),
        lambda x: x + x.swapaxes(1, 2),
        lambda x: x + x[:, ::-1],
        lambda x: jnp.sort(x, axis=1),
        lambda x: jnp.roll(x, 1, axis=1),
        lambda x: x.reshape(1, 4, 2, 4, 2, 2).mean((2, 4)),
        lambda x: x.reshape(1, -1)[..., None],
        lambda x: jax.lax.reshape(x, (1, 8, 8, 2), (0, 2, 1, 3)),
        lambda x: jnp.concatenate([x[:, :0].reshape(1, -1), x.mean((1, 2))], axis=-1),
        lambda x: nn.MultiHeadDotProductAttention(1)(x.reshape(1, 64, 2)),
        lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1], x),
    ],
)
def test_what_has_no_size_stride_and_offset_is_left_open(function):
    volumes = describe(Model(function), (8, 8, 2))
    assert volumes[-1].receptive_field is None
    [line] = [line for line in volumes.text().splitlines() if line.startswith("Dense_0")]
    assert line.split()[-5:-2] == ["-", "-", "-"]
