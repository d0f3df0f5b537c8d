"""The gradient of a batch in tiles, against `jax.value_and_grad` of the whole."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import layers, models
from cnn_jax.training import Accuracy, SoftmaxCrossEntropy, create_state, make_train_step
from cnn_jax.training.gradients import count_tiles, of_batch
from tests import quick
from tests.geometries import normal


def mean_loss(params, batch):
    x = jnp.tanh(batch["image"] @ params["first"]) @ params["second"]
    return jnp.mean(x**2 * batch["weight"][:, None]), {"largest": jnp.mean(x.max(-1))}


def arguments(images, width=4096):
    first, second, image, weight = normal(0, (8, width), (width, 3), (images, 8), (images,))
    return {"first": first, "second": second}, {"image": image, "weight": weight}


@pytest.mark.parametrize(
    ("images", "width", "expected"),
    # Of each image its 8 pixels, its weight and twice `width` numbers are kept or fewer, in float64.
    [(64, 4096, 1), (256, 4096, 4), (250, 4096, 5), (256, 16, 1), (257, 4096, 1), (1, 4096, 1)],
)
def test_a_large_batch_is_taken_in_equal_tiles_and_gives_the_same(images, width, expected):
    with jax.enable_x64(True):
        params, batch = jax.tree.map(jnp.asarray, arguments(images, width))
        assert count_tiles(mean_loss, params, batch) == expected
        found = quick.jit(functools.partial(of_batch, mean_loss, per_example=True))(params, batch)
        whole = quick.jit(jax.value_and_grad(mean_loss, has_aux=True))(params, batch)
    # The numbers are as large as 40, and small ones are differences of such.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-11), found, whole)


def test_tiles_are_for_the_cpu_and_for_losses_that_say_so():
    params, batch = arguments(256)

    def loops(per_example, platform):
        function = jax.jit(functools.partial(of_batch, mean_loss, per_example=per_example))
        return function.trace(params, batch).lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while")

    assert loops(True, "cpu") == 1
    assert loops(False, "cpu") == loops(True, "cuda") == loops(True, "tpu") == 0


class Joined(nn.Module):
    """Scores of an image that know the others of the batch."""

    @nn.compact
    def __call__(self, images, train=False):
        x = layers.Conv(16, (1, 1))(images)
        return nn.Dense(3)((x - x.mean(0)).reshape(len(images), -1))


@pytest.mark.parametrize("model", [models.ConvNet(filters=(16,), activation="tanh", num_classes=3), Joined()])
def test_a_step_of_a_large_batch_is_the_step_of_the_whole(model):
    image = np.random.default_rng(0).integers(0, 256, (192, 16, 16, 1), dtype=np.uint8)
    batch = {"image": image, "label": np.arange(192, dtype=np.int32) % 3}
    optimizer, loss = optax.sgd(0.1), SoftmaxCrossEntropy()

    def preprocess(images):
        return images.astype(jnp.float32) / 255

    state = create_state(model, optimizer, image.shape[1:], seed=0)
    step = quick.jit(make_train_step(model, optimizer, loss, preprocess, metrics={"accuracy": Accuracy()}))
    assert ("stablehlo.while" in step.lower(state, batch).as_text()) == (not isinstance(model, Joined))
    new, metrics = step(state, batch)

    def whole(params):
        scores = model.apply({"params": params}, preprocess(batch["image"]), train=True)
        targets = jax.nn.one_hot(batch["label"], scores.shape[-1])
        return loss(scores, targets).mean(), (scores.argmax(-1) == batch["label"]).mean()

    (value, accuracy), grads = quick.jit(jax.value_and_grad(whole, has_aux=True))(state.params)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(metrics["loss"], value)
    close(metrics["accuracy"], accuracy)
    close(metrics["grad_norm"], optax.tree.norm(grads))
    jax.tree.map(lambda old, new, grad: close(old - new, 0.1 * grad), state.params, new.params, grads)
