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
from cnn_jax.augment import Affine
from cnn_jax.lowering import choice
from cnn_jax.runs import fit
from cnn_jax.training import SoftmaxCrossEntropy
from tests.geometries import normal
from tests.tiny import assert_close, make_dataset, make_recipe

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


def test_programs_are_the_same_under_all_of_them():
    operands = {name: arrays(shapes) for name, (_, shapes) in CASES.items()}

    def everything(operands):
        return {name: jax.vjp(CASES[name][0], *given)[1](CASES[name][0](*given)) for name, given in operands.items()}

    expected = jax.jit(everything).lower(operands).as_text()
    with under("NaN", "infinities", "leaks", "checks", "keys", "ranks", "dtypes"):
        assert jax.jit(everything).lower(operands).as_text() == expected


@pytest.mark.parametrize("case", ["one channel", "transposed", "average of what is seen"])
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
            operands = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
            lowered = jax.jit(lambda *a, f=function: jax.vjp(f, *a)[1](f(*a))).lower(*operands)
            assert {a.dtype for a in jax.tree.leaves(lowered.out_info)} == {jnp.dtype(dtype)}
        x, kernel = arrays([(2, 6, 6, 3), (3, 3, 3, 4)], dtype)
        with lowering.use("direct"):
            expected = F.conv(x, kernel)
        error = np.abs(np.asarray(F.conv(x, kernel) - expected, np.float32)).max()
        assert error <= 2 * float(jnp.finfo(dtype).eps) * np.abs(np.asarray(expected, np.float32)).max()


def test_networks_need_no_promotion():
    class Stock(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.Conv(4, (3, 3), conv_general_dilated=lowering.conv_general_dilated)(x)
            x = layers.ConvTranspose(3, (2, 2), 2)(layers.Subsample((2, 2))(x))
            return layers.Dense(2)(x.mean((1, 2)))

    networks = [Stock(), models.ResNet((1,), features=4), *map(models.build, ("convnet", "lenet5_original", "mlp"))]
    with under("ranks", "dtypes"):
        for network in networks:
            size, channels = getattr(network, "input_size", (8, 8)), getattr(network, "input_channels", 1)
            images = jax.ShapeDtypeStruct((2, *size, channels), jnp.float32)
            variables = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)

            def loss(variables, images, network=network):
                return (network.apply(variables, images, train=True, mutable=["batch_stats"])[0] ** 2).sum()

            jax.eval_shape(jax.grad(loss), variables, images)


@pytest.mark.parametrize(
    "switches", [pytest.param(["without jit"], marks=pytest.mark.slow), ["NaN", "leaks", "checks", "keys", "ranks"]]
)
def test_training_is_the_same(switches):
    train = make_dataset(9)
    recipe = make_recipe(epochs=1, augment=(Affine(),), loss=SoftmaxCrossEntropy(0.1))
    expected = fit(recipe, train)
    with under(*switches), jax.transfer_guard("disallow"):
        found = fit(recipe, train)
    assert_close(found.state.params, expected.state.params, rtol=1e-3)


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
        (lambda x: F.sum_pool(jnp.concatenate([x, -x], 1), (6, 1)), "cnn_window_sum"),
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


CONVOLUTIONS = {"function": F.conv, "drop-in": dropin}
SETTINGS = ["highest", "tensorfloat32", "default", "BF16_BF16_F32_X3"]
WIDE = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 16, 16, 128), (3, 3, 128, 128))]


def taken(conv, back=contextlib.nullcontext):
    """The precision, and the lowering, of a convolution and its gradients, these being traced under `back`."""

    def everything(x, kernel):
        y, gradients = jax.vjp(conv, x, kernel)
        with back():
            return y, gradients(y)

    geometries = {
        equation.primitive.name.removeprefix("cnn_"): equation.params["geometry"]
        for equation in jax.make_jaxpr(everything)(*WIDE).eqns
        if "geometry" in equation.params
    }
    assert geometries.keys() == {"conv", "input_gradient", "weight_gradient"}
    ways = [choice.choose(name, geometry, (1, 32, 128, 128), jnp.float32)[0] for name, geometry in geometries.items()]
    (precision,) = {geometry.precision for geometry in geometries.values()}
    return precision, "winograd" in ways


@pytest.mark.parametrize("conv", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_precision_that_is_set_is_taken(conv, setting):
    def stock(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NUMBERS)

    with jax.default_matmul_precision(setting):
        expected = jax.make_jaxpr(stock)(*WIDE).eqns[0].params["precision"]
        # The gradients keep it, as those of XLA's own operation do.
        found = taken(conv), taken(conv, back=lambda: jax.default_matmul_precision("high"))
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert found == ((expected, setting == "default"),) * 2
    assert taken(conv)[1]


@pytest.mark.parametrize("precision", ["highest", "float32", lax.Precision.HIGH, ["highest", "highest"]])
def test_a_precision_that_is_given_goes_before_it(precision):
    conv = functools.partial(F.conv, precision=precision)
    expected = taken(conv)
    assert not expected[1]
    with jax.default_matmul_precision("bfloat16"):
        assert taken(conv) == expected
    for same in ("default", lax.Precision.DEFAULT, ("default", "fastest")):
        with jax.default_matmul_precision("highest"):
            assert taken(functools.partial(F.conv, precision=same)) == (lax.Precision.DEFAULT, True)


def test_its_results_are_those_of_the_precision():
    x, kernel = arrays([(2, 8, 8, 32), (3, 3, 32, 32)])
    for conv in (F.conv, jax.jit(F.conv)):
        conv(x, kernel)  # compiled, but not for the other setting
        with jax.default_matmul_precision("highest"):
            found = conv(x, kernel)
        np.testing.assert_array_equal(found, F.conv(x, kernel, precision="highest"))
