"""JAX's own switches: what runs without them runs under them, to the same numbers, and those that raise say where."""

from __future__ import annotations

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify

from cnn_jax import functional as F  # noqa: N812
from cnn_jax import layers, lowering, models
from cnn_jax.training import AugmentConfig, LossConfig, fit
from tests.geometries import normal
from tests.tiny import TinyNet, assert_close, make_config, make_dataset

NUMBERS = ("NHWC", "HWIO", "NHWC")


def dropin(x, kernel):
    return lowering.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)


# Functions of arrays, and their shapes: together they come through every primitive and most of the lowerings.
CASES = {
    "one channel": (F.conv, [(2, 6, 6, 1), (5, 5, 1, 3), (3,)]),
    "few channels": (F.conv, [(2, 6, 6, 3), (3, 3, 3, 4), (4,)]),
    "filtered": (F.conv, [(1, 16, 16, 32), (3, 3, 32, 32)]),
    "depthwise": (functools.partial(F.conv, feature_group_count=3), [(2, 6, 5, 3), (3, 3, 1, 6), (6,)]),
    "strided": (functools.partial(F.conv, strides=2), [(2, 6, 6, 4), (2, 2, 4, 3), (3,)]),
    "one dimension": (functools.partial(F.conv, padding="CAUSAL"), [(2, 6, 3), (3, 3, 4), (4,)]),
    "transposed": (functools.partial(F.conv_transpose, strides=2), [(2, 3, 4, 3), (4, 4, 3, 2), (2,)]),
    "drop-in": (dropin, [(2, 6, 6, 3), (3, 3, 3, 4)]),
    "maximum": (lambda x: F.max_pool(x, (3, 2), 2, "SAME"), [(2, 6, 6, 3)]),
    "minimum": (lambda x: F.min_pool(x, (2, 2), 2), [(2, 6, 6, 3)]),
    "average": (lambda x: F.avg_pool(x, (2, 2), 2), [(2, 6, 6, 3)]),
    "average of what is seen": (lambda x: F.avg_pool(x, (3, 3), 2, "SAME", False), [(2, 6, 6, 3)]),
    "dense": (F.dense, [(2, 5), (5, 3), (3,)]),
    "distances": (F.squared_distances, [(2, 5), (3, 5)]),
    "global": (lambda x: F.global_avg_pool(x) + F.global_max_pool(x), [(2, 5, 3, 4)]),
}
SWITCHES = {
    "without jit": lambda: jax.disable_jit(),
    "NaN": lambda: jax.debug_nans(True),
    "infinities": lambda: jax.debug_infs(True),
    "leaks": lambda: jax.checking_leaks(),
    "checks": lambda: jax.enable_checks(True),
    "keys": lambda: jax.debug_key_reuse(True),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "64 bits": lambda: jax.enable_x64(True),
}


@contextlib.contextmanager
def under(*names):
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(SWITCHES[name]())
        yield


def arrays(shapes, dtype="float32"):
    return [jnp.asarray(a, dtype) for a in normal(0, *shapes)]


def value_and_gradients(function, operands):
    """Under `jax.vmap` too, and with a tangent."""
    value, back = jax.vjp(function, *operands)
    mapped = jax.vmap(function, (0,) + (None,) * (len(operands) - 1))(operands[0][None], *operands[1:])
    return value, back(value), mapped[0], jax.jvp(function, operands, operands)[1]


