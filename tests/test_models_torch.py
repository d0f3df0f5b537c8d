"""The networks with batch norms against PyTorch, in float64: scores, gradients, and the statistics they leave."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from tests.test_models_modern import SMALL, in_float64

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def conv(x, params, **options):
    return torch.nn.functional.conv2d(x, params["kernel"].permute(3, 2, 0, 1), params.get("bias"), **options)


def norm(x, params, stats, train, share, eps):
    """PyTorch's momentum is the share of the new statistics, its running variance a sample's, n / (n - 1) of ours."""
    kept = (1 - share) * stats["var"]
    y = torch.nn.functional.batch_norm(
        x, stats["mean"], stats["var"], params.get("scale"), params["bias"], train, share, eps
    )
    if train:
        n = x.numel() / x.shape[1]
        stats["var"] = kept + (stats["var"] - kept) * (n - 1) / n
    return y


def cifarnet(params, stats, x, train):
    gelu, pool = torch.nn.functional.gelu, torch.nn.functional.max_pool2d
    x = gelu(conv(x, params["whiten"]))
    for name in ("group_1", "group_2"):
        p, s = params[name], stats[name]
        x = pool(conv(x, p["conv_1"], padding="same"), 2)
        x = gelu(norm(x, p["norm_1"], s["norm_1"], train, 0.4, 1e-12))
        x = conv(x, p["conv_2"], padding="same")
        x = gelu(norm(x, p["norm_2"], s["norm_2"], train, 0.4, 1e-12))
    return 0.3 * (pool(x, 3).flatten(1) @ params["output"]["kernel"])


def resnet(params, stats, x, train):
    relu = torch.nn.functional.relu

    def conv_norm(x, p, s, conv_name, norm_name, **options):
        return norm(conv(x, p[conv_name], **options), p[norm_name], s[norm_name], train, 0.1, 1e-5)

    x = relu(conv_norm(x, params, stats, "stem", "stem_norm", padding=1))
    for name, stride in (("block_1", 1), ("block_2", 1), ("block_3", 2)):
        p, s = params[name], stats[name]
        y = relu(conv_norm(x, p, s, "conv_1", "norm_1", padding=1, stride=stride))
        y = conv_norm(y, p, s, "conv_2", "norm_2", padding=1)
        x = relu(y + (conv_norm(x, p, s, "shortcut", "shortcut_norm", stride=stride) if "shortcut" in p else x))
    return x.mean((2, 3)) @ params["output"]["kernel"] + params["output"]["bias"]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("name", "theirs"), [("cifarnet", cifarnet), ("resnet", resnet)])
def test_scores_gradients_and_statistics(name, theirs, train):
    (variables, x, cotangent), found = in_float64(*SMALL[name], train)
    params = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), variables["params"])
    stats = jax.tree.map(torch.tensor, variables["batch_stats"])
    images = torch.tensor(x, requires_grad=True)
    scores = theirs(params, stats, images.movedim(-1, 1), train)
    scores.backward(torch.tensor(cotangent))
    expected = scores.detach(), stats, jax.tree.map(lambda leaf: leaf.grad, params), images.grad
    expected = jax.tree.map(lambda leaf: leaf.numpy(), expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), found, expected)
