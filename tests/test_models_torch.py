"""The networks with batch norms against PyTorch, in float64: scores, gradients, and the statistics they leave."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from cnn_jax import models
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
        first = x
        x = conv(x, p["conv_2"], padding="same")
        x = gelu(norm(x, p["norm_2"], s["norm_2"], train, 0.4, 1e-12))
        if "conv_3" in p:
            x = conv(x, p["conv_3"], padding="same")
            x = gelu(norm(x, p["norm_3"], s["norm_3"], train, 0.4, 1e-12) + first)
    return 0.3 * (pool(x, 3).flatten(1) @ params["output"]["kernel"])


STEM, SHORTCUT = ("stem", "stem_norm"), ("shortcut", "shortcut_norm")
FIRST, SECOND, THIRD = (("conv_1", "norm_1"), ("conv_2", "norm_2"), ("conv_3", "norm_3"))


def conv_norm(x, params, stats, train, names, **options):
    conv_name, norm_name = names
    return norm(conv(x, params[conv_name], **options), params[norm_name], stats[norm_name], train, 0.1, 1e-5)


def basic(x, *block, stride):
    y = torch.relu(conv_norm(x, *block, FIRST, padding=1, stride=stride))
    return conv_norm(y, *block, SECOND, padding=1)


def bottleneck(x, *block, stride):
    y = torch.relu(conv_norm(x, *block, FIRST))
    y = torch.relu(conv_norm(y, *block, SECOND, padding=1, stride=stride))
    return conv_norm(y, *block, THIRD)


def behind_the_stem(branch, params, stats, x, train):
    for name, stride in (("block_1", 1), ("block_2", 1), ("block_3", 2)):
        block = params[name], stats[name], train
        shortcut = conv_norm(x, *block, SHORTCUT, stride=stride) if "shortcut" in params[name] else x
        x = torch.relu(branch(x, *block, stride=stride) + shortcut)
    return x.mean((2, 3)) @ params["output"]["kernel"] + params["output"]["bias"]


def resnet(params, stats, x, train):
    x = torch.relu(conv_norm(x, params, stats, train, STEM, padding=1))
    return behind_the_stem(basic, params, stats, x, train)


def imagenet(branch, params, stats, x, train):
    x = torch.relu(conv_norm(x, params, stats, train, STEM, padding=3, stride=2))
    x = torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    return behind_the_stem(branch, params, stats, x, train)


def padded(x, y, stride):
    """Every other pixel in both directions, with maps of zeros on both sides of its own."""
    more = (y.shape[1] - x.shape[1]) // 2
    return torch.nn.functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, more, more)) + y


def cifar(params, stats, x, train):
    x = torch.relu(conv_norm(x, params, stats, train, STEM, padding=1))
    for name, stride in (("block_1", 1), ("block_2", 1), ("block_3", 2)):
        x = torch.relu(padded(x, basic(x, params[name], stats[name], train, stride=stride), stride))
    return x.mean((2, 3)) @ params["output"]["kernel"] + params["output"]["bias"]


def wide(params, stats, x, train):
    """Norm and ReLU before each convolution; a shortcut's convolution takes what the first one takes."""

    def ready(x, params, stats, name):
        return torch.relu(norm(x, params[name], stats[name], train, 0.1, 1e-5))

    x = conv(x, params["stem"], padding=1)
    for name, stride in (("block_1", 1), ("block_2", 2), ("block_3", 2)):
        p, s = params[name], stats[name]
        y = ready(x, p, s, "norm_1")
        shortcut = conv(y, p["shortcut"], stride=stride) if "shortcut" in p else x
        y = ready(conv(y, p["conv_1"], padding=1, stride=stride), p, s, "norm_2")
        x = shortcut + conv(y, p["conv_2"], padding=1)
    x = ready(x, params, stats, "norm").mean((2, 3))
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def smoothed(x):
    """Each map with the filter of FFCV's BlurPool, [1 2 1]^T [1 2 1] / 16."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = (line[:, None] * line).repeat(x.shape[1], 1, 1, 1)
    return torch.nn.functional.conv2d(x, kernel, padding=1, groups=x.shape[1])


def blurred(branch, params, stats, x, train):
    """As `imagenet`, with what has a stride smoothed first, but for the stem."""
    x = torch.relu(conv_norm(x, params, stats, train, STEM, padding=3, stride=2))
    x = torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    for name, stride in (("block_1", 1), ("block_2", 1), ("block_3", 2)):
        block, ready = (params[name], stats[name], train), smoothed if stride > 1 else torch.nn.Identity()
        if branch is basic:
            y = basic(ready(x), *block, stride=stride)
        else:
            y = torch.relu(conv_norm(x, *block, FIRST))
            y = torch.relu(conv_norm(ready(y), *block, SECOND, padding=1, stride=stride))
            y = conv_norm(y, *block, THIRD)
        x = torch.relu(y + (conv_norm(ready(x), *block, SHORTCUT, stride=stride) if "shortcut" in params[name] else x))
    return x.mean((2, 3)) @ params["output"]["kernel"] + params["output"]["bias"]


# Heights are odd at every halving and widths even, where padding is not that of "SAME".
FIELDS, SHAPE = {"stage_sizes": (2, 1), "num_classes": 3, "features": 4}, (3, 65, 48, 2)
NETWORKS = {
    "cifarnet": (cifarnet, *SMALL["cifarnet"]),
    "cifarnet of depth 3": (cifarnet, SMALL["cifarnet"][0].clone(depth=3), SMALL["cifarnet"][1]),
    "resnet": (resnet, *SMALL["resnet"]),
    "resnet20": (cifar, models.ResNet20(**FIELDS), SHAPE),
    "wrn16x8": (wide, models.WideResNet(depth=10, width=1, num_classes=3), (3, 9, 6, 2)),
    "resnet34": (functools.partial(imagenet, basic), models.ResNet34(**FIELDS), SHAPE),
    "resnet50": (functools.partial(imagenet, bottleneck), models.ResNet50(**FIELDS), SHAPE),
    "resnet34, blurred": (functools.partial(blurred, basic), models.ResNet34(**FIELDS, blur=True), SHAPE),
    "resnet50, blurred": (functools.partial(blurred, bottleneck), models.ResNet50(**FIELDS, blur=True), SHAPE),
}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_scores_gradients_and_statistics(name, train):
    theirs, model, shape = NETWORKS[name]
    (variables, x, cotangent), found = in_float64(model, shape, train)
    params = jax.tree.map(lambda leaf: torch.tensor(leaf, requires_grad=True), variables["params"])
    stats = jax.tree.map(torch.tensor, variables["batch_stats"])
    images = torch.tensor(x, requires_grad=True)
    scores = theirs(params, stats, images.movedim(-1, 1), train)
    scores.backward(torch.tensor(cotangent))
    expected = scores.detach(), stats, jax.tree.map(lambda leaf: leaf.grad, params), images.grad
    expected = jax.tree.map(lambda leaf: leaf.numpy(), expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), found, expected)