def assert_all_close(found, expected, tolerance=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


def test_all_of_them_at_once_change_nothing():
    operands = {name: arrays(shapes) for name, (_, shapes) in CASES.items()}

    def everything(operands):
        return {name: value_and_gradients(CASES[name][0], given) for name, given in operands.items()}

    expected = jax.jit(everything)(operands)
    with under("NaN", "infinities", "leaks", "checks", "keys", "ranks", "dtypes"):
        assert_all_close(jax.jit(everything)(operands), expected)


@pytest.mark.parametrize("case", ["one channel", "depthwise", "transposed", "maximum", "average of what is seen"])
def test_without_jit_nothing_changes(case):
    function, shapes = CASES[case]
    operands = arrays(shapes)
    expected = jax.jit(lambda *operands: jax.vjp(function, *operands)[1](function(*operands)))(*operands)
    with jax.disable_jit():
        value, back = jax.vjp(function, *operands)
        assert_all_close(back(value), expected)


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("case", CASES)
def test_nor_does_each_alone_in_or_out_of_a_program(case, switch):
    function, shapes = CASES[case]
    operands = arrays(shapes)
    expected = value_and_gradients(function, operands)
    with under(switch):
        assert_all_close(value_and_gradients(function, operands), expected)
        assert_all_close(jax.jit(functools.partial(value_and_gradients, function))(operands), expected)
        jax.make_jaxpr(functools.partial(value_and_gradients, function))(operands)


@pytest.mark.parametrize("case", ["few channels", "drop-in", "maximum", "average"])
def test_nothing_is_moved_to_the_device_or_traced_again_unasked(case):
    function, shapes = CASES[case]
    operands = arrays(shapes)
    expected = function(*operands)
    with jax.transfer_guard("disallow"), jax.no_tracing(True):
        found = function(*operands)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn"])
def test_half_precision_and_less_needs_no_promotion(dtype):
    with under("ranks", "dtypes"):
        for function, shapes in CASES.values():
            lowered = jax.jit(functools.partial(value_and_gradients, function)).lower(arrays(shapes, dtype))
            assert {a.dtype for a in jax.tree.leaves(lowered.out_info)} == {jnp.dtype(dtype)}
        x, kernel = arrays([(2, 6, 6, 3), (3, 3, 3, 4)], dtype)
        with lowering.use("direct"):
            expected = F.conv(x, kernel)
        error = np.abs(np.asarray(F.conv(x, kernel) - expected, np.float32)).max()
        assert error <= 2 * float(jnp.finfo(dtype).eps) * np.abs(np.asarray(expected, np.float32)).max()


@pytest.mark.parametrize("use", ["auto", "onednn", "direct"])
def test_networks_need_no_promotion(use):
    class Stock(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(4, (3, 3), conv_general_dilated=lowering.conv_general_dilated)(x)
            x = layers.ConvTranspose(3, (2, 2), 2)(layers.Subsample((2, 2))(x))
            return layers.Dense(2)(x.mean((1, 2)))

    networks = {"stock": Stock()} | {name: models.build(name) for name in models.MODELS if name != "resnet18"}
    networks["resnet"] = models.ResNet((1, 1), features=4)
    with under("ranks", "dtypes"), lowering.use(use):
        for network in networks.values():
            size, channels = getattr(network, "input_size", (8, 8)), getattr(network, "input_channels", 1)
            images = jax.ShapeDtypeStruct((2, *size, channels), jnp.float32)
            variables = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)

            def loss(variables, images, network=network):
                return (network.apply(variables, images, train=True, mutable=["batch_stats"])[0] ** 2).sum()

            jax.eval_shape(jax.grad(loss), variables, images)


@pytest.mark.parametrize("switches", [("without jit",), ("NaN", "leaks", "checks", "keys", "ranks")])
def test_training_is_the_same(switches):
    train, test = make_dataset(17), make_dataset(10, seed=1, split="test")
    config = make_config(epochs=1, augment=AugmentConfig(name="affine"), loss=LossConfig(label_smoothing=0.1))
    expected = fit(TinyNet(), train, config, test=test)
    with under(*switches), jax.transfer_guard("disallow"):
        found = fit(TinyNet(), train, config, test=test)
    assert_close(found.state, expected.state)
    np.testing.assert_allclose(found.evaluations["test"].loss, expected.evaluations["test"].loss, rtol=1e-5)


IMAGES, KERNEL = arrays([(1, 5, 5, 2), (3, 3, 2, 4)])
BROKEN = jnp.zeros_like(IMAGES).at[0, 2, 2].set(jnp.inf)  # infinity times a kernel of both signs


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: F.conv(x, KERNEL), "cnn_conv"),
        (jax.jit(lambda x: F.conv(x, KERNEL)), "cnn_conv"),
        (jax.grad(lambda x: F.conv(x, KERNEL).sum()), "cnn_conv"),
        (lambda x: jax.vmap(F.conv, (0, None))(x[None], KERNEL), "cnn_conv"),
        (
            jax.jit(jax.grad(lambda kernel: F.conv(BROKEN * 0 + 1, kernel[..., :2, :4].repeat(2, -1)[..., :2]).sum())),
            "",
        ),
        (lambda x: F.sum_pool(jnp.stack([x, -x], 1)[:, :, 0], (2, 3)), "cnn_window_sum"),
    ],
)
def test_the_operation_that_gives_a_nan_is_named(function, name):
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match=rf"invalid value \(nan\) encountered in {name}"):
        function(BROKEN)


