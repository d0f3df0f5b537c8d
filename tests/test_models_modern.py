"""The networks with batch norms: their counts, what they compute beside stock Flax, and when their statistics move."""

from __future__ import annotations

import functools
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, pictures
from cnn_jax.errors import InputError
from cnn_jax.models.cifarnet import partial_identity
from tests import quick
from tests.drawn import count, draw_variables

# As small as they can be with every kind of layer in them: two groups; a stage of two blocks and one that halves.
CIFARNET = models.CifarNet(num_classes=3, features=(5, 4), scale=0.3)
RESNET = models.ResNet(stage_sizes=(2, 1), num_classes=3, features=4)
SMALL = {"cifarnet": (CIFARNET, (3, 14, 13, 2)), "resnet": (RESNET, (3, 7, 6, 2))}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@functools.partial(quick.jit, static_argnums=(0, 4))
def scores_and_gradients(model, variables, x, cotangent, train):
    """Scores, the statistics afterwards, and the gradients of scores * cotangent by parameters and images."""

    def scores(params, x):
        return model.apply(variables | {"params": params}, x, train=train, mutable=["batch_stats"])

    y, pull, state = jax.vjp(scores, variables["params"], x, has_aux=True)
    return y, state["batch_stats"], *pull(cotangent)


def in_float64(model, shape, train):
    """Drawn variables, images and cotangent, and what `scores_and_gradients` makes of them."""
    variables = draw_variables(model, shape, dtype=np.float64)
    x, cotangent = normal(*shape), normal(shape[0], 3, seed=1)
    with jax.enable_x64(True):
        return (variables, x, cotangent), scores_and_gradients(model, variables, x, cotangent, train)


# What they consist of.


@pytest.mark.parametrize("name", ["cifarnet", "resnet18"])
def test_the_standard_call(name):
    model = models.build(name, num_classes=7)
    x = jax.ShapeDtypeStruct((2, *model.input_size, model.input_channels), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 7)
    assert pickle.loads(pickle.dumps(model)) == model


