"""Convolutions and pools, with their gradients, against PyTorch's, in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from cnn_jax import functional as F  # noqa: N812
from tests.geometries import normal

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def compare(ours, theirs, arrays, to_theirs, from_theirs):
    """Values and gradients agree; `to_theirs` and `from_theirs` move axes to PyTorch's layout and back."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = from_theirs(theirs(*[move(t) for move, t in zip(to_theirs, tensors, strict=True)]))
    (cotangent,) = normal(1, tuple(expected.shape))
    expected.backward(torch.tensor(cotangent))
    with jax.enable_x64(True):
        y, gradients = jax.jit(lambda c, *a: (ours(*a), jax.vjp(ours, *a)[1](c)))(cotangent, *arrays)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-10)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-10, atol=1e-10)


def channels_first(t):
    return t.movedim(-1, 1)


def channels_last(t):
    return t.movedim(1, -1)


def out_in_window(kernel):
    """(*window, I, O) to (O, I, *window)."""
    return kernel.movedim((-1, -2), (0, 1))


def same(t):
    return t


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv(rank, stride, padding, dilation, groups):
    function = getattr(torch.nn.functional, f"conv{rank}d")
    arrays = normal(0, (2, *(7, 6, 5)[:rank], 4), (*(3, 2, 3)[:rank], 4 // groups, 6), (6,))
    compare(
        lambda *a: F.conv(*a, strides=stride, padding=padding, kernel_dilation=dilation, feature_group_count=groups),
        lambda *t: function(*t, stride=stride, padding=padding, dilation=dilation, groups=groups),
        arrays,
        (channels_first, out_in_window, same),
        channels_last,
    )


@pytest.mark.parametrize(("ours", "theirs"), [("CIRCULAR", "circular"), ("REFLECT", "reflect")])
@pytest.mark.parametrize("rank", [1, 2])
def test_conv_on_an_input_that_goes_on(rank, ours, theirs):
    function = getattr(torch.nn.functional, f"conv{rank}d")
    arrays = normal(0, (2, *(6, 7)[:rank], 3), (*(3, 5)[:rank], 3, 4), (4,))
    pads = (2, 2, 1, 1) if rank == 2 else (1, 1)  # the last dimension first
    compare(
        lambda *a: F.conv(*a, padding=ours, strides=2),
        lambda x, *t: function(torch.nn.functional.pad(x, pads, mode=theirs), *t, stride=2),
        arrays,
        (channels_first, out_in_window, same),
        channels_last,
    )


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (3, 0, 1), (2, 1, 2)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose(rank, stride, padding, dilation):
    function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
    window = (3, 2, 3)[:rank]
    arrays = normal(0, (2, *(4, 3, 4)[:rank], 3), (*window, 5, 3), (5,))
    # PyTorch's padding is what the forward convolution had, ours what the spread-out input gets.
    around = [((w - 1) * dilation - padding,) * 2 for w in window]
    compare(
        lambda *a: F.conv_transpose(
            *a, strides=stride, padding=around, kernel_dilation=dilation, transpose_kernel=True
        ),
        lambda *t: function(*t, stride=stride, padding=padding, dilation=dilation),
        arrays,
        (channels_first, out_in_window, same),
        channels_last,
    )


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 0), (2, 1), (3, 1)])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "avg", "avg without padding"])
def test_pool(kind, rank, stride, padding):
    window = (3, 2, 3)[:rank]
    arrays = normal(0, (2, *(7, 6, 5)[:rank], 3))
    if kind == "max":
        function, extra = getattr(torch.nn.functional, f"max_pool{rank}d"), {}
    else:
        function = getattr(torch.nn.functional, f"avg_pool{rank}d")
        extra = {"count_include_pad": kind == "avg"}
    pool = F.max_pool if kind == "max" else F.avg_pool
    compare(
        lambda x: pool(x, window, stride, padding, **extra),
        lambda t: function(t, window, stride, padding, **extra),
        arrays,
        (channels_first,),
        channels_last,
    )