def test_so_is_that_which_overflows():
    with (
        jax.debug_infs(True),
        pytest.raises(FloatingPointError, match=r"invalid value \(inf\) encountered in cnn_conv"),
    ):
        F.conv(jnp.full((1, 4, 4, 2), 1e38), jnp.full((3, 3, 2, 4), 1e3))


@pytest.mark.parametrize("function", [lambda x: F.conv(x, KERNEL), lambda x: F.max_pool(x, (2, 2))])
def test_checkify_finds_a_nan_where_it_finds_one_in_the_stock_operation(function):
    def found(x):
        error, _ = checkify.checkify(jax.jit(function), errors=checkify.nan_checks)(x)
        return error.get() is not None

    for x in (IMAGES, BROKEN, BROKEN * 0):
        ours = found(x)
        with lowering.use("direct"):
            assert found(x) == ours
    assert found(BROKEN) == (function(BROKEN).shape[-1] == 4)


WIDE = [(1, 16, 16, 128), (3, 3, 128, 128)]
CONVOLUTIONS = {"function": F.conv, "drop-in": dropin}


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("setting", ["highest", "tensorfloat32", "BF16_BF16_F32_X3"])
def test_the_precision_that_is_set_is_taken(conv, setting):
    x, kernel = arrays(WIDE)

    def geometry(function):
        (equation,) = [e for e in jax.make_jaxpr(function)(x, kernel).eqns if e.primitive.name == "cnn_conv"]
        return equation.params["geometry"].precision

    def stock():
        jaxpr = jax.make_jaxpr(functools.partial(lax.conv, window_strides=(1, 1), padding="SAME"))(x, kernel.T)
        precision = jaxpr.eqns[0].params["precision"]
        return precision[0] if isinstance(precision, tuple) else precision

    assert geometry(conv) in (None, lax.Precision.DEFAULT)
    with jax.default_matmul_precision(setting):
        assert geometry(conv) == stock()


def test_and_it_is_exact_forward_and_backward():
    x, kernel = arrays(WIDE)

    def results(back=contextlib.nullcontext, **options):
        y, gradient = jax.vjp(lambda x, kernel: F.conv(x, kernel, **options), x, kernel)
        with back():
            return y, *gradient(jnp.ones_like(y))

    asked = results(precision="highest")
    with jax.default_matmul_precision("highest"):
        found = results()
        # What is traced here keeps it, as XLA's own operation does.
        kept = results(back=lambda: jax.default_matmul_precision("default"))
        explicit = results(precision=("default", "default"))
    plain = results()
    for exact, a, b, other, fast in zip(asked, found, kept, explicit, plain, strict=True):
        np.testing.assert_array_equal(a, exact)
        np.testing.assert_array_equal(b, exact)
        np.testing.assert_array_equal(other, fast)
    assert any((a != b).any() for a, b in zip(asked, plain, strict=True))
