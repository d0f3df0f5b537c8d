"""Programs of the experiments for TPUs, by TPU's own compiler and without a chip: what is sent, held and computed.

In an environment with `pip install -e '.[tpu]' pytest`: `JAX_PLATFORMS=cpu pytest -m tpu`, half an hour on two cores.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import jax
import pytest

from cnn_jax import models
from cnn_jax.benchmark import chips, scale
from cnn_jax.describe import describe
from cnn_jax.runs.execution import MeshShape
from cnn_jax.training import SGD, Group, Recipe

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
SCALARS = 64  # bytes of metrics, and of the counts of a batch, that may be added up with gradients


def load(name):
    spec = importlib.util.spec_from_file_location(f"tpu_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


def settings(name):
    """The recipe of an experiment in bfloat16, at a batch that four chips divide, and its data."""
    if name == "lenet5":
        recipe, images = load("lenet5").Config().recipe, {"image_shape": (32, 32, 1), "images": 60_000}
    elif name == "resnet20":
        recipe, images = load("cifar").ROWS["resnet20"].recipe, {}
    elif name == "airbench94-muon":
        recipe, images = load("airbench").RECIPES[name], {}
    else:
        model = models.with_classes(models.build("resnet50"), 1000)
        recipe = Recipe(model=model, optimizer=SGD(0.1, momentum=0.9), epochs=1, groups=(Group("norm", rate=0.5),))
        images = {"image_shape": (224, 224, 3), "images": 50_000, "classes": 1000}
    batch = 128 if name == "resnet50" else recipe.batch_size - recipe.batch_size % 8
    recipe = dataclasses.replace(recipe, epochs=1, precision="bfloat16", batch_size=batch, norm_batch=batch // 4)
    return {"recipe": recipe, **images}


@pytest.mark.tpu
@pytest.mark.parametrize(
    ("kind", "topology", "shape", "streamed"),
    [
        ("v5p", "2x2x1", MeshShape(data=4), False),
        ("v5e", "2x2", MeshShape(fsdp=4), True),
        ("v6e", "2x2", MeshShape(data=2, fsdp=2), False),
    ],
    ids=["v5p", "v5e", "v6e"],
)
@pytest.mark.parametrize("name", ["lenet5", "resnet20", "airbench94-muon", "resnet50"])
def test_an_experiment_compiles_for_tpus(name, kind, topology, shape, streamed):
    setting = chips.Setting(kind=kind, topology=topology, shape=shape, **settings(name))
    program, measuring = chips.compile_train(setting, streamed), chips.compile_eval(setting)
    for text in (program.as_text(), measuring.as_text()):
        assert not re.search(r"infeed|outfeed|xla_python|host-compute", text), "something falls back to the host"
        # Of the layers; products of matrices, which an optimiser may want in float32, are convolutions there too.
        kept = re.findall(r"= (\w+)\[[^=]*? convolution\(.*conv_general_dilated", text)
        assert kept
        assert set(kept) == {"bf16"}
    state = chips.state_of(setting)
    parameters, divided = chips.parameter_bytes(state), chips.parameter_bytes(state, divided=True)
    found = chips.sent(program)
    statistics = 8 * sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    # An all-reduce of what is whole on every chip, and a reduce-scatter of the rest, of which each gets its share.
    whole = parameters - divided
    assert whole <= found["all-reduce"] <= whole + statistics + SCALARS
    assert found.get("reduce-scatter", 0) == divided // setting.shape.fsdp
    assert divided / 2 <= found.get("all-gather", 0) <= divided  # in bfloat16, or before it is rounded
    assert set(found) <= {"all-reduce", "reduce-scatter", "all-gather"}
    # A multiplication and an addition, forward and of two gradients; but none to the first layer's input.
    rows = setting.recipe.batch_size // setting.shape.size
    theory = 6 * describe(setting.recipe.model, setting.image_shape).total.multiply_adds * rows
    assert 0.6 * theory < program.cost_analysis()["flops"] < 1.3 * theory


@pytest.mark.tpu
def test_state_of_a_chip_shrinks_as_kernels_are_divided():
    """By the share of kernels and of their momentum that other chips hold."""
    found = []
    for shape in (MeshShape(data=4), MeshShape(fsdp=4)):
        setting = chips.Setting(kind="v5e", topology="2x2", shape=shape, **settings("resnet50"))
        found.append(chips.compile_train(setting, streamed=True, steps=1).memory_analysis().argument_size_in_bytes)
    assert found[0] - found[1] == pytest.approx(
        2 * 3 / 4 * chips.parameter_bytes(chips.state_of(setting), divided=True), rel=0.02
    )


def test_what_is_sent_takes_its_time_over_the_links():
    assert scale.seconds_to_send({"all-reduce": 300 * 10**9}, 2) == pytest.approx(1.0)
    assert scale.seconds_to_send({"all-gather": 300 * 10**9, "reduce-scatter": 300 * 10**9}, 4) == pytest.approx(1.5)
    assert scale.seconds_to_send({}, 8) == 0