def test_parameters_of_cifarnet():
    shapes = jax.eval_shape(models.build("cifarnet").init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert {name: count(params) for name, params in shapes["params"].items()} == {
        "whiten": 24 * (2 * 2 * 3 + 1),
        "group_1": 9 * (24 * 64 + 64 * 64) + 2 * 64,
        "group_2": 9 * (64 * 256 + 256 * 256) + 2 * 256,
        "group_3": 9 * (256 * 256 + 256 * 256) + 2 * 256,
        "output": 256 * 10,
    }
    assert count(shapes["params"]) == 1_971_640  # the paper's 1.97 million
    assert count(shapes["batch_stats"]) == 2 * 2 * (64 + 256 + 256)


def test_parameters_of_resnet18():
    model = models.build("resnet18")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert count(shapes["params"]) == 11_173_962
    # Of the published network for ImageNet, 11,689,512, the 7x7 stem is larger and there are 1,000 classes.
    assert count(shapes["params"]) == 11_689_512 - (49 - 9) * 3 * 64 - 513 * 990
    assert count(shapes["batch_stats"]) == 9_600
    assert type(model).__mro__[1] is models.ResNet


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels(channels):
    for model, shape in SMALL.values():
        x = jax.ShapeDtypeStruct((*shape[:3], channels), jnp.float32)
        scores, variables = jax.eval_shape(lambda x, m=model: m.init_with_output(jax.random.key(0), x), x)
        assert scores.shape == (3, 3)
        kernels = [layer["kernel"].shape for name, layer in variables["params"].items() if name in ("whiten", "stem")]
        assert kernels == [(2, 2, channels, 8 * channels) if model is CIFARNET else (3, 3, channels, 4)]


def test_resnets_take_images_of_any_size_and_deeper_ones_can_be_built():
    for size in ((1, 1), (33, 50)):
        x = jnp.ones((2, *size, 3))
        assert jax.eval_shape(
            lambda x: models.build("resnet18").init_with_output(jax.random.key(0), x)[0], x
        ).shape == (2, 10)
    deeper = jax.eval_shape(models.ResNet(stage_sizes=(3, 4, 6, 3)).init, jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    assert sum(leaf.ndim == 4 and leaf.shape[0] == 3 for leaf in jax.tree.leaves(deeper["params"])) == 1 + 2 * 16


# What they compute.


class StockCifarNet(nn.Module):
    """`CIFARNET` as a book on Flax would write it."""

    @nn.compact
    def __call__(self, x, train):
        gelu = functools.partial(nn.gelu, approximate=False)
        x = gelu(nn.Conv(16, (2, 2), padding="VALID", name="whiten")(x))
        for number, features in ((1, 5), (2, 4)):
            x = StockGroup(features, name=f"group_{number}")(x, train)
        x = nn.max_pool(x, (3, 3), (3, 3)).reshape(len(x), -1)
        return nn.Dense(3, use_bias=False, name="output")(x) * 0.3


class StockGroup(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.features, (3, 3), use_bias=False, name="conv_1")(x)
        x = nn.max_pool(x, (2, 2), (2, 2))
        for name, following in (("norm_1", "conv_2"), ("norm_2", None)):
            x = nn.BatchNorm(not train, momentum=0.6, epsilon=1e-12, use_scale=False, name=name)(x)
            x = nn.gelu(x, approximate=False)
            x = nn.Conv(self.features, (3, 3), use_bias=False, name=following)(x) if following else x
        return x


class StockResNet(nn.Module):
    """`RESNET` likewise."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, name="stem_norm")(x))
        for number, (features, strides) in enumerate([(4, 1), (4, 1), (8, 2)], start=1):
            x = StockBlock(features, strides, name=f"block_{number}")(x, train)
        return nn.Dense(3, name="output")(x.mean((1, 2)))


class StockBlock(nn.Module):
    features: int
    strides: int

    @nn.compact
    def __call__(self, x, train):
        def conv_norm(x, size, strides, conv, norm):
            x = jnp.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
            x = nn.Conv(self.features, (size, size), strides, padding="VALID", use_bias=False, name=conv)(x)
            return nn.BatchNorm(not train, momentum=0.9, name=norm)(x)

        y = nn.relu(conv_norm(x, 3, self.strides, "conv_1", "norm_1"))
        y = conv_norm(y, 3, 1, "conv_2", "norm_2")
        return nn.relu(y + (conv_norm(x, 1, 2, "shortcut", "shortcut_norm") if self.strides == 2 else x))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_they_are_what_stock_flax_makes_of_their_description(name, train):
    model, shape = SMALL[name]
    given, found = in_float64(model, shape, train)
    stock = {"cifarnet": StockCifarNet, "resnet": StockResNet}[name]()
    with jax.enable_x64(True):
        expected = scores_and_gradients(stock, *given, train)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), found, expected)


@pytest.fixture(scope="module", params=SMALL)
def trained(request):
    """A model, its variables, images, and scores and statistics after a call in train mode and in eval mode."""
    model, shape = SMALL[request.param]
    variables, x = draw_variables(model, shape), normal(*shape).astype(np.float32)
    apply = quick.jit(functools.partial(model.apply, mutable=["batch_stats"]), static_argnames="train")
    return apply, variables, x, apply(variables, x, train=True), apply(variables, x, train=False)


def test_batch_statistics_move_in_train_mode_only(trained):
    _, variables, _, (scores, training), (used, evaluating) = trained
    before = variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, evaluating["batch_stats"], before)
    jax.tree.map(lambda a, b: np.testing.assert_array_less(0, np.abs(a - b)), training["batch_stats"], before)
    assert not np.allclose(scores, used, atol=1e-3)


def test_the_order_of_images_is_nothing_to_a_batch_and_in_use_they_are_nothing_to_each_other(trained):
    apply, variables, x, (scores, _), (used, _) = trained
    order = [2, 0, 1]
    np.testing.assert_allclose(apply(variables, x[order], train=True)[0], scores[np.array(order)], rtol=1e-4, atol=1e-5)
    others = np.concatenate([x[:1], x[:1] + 1, x[:1] - 2])
    np.testing.assert_allclose(apply(variables, others, train=False)[0][0], used[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(apply(variables, others, train=True)[0][0], scores[0], atol=1e-3)


def test_the_class_activation_map_of_a_resnet_averages_to_its_score():
    variables, image = draw_variables(RESNET, (1, 7, 6, 2)), normal(7, 6, 2).astype(np.float32)

    @quick.jit
    def both(variables, image):
        return pictures.class_activation_map(RESNET, variables, image, 1), RESNET.apply(variables, image[None])[0, 1]

    heat, score = both(variables, image)
    assert heat.shape == (4, 3)
    np.testing.assert_allclose(heat.mean() + variables["params"]["output"]["bias"][1], score, rtol=1e-4)


def test_running_statistics_keep_the_share_that_momentum_says():
    model, shape = models.CifarNet(num_classes=3, features=(5,), momentum=0.75), (3, 9, 9, 2)
    variables = draw_variables(model, shape)
    call = functools.partial(
        model.apply, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
    )
    _, state = quick.jit(call)(variables, normal(*shape))
    old, new = (tree["batch_stats"]["group_1"]["norm_1"] for tree in (variables, state))
    volume = np.asarray(state["intermediates"]["group_1"]["pool"]["__call__"][0], np.float64)
    np.testing.assert_allclose(new["mean"], 0.75 * old["mean"] + 0.25 * volume.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(new["var"], 0.75 * old["var"] + 0.25 * volume.var((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_a_nearly_constant_map_is_normalised_and_does_not_explode():
    """Its epsilon being next to nothing, the variance has to be right where squares have long lost it to rounding."""
    model, shape = models.CifarNet(num_classes=3, features=(5,)), (3, 9, 9, 2)
    variables = draw_variables(model, shape)
    call = functools.partial(
        model.apply, train=True, mutable=["batch_stats", "intermediates"], capture_intermediates=True
    )
    _, state = quick.jit(call)(variables, (100 + 1e-3 * normal(*shape)).astype(np.float32))
    normed = np.asarray(state["intermediates"]["group_1"]["norm_1"]["__call__"][0])
    spread = (normed - variables["params"]["group_1"]["norm_1"]["bias"]).std((0, 1, 2))
    np.testing.assert_allclose(spread, 1, rtol=1e-3)


def test_convolutions_of_cifarnet_begin_with_the_input_s_own_maps():
    drawn = quick.jit(lambda key: [partial_identity(key, shape) for shape in ((3, 3, 16, 64), (3, 3, 5, 2))])
    kernel, narrow = map(np.asarray, drawn(jax.random.key(0)))
    x = normal(1, 6, 5, 16).astype(np.float32)
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(y[..., :16], x, rtol=1e-6)
    # The others uniform, as PyTorch's convolutions: within 1 / sqrt(inputs).
    rest = kernel[..., 16:] * np.sqrt(9 * 16)
    assert 0.999 < np.abs(rest).max() <= 1
    assert rest.std() == pytest.approx(3**-0.5, rel=0.02)
    assert np.count_nonzero(narrow) == 2
    assert narrow[1, 1, 0, 0] == narrow[1, 1, 1, 1] == 1


def test_cifarnet_may_begin_as_airbenchs_muon_program_does():
    """Its head has a sample's deviation of exactly 1, its first biases are PyTorch's, within 1 / sqrt(12 inputs)."""
    model = models.CifarNet(output_std=1.0, whiten_bias=12**-0.5)
    params = quick.jit(model.init)(jax.random.key(0), jnp.ones((1, 32, 32, 3)))["params"]
    head, bias = np.asarray(params["output"]["kernel"], np.float64), np.asarray(params["whiten"]["bias"])
    assert head.std(ddof=1) == pytest.approx(1, rel=1e-6)
    assert 1.7 < np.abs(head).max() < 1.8  # uniform, so within the square root of 3
    assert 0.2 < np.abs(bias).max() <= 12**-0.5
    assert bias.min() < 0 < bias.max()


# What they say to wrong fields and images.


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("cifarnet", {"num_classes": 0}, "CifarNet: num_classes must be an int of at least 1, got 0"),
        ("cifarnet", {"features": 64}, "CifarNet: features must be a sequence of ints of at least 1, got 64"),
        ("cifarnet", {"scale": 0}, "CifarNet: scale must be a number above 0, got 0"),
        ("cifarnet", {"scale": float("inf")}, "CifarNet: scale must be a number above 0, got inf"),
        ("cifarnet", {"scale": "1/9"}, "CifarNet: scale must be a number above 0, got '1/9'"),
        ("cifarnet", {"output_std": 0.0}, "CifarNet: output_std must be a number above 0, got 0.0"),
        ("cifarnet", {"whiten_bias": -1}, "CifarNet: whiten_bias must be a number from 0 to below 1, got -1"),
        ("cifarnet", {"momentum": 1}, "CifarNet: momentum must be a number from 0 to below 1, got 1"),
        ("cifarnet", {"momentum": False}, "CifarNet: momentum must be a number from 0 to below 1, got False"),
        ("resnet18", {"num_classes": 2.0}, "ResNet18: num_classes must be an int of at least 1, got 2.0"),
        ("resnet18", {"features": -64}, "ResNet18: features must be an int of at least 1, got -64"),
        ("resnet18", {"stage_sizes": (2, 0)}, "ResNet18: each of stage_sizes must be an int of at least 1, got 0"),
        (
            "resnet18",
            {"depth": 34},
            "model resnet18 has the fields stage_sizes, num_classes, features, zero_init, blur, output_std; got depth",
        ),
    ],
)
def test_wrong_fields_are_named_in_one_line(name, fields, message):
    with pytest.raises(InputError) as error:
        models.build(name, **fields)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "shape", "least"),
    [
        ("cifarnet", (2, 24, 32, 3), "25x25"),
        ("cifarnet", (32, 32, 3), "25x25"),
        ("resnet18", (2, 32, 32), "1x1"),
        ("resnet18", (2, 0, 4, 3), "1x1"),
    ],
)
def test_wrong_images_are_named_in_one_line(name, shape, least):
    model = models.build(name)
    with pytest.raises(InputError) as error:
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert str(error.value) == (
        f"{type(model).__name__} expects images (N, H, W, C) of at least {least} pixels, got shape {shape}"
    )
