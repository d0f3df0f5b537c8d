"""bfloat16: the model's products are taken in it, and nothing that is kept or summed is in it."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import data, lowering, models
from cnn_jax.errors import InputError
from cnn_jax.training import AdamW, Recipe, SoftmaxCrossEntropy, make_functions
from tests import networks, quick
from tests.drawn import draw_variables
from tests.test_accumulation import Normed

# The operands of each operation that multiplies matrices; Optax's schedules have a product of vectors in them.
OPERANDS = re.compile(r"(?:stablehlo\.convolution|stablehlo\.dot_general)\b.* : \((.*)\) ->")
BATCH = 8


# As small as they can be for the loss to be a mean over many roundings.
SMALL = {
    "cifarnet": {"features": (16, 16)}, "convnet": {"filters": (4,)}, "mlp": {"features": (16,)},
    "resnet18": {"stage_sizes": (1,), "features": 8},
    "resnet18_imagenet": {"stage_sizes": (1, 1), "features": 8, "num_classes": 10},
    "resnet20": {"stage_sizes": (1, 1), "features": 8},
    "resnet50": {"stage_sizes": (1,), "features": 8, "num_classes": 10},
    "wrn16x8": {"depth": 10, "width": 1},
}  # fmt: skip


def functions_of(name, precision, model=None):
    model = model or models.build(name, **SMALL.get(name, {}))
    size = (*(models.input_size(model) or (32, 32)), networks.channels(name))
    recipe = Recipe(model=model, optimizer=AdamW(1e-3), loss=SoftmaxCrossEntropy(), precision=precision)
    statistics = data.Statistics(mean=(0.3,) * size[-1], std=(0.25,) * size[-1])
    return make_functions(recipe, statistics, size, 10, 10), size


def batch_of(size):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (BATCH, *size), np.uint8)
    return {"image": images, "label": draw.integers(0, 10, BATCH).astype(np.int32), "mask": np.ones(BATCH, np.float32)}


@pytest.mark.parametrize("name", networks.KINDS)
def test_every_product_of_a_train_step_is_in_bfloat16_and_every_array_kept_in_float32(name):
    functions, size = functions_of(name, "bfloat16")
    state = jax.eval_shape(functions.init, jax.random.key(0))
    batch = batch_of(size)
    with lowering.use("direct"):  # On CPU other forms widen what they multiply, where that is faster.
        traced = jax.jit(functions.train_step).trace(state, batch)
        text = traced.lower().as_text()
    operands = [re.findall(r"tensor<(?:\d+x){2,}(\w+)>", types) for types in OPERANDS.findall(text)]
    assert len(operands) > 3
    assert {dtype for types in operands for dtype in types} == {"bf16"}
    after, metrics = traced.out_info
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    kept = {leaf.dtype for leaf in jax.tree.leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert kept == {jnp.dtype("float32")}
    assert {value.dtype for value in metrics.values()} == {jnp.dtype("float32")}
    variables = {"params": state.params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
    sums, scores = jax.eval_shape(functions.eval_step, variables, batch)
    assert {scores.dtype, *(value.dtype for value in sums.values())} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", networks.KINDS)
def test_the_loss_is_that_of_float32_to_a_percent(name):
    model = models.build(name, **SMALL.get(name, {}))
    (single, size), (half, _) = (functions_of(name, precision, model) for precision in ("float32", "bfloat16"))
    evaluate = quick.jit(lambda *arguments: [functions.eval_step(*arguments) for functions in (single, half)])
    found = evaluate(draw_variables(model, (1, *size)), batch_of(size))
    assert {scores.dtype for _, scores in found} == {jnp.dtype("float32")}
    expected, loss = (float(sums["loss"]) / BATCH for sums, _ in found)
    assert loss == pytest.approx(expected, rel=0.01)
    assert loss != expected


def test_running_statistics_are_those_of_float32():
    """The rounding of single activations averages out in them: their sums are not taken in bfloat16."""
    model = Normed(num_classes=10)
    (single, size), (half, _) = (functions_of("normed", precision, model) for precision in ("float32", "bfloat16"))

    @quick.jit
    def variances(key, batch):
        states = [functions.train_step(functions.init(key), batch)[0] for functions in (single, half)]
        return [state.batch_stats["BatchNorm_0"]["var"] for state in states]

    expected, found = variances(jax.random.key(0), batch_of(size))
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_another_precision_is_refused_in_a_line():
    with pytest.raises(InputError, match=r"^precision: expected float32 or bfloat16, got 'float16'$"):
        Recipe(precision="float16")
