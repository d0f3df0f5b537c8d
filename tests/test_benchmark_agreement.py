"""The benchmark's contenders compute the same thing, and it notices where they do not."""

from __future__ import annotations

import importlib.util
import json

import jax
import numpy as np
import optax
import pytest

from cnn_jax import models
from cnn_jax.benchmark import agreement, cases, layers, step_cases, steps, stock
from cnn_jax.benchmark.shapes import ConvShape, PoolShape
from cnn_jax.benchmark.timing import OURS, PLAIN, SCANNED, STOCK, TORCH
from cnn_jax.benchmark.yardstick import Yardstick
from tests import quick
from tests.drawn import draw_variables
from tests.geometries import normal

WITHOUT = Yardstick(torch="not asked for", compile="not asked for")
WITH = Yardstick(torch=None, compile="left out")
YARDSTICKS = [pytest.param(WITHOUT, id="alone"), pytest.param(WITH, id="torch", marks=pytest.mark.torch)]

# Ours, stock, and the arguments of PyTorch's, each as small as it can be.
NETWORKS = {
    "lenet5": (models.build("lenet5"), stock.StockLeNet5(), {}, (3, 32, 32, 1)),
    "cifarnet": (
        models.build("cifarnet", features=(4, 5)), stock.StockCifarNet(features=(4, 5)), {"features": (4, 5)},
        (3, 15, 15, 1),
    ),
    "resnet18": (
        models.build("resnet18", stage_sizes=(1, 1), features=4), stock.StockResNet(stage_sizes=(1, 1), features=4),
        {"stage_sizes": (1, 1), "features": 4}, (3, 6, 6, 2),
    ),
    "resnet50": (
        models.build("resnet50", stage_sizes=(1, 2), features=2, num_classes=10),
        stock.StockResNet50(stage_sizes=(1, 2), features=2, num_classes=10),
        {"stage_sizes": (1, 2), "features": 2, "num_classes": 10}, (3, 16, 16, 2),
    ),
}  # fmt: skip


def need_torch(yardstick):
    if yardstick.torch is None:
        pytest.importorskip("torch")


def with_gradient(model, variables, images, labels):
    """Scores, loss and gradients in float64 and train mode."""

    def loss(params):
        scores, _ = model.apply(variables | {"params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean(), scores

    with jax.enable_x64(True):
        (value, scores), gradient = quick.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return scores, value, gradient


def example(name):
    ours, theirs, arguments, shape = NETWORKS[name]
    (images,) = normal(0, shape)
    variables = draw_variables(ours, shape, dtype=np.float64)
    return ours, theirs, arguments, variables, images, np.arange(len(images)) % 10


@pytest.mark.parametrize("name", NETWORKS)
def test_the_stock_network_is_ours(name):
    ours, theirs, _, variables, images, labels = example(name)
    found = with_gradient(ours, variables, images, labels)
    expected = with_gradient(theirs, variables, images, labels)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8), found, expected)


