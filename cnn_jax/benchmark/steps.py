"""Whole train steps: ours, the same network in plain Flax under a plain step, and PyTorch's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import models, training
from cnn_jax.benchmark import agreement
from cnn_jax.benchmark.step_cases import StepCase
from cnn_jax.benchmark.stock import StockCifarNet, StockLeNet5, StockResNet, StockResNet50
from cnn_jax.benchmark.timing import OURS, SCANNED, STOCK, Contender
from cnn_jax.benchmark.yardstick import Field, Yardstick

STOCK_NETWORKS: dict[str, type[nn.Module]] = {
    "lenet5": StockLeNet5,
    "cifarnet": StockCifarNet,
    "resnet18": StockResNet,
    "resnet50": StockResNet50,
}
Step = Callable[[Any, dict[str, jax.Array]], tuple[Any, jax.Array]]
"""(state, batch) -> (state, loss before the step)."""


def build_step(name: str, case: StepCase, yardstick: Yardstick) -> Field:
    """The contenders of a train step, all found to take the same.

    Raises:
        DisagreementError: they do not.
    """
    batch = make_batch(case)
    model, optimizer = models.build(case.network), make_optimizer(case)
    state = training.create_state(model, optimizer, batch["image"].shape[1:], seed=0)
    ours = our_step(model, optimizer, case)
    stock = stock_step(STOCK_NETWORKS[case.network](), optimizer, case)
    stock_state = {"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state}
    taken, stock_seconds = _compiled(jax.jit(stock, donate_argnums=0), stock_state, batch)

    def probe(move: Callable[[Any], Any]) -> dict[str, np.ndarray]:
        moved = stock_state | {"params": jax.tree.map(move, stock_state["params"])}
        return _Stepper(taken, moved, batch | {"image": move(batch["image"])}, case).numbers()

    expected = probe(jnp.asarray)
    tolerance = _tolerance(case, expected, probe)
    our_taken, seconds = _compiled(yardstick.jit(ours, donate_argnums=0), state, batch)
    contenders = [
        _Stepper(our_taken, state, batch, case).contender(OURS, seconds),
        _Stepper(taken, stock_state, batch, case).contender(STOCK, stock_seconds),
        _scanned(ours, state, batch, case, yardstick.jit),
    ]
    skipped: dict[str, str] = {}
    if yardstick.torch is None:
        from cnn_jax.benchmark.torch_steps import step_contenders

        params = jax.tree.map(np.asarray, state.params)
        found, skipped = step_contenders(case, params, batch["image"], batch["label"], yardstick)
        contenders += found
    for contender in contenders:
        numbers = contender.numbers()
        agreement.check_norms(name, contender.name, numbers, {key: expected[key] for key in numbers}, tolerance)
    return Field(contenders, skipped)


def _compiled(step: Any, state: Any, batch: dict[str, np.ndarray]) -> tuple[Step, float]:
    """A step under `jax.jit` or `lowering.jit` as a program, and the seconds that tracing and compiling it took."""
    began = time.perf_counter()
    program = step.lower(state, batch).compile()
    return program, time.perf_counter() - began


def make_batch(case: StepCase) -> dict[str, np.ndarray]:
    """Normal float32 images (N, H, W, C) and int32 labels (N,)."""
    draw = np.random.default_rng(0)
    images = draw.standard_normal((case.batch, case.size, case.size, case.channels), np.float32)
    return {"image": images, "label": draw.integers(0, 10, case.batch, dtype=np.int32)}


def make_optimizer(case: StepCase) -> optax.GradientTransformation:
    """The optimiser of a step."""
    optimizer: training.Optimizer
    if case.optimizer == "sgd":
        optimizer = training.SGD(case.learning_rate, momentum=case.momentum, nesterov=True)
    else:
        optimizer = training.AdamW(case.learning_rate, case.weight_decay)
    return optimizer(optax.constant_schedule(case.learning_rate))


def our_step(model: nn.Module, optimizer: optax.GradientTransformation, case: StepCase) -> Step:
    """`training.make_train_step` on images that are floats already."""
    loss = training.SoftmaxCrossEntropy(case.label_smoothing)
    take = training.make_train_step(model, optimizer, loss, preprocess=lambda images: images, precision=case.precision)

    def step(state: Any, batch: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
        state, metrics = take(state, batch)
        return state, metrics["loss"]

    return step


def stock_step(model: nn.Module, optimizer: optax.GradientTransformation, case: StepCase) -> Step:
    """The step as one writes it with Flax and Optax; the state has "params", "batch_stats" and "opt_state"."""

    def step(state: Any, batch: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            scores, updated = model.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
            targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], scores.shape[-1]), case.label_smoothing)
            return optax.softmax_cross_entropy(scores, targets).mean(), updated.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(mean_loss, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "batch_stats": batch_stats, "opt_state": opt_state}, loss

    return step


def gradients(opt_state: Any, case: StepCase) -> dict[str, np.ndarray]:
    """The gradient of the first step by path, as the optimiser has it in its average after that step."""
    average, share = ("trace", 1.0) if case.optimizer == "sgd" else ("mu", 0.1)
    tree = optax.tree_utils.tree_get(opt_state, average)
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) / np.float32(share) for path, leaf in leaves}


class _Stepper:
    """A compiled step, its state, which each step uses up, and the batch that it learns."""

    def __init__(self, step: Step, state: Any, batch: dict[str, np.ndarray], case: StepCase):
        self.take, self.state = step, jax.tree.map(lambda leaf: leaf.copy(), state)
        self.batch = jax.tree.map(jnp.asarray, batch)
        self.case = case

    def step(self) -> jax.Array:
        """Takes a step and returns the loss before it."""
        self.state, loss = self.take(self.state, self.batch)
        return loss

    def numbers(self) -> dict[str, np.ndarray]:
        """The losses before the first two steps and the gradient of the first."""
        first = np.asarray(self.step())
        opt_state = self.state["opt_state"] if isinstance(self.state, dict) else self.state.opt_state
        found = gradients(opt_state, self.case)
        return {"loss 1": first, **found, "loss 2": np.asarray(self.step())}

    def contender(self, name: str, compiled: float) -> Contender:
        """This step by a name, with the seconds that it took to compile."""
        return Contender(name=name, call=self.step, wait=jax.block_until_ready, numbers=self.numbers, compiled=compiled)


def _scanned(
    step: Step, state: Any, batch: dict[str, np.ndarray], case: StepCase, jit: Callable[..., Any]
) -> Contender:
    """Several of our steps in one `lax.scan` over a stack of batches, all of them the same."""
    batches = {key: np.stack([array] * case.scanned) for key, array in batch.items()}
    take = jit(functools.partial(jax.lax.scan, step), donate_argnums=0)
    stepper = _Stepper(take, state, batches, case)

    def numbers() -> dict[str, np.ndarray]:
        losses = np.asarray(stepper.step())
        return {"loss 1": losses[0], "loss 2": losses[1]}

    return Contender(name=SCANNED, call=stepper.step, wait=jax.block_until_ready, numbers=numbers, amount=case.scanned)


def _tolerance(
    case: StepCase,
    expected: dict[str, np.ndarray],
    probe: Callable[[Callable[[Any], Any]], dict[str, np.ndarray]],
) -> dict[str, float]:
    """How far the norms of differences may go.

    Rounding enters at every layer and the network passes it on. How much it makes of that is measured: every pixel and
    every parameter, so that it happens at each layer, is moved by the rounding of the step's longest sum, and the
    losses and gradients are watched.
    """
    error = agreement.typical(case.longest)
    draw = np.random.default_rng(1)

    def move(array: Any) -> Any:
        return array * draw.choice(np.array([1 - error, 1 + error], np.float32), array.shape)

    moved = probe(move)
    return {
        key: agreement.WALK * float(np.linalg.norm(moved[key] - value) + error * np.linalg.norm(value))
        for key, value in expected.items()
    }