@pytest.mark.torch
@pytest.mark.parametrize("name", NETWORKS)
def test_the_torch_network_is_ours(name):
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark import torch_layers, torch_networks

    ours, _, arguments, variables, images, labels = example(name)
    scores, value, gradient = with_gradient(ours, variables, images, labels)
    module = torch_networks.NETWORKS[name](channels=images.shape[-1], **arguments).double()
    torch_networks.load(module, variables["params"])
    found = module(torch_layers.to_torch(images))
    loss = torch.nn.functional.cross_entropy(found, torch.tensor(labels))
    loss.backward()
    np.testing.assert_allclose(found.detach(), scores, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(loss.item(), value, rtol=1e-8)
    gradients = torch_networks.gradients(module, variables["params"])
    for path, expected in torch_networks.flatten(gradient):
        np.testing.assert_allclose(gradients[path], expected, rtol=1e-8, atol=1e-8, err_msg=path)


CONVS = [
    ConvShape(batch=2, size=6, window=3, inputs=2, outputs=3, padding=1),
    ConvShape(batch=2, size=7, window=3, inputs=4, outputs=4, strides=2, padding=1, groups=4),
    ConvShape(batch=2, size=4, window=4, inputs=3, outputs=2, strides=2, padding=1, transposed=True),
]
POOLS = [
    PoolShape(kind="max", batch=2, size=7, channels=3, window=3, strides=2, padding=1),
    PoolShape(kind="avg", batch=2, size=6, channels=3, window=2, strides=2),
]


@pytest.mark.parametrize("yardstick", YARDSTICKS)
@pytest.mark.parametrize("direction", ["forward", "input", "weight"])
@pytest.mark.parametrize("shape", CONVS, ids=["plain", "depthwise", "transposed"])
def test_convolutions_agree(shape, direction, yardstick):
    need_torch(yardstick)
    contenders = layers.build_conv("case", shape, direction, yardstick).contenders
    assert [c.name for c in contenders] == [OURS, STOCK, *(TORCH[:2] if yardstick is WITH else ())]


# Of each kind of layer one that is small.
SMALL = [
    ConvShape(batch=2, size=(6, 7), window=3, inputs=4, outputs=4, strides=(1, 2), padding=1, groups=4),
    ConvShape(batch=2, size=(8, 7), window=(2, 3), inputs=4, outputs=8, padding=(1, 0), dilation=(1, 2), groups=2),
    ConvShape(batch=2, size=5, window=2, inputs=3, outputs=4, strides=3, dilation=2, transposed=True),
    ConvShape(batch=2, size=(9,), window=3, inputs=4, outputs=6, strides=2, padding=2, dilation=2),
    ConvShape(batch=2, size=(5,), window=4, inputs=3, outputs=2, strides=2, padding=1, transposed=True),
    ConvShape(batch=2, size=(3, 4, 5), window=(1, 2, 3), inputs=4, outputs=4, padding=(0, 1, 1), groups=4),
    ConvShape(batch=2, size=(2, 3, 4), window=2, inputs=3, outputs=2, strides=2, transposed=True),
]


@pytest.mark.parametrize("yardstick", YARDSTICKS)
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_all_directions_in_one_program_agree(shape, yardstick):
    need_torch(yardstick)
    contenders = layers.build_conv("case", shape, "all", yardstick).contenders
    plain = (PLAIN,) if yardstick.has_onednn else ()
    assert [c.name for c in contenders] == [OURS, STOCK, *plain, *(TORCH[:2] if yardstick is WITH else ())]
    arrays = shape.arrays()
    expected = {"output": arrays["y"], "input gradient": arrays["x"], "weight gradient": arrays["k"]}
    for contender in contenders:
        assert {key: array.shape for key, array in contender.numbers().items()} == {
            key: array.shape for key, array in expected.items()
        }


@pytest.mark.parametrize("yardstick", YARDSTICKS)
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("shape", POOLS, ids=["max", "avg"])
def test_pools_agree(shape, direction, yardstick):
    need_torch(yardstick)
    field = layers.build_pool("case", shape, direction, yardstick)
    assert [c.name for c in field.contenders] == [OURS, STOCK, *(TORCH[:2] if yardstick is WITH else ())]
    assert field.skipped == ({TORCH[2]: "left out"} if yardstick is WITH else {})


@pytest.mark.parametrize("direction", ["forward", "weight", "all"])
def test_a_wrong_layer_is_found(direction, monkeypatch):
    """One product of many, rounded to bfloat16, is enough."""
    right = layers._our_conv(CONVS[0])

    def wrong(x, k):
        coarse = x.at[0].set(jax.lax.reduce_precision(x[0], exponent_bits=8, mantissa_bits=7))
        return right(coarse, k)

    monkeypatch.setattr(layers, "_our_conv", lambda shape: wrong)
    with pytest.raises(agreement.DisagreementError, match=r"this case: .* of ours"):
        layers.build_conv("this case", CONVS[0], direction, WITHOUT)


def test_train_steps_agree():
    yardstick = WITH if importlib.util.find_spec("torch") else WITHOUT
    field = steps.build_step("case", step_cases.lenet5(batch=8, scanned=2), yardstick)
    assert [c.name for c in field.contenders] == [OURS, STOCK, SCANNED, *(TORCH[:2] if yardstick is WITH else ())]
    assert [c.amount for c in field.contenders][:3] == [1, 1, 2]
    assert [c.compiled is not None and c.compiled > 0 for c in field.contenders][:3] == [True, True, False]


def test_a_wrong_train_step_is_found(monkeypatch):
    class Other(stock.StockLeNet5):
        def __call__(self, images, train=False):
            return super().__call__(images * 1.001, train)

    monkeypatch.setitem(steps.STOCK_NETWORKS, "lenet5", Other)
    with pytest.raises(agreement.DisagreementError, match=r"this case: .* of ours"):
        steps.build_step("this case", step_cases.lenet5(batch=8, scanned=2), WITHOUT)


def occurring(jaxpr):
    """The shapes of the convolutions and of the two-dimensional pools within a program, as in `SHAPES`."""
    for equation in jaxpr.eqns:
        p, shapes = equation.params, [v.aval.shape for v in equation.invars if hasattr(v.aval, "shape")]
        if equation.primitive.name == "conv_general_dilated":
            (batch, size, _, inputs), (window, _, _, outputs) = shapes
            yield ConvShape(
                batch=batch, size=size, window=window, inputs=inputs, outputs=outputs, strides=p["window_strides"][0],
                padding=p["padding"][0][0],
            )  # fmt: skip
        elif equation.primitive.name in ("reduce_window_max", "reduce_window_sum"):
            kind = equation.primitive.name[-3:].replace("sum", "avg")
            (batch, size, _, channels), window, strides = shapes[0], p["window_dimensions"][1], p["window_strides"][1]
            yield PoolShape(kind=kind, batch=batch, size=size, channels=channels, window=window, strides=strides)
        for inner in (getattr(value, "jaxpr", value) for value in p.values()):
            if hasattr(inner, "eqns"):
                yield from occurring(inner)


@pytest.mark.parametrize("name", [name for name in step_cases.STEP_CASES if name != "resnet50/32"])
def test_every_layer_of_the_networks_is_measured(name):
    case = step_cases.STEP_CASES[name]
    network = {"lenet5": stock.StockLeNet5, "cifarnet": stock.StockCifarNet, "resnet18": stock.StockResNet}
    model = network[case.network]()
    images = jax.ShapeDtypeStruct((case.batch, 32, 32, case.channels), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    program = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    measured = {shape for layer, shape in cases.SHAPES.items() if layer.startswith(f"{name}/")}
    assert measured == set(occurring(program.jaxpr))


@pytest.mark.torch
def test_the_torch_script_has_our_schedule_and_learns(tmp_path):
    torch = pytest.importorskip("torch")
    from cnn_jax.benchmark import mnist_torch

    schedule = optax.cosine_onecycle_schedule(937, 5e-3)
    rates = mnist_torch.learning_rates(937, 5e-3)
    np.testing.assert_allclose(rates, [schedule(step) for step in range(937)], rtol=1e-4, atol=1e-9)

    draw = np.random.default_rng(0)
    for split, count in (("train", 640), ("test", 200)):
        labels = draw.integers(0, 10, count)
        images = np.zeros((count, 28, 28, 1), np.uint8)
        for image, label in zip(images, labels, strict=True):  # a bright line in the label's place
            image[2 * label + 4] = draw.integers(100, 255, (28, 1))
        np.save(tmp_path / f"{split}-images.npy", images)
        np.save(tmp_path / f"{split}-labels.npy", labels.astype(np.int32))
    (tmp_path / "statistics.json").write_text(json.dumps({"mean": [0.02], "std": [0.12]}))
    assert mnist_torch.train(tmp_path, torch.contiguous_format, epochs=5) > 0.9
