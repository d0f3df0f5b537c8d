"""Programs of the experiments for TPUs, by TPU's own compiler and without a chip: what is sent, held and computed.

In an environment with `pip install -e '.[tpu]' pytest`: `JAX_PLATFORMS=cpu pytest -m tpu`, half an hour on two cores,
most of it for the nine programs that are listed by name. What is asked of them is what theory says, up to choices that
are XLA's. Recipes are those of the experiments in bfloat16; their length is no part of a program but of its schedule.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import math
import re
import sys
from pathlib import Path

import jax
import pytest

from cnn_jax import models
from cnn_jax.augment import needs_targets
from cnn_jax.benchmark import chips, scale
from cnn_jax.describe import describe
from cnn_jax.runs.execution import MeshShape
from cnn_jax.runs.mesh import FSDP

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
TOPOLOGIES = {"v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}
LAYOUTS = {"data": MeshShape(data=4), "fsdp": MeshShape(fsdp=4), "both": MeshShape(data=2, fsdp=2)}
LAYOUTS["alone"] = MeshShape(data=1)  # as a selection asks for
SCALARS = 64  # bytes of metrics, and of counts of a batch, that are added up too
NORMS = 24  # and of the norms that a divided kernel has a part in: gradient, kernel and update; LAMB takes three more

# What compiles in seconds, two of it by each chip, layout and feed; and what takes minutes.
LIGHT = ("lenet5", "lecun1998-lenet1", "detect_digits", "lecun1998-lenet4", "lecun1998-lenet5-distorted")
CASES = [
    (LIGHT[(k + again) % len(LIGHT)], *how)
    for k, how in enumerate(itertools.product(TOPOLOGIES, ("data", "fsdp", "both"), ("resident", "streamed")))
    for again in (0, 2)
] + [
    ("cifar-resnet20", "v6e", "data", "resident"),
    ("cifar-resnet18", "v6e", "fsdp", "streamed"),
    ("cifar-wrn16x8", "v5p", "both", "streamed"),
    ("airbench-airbench94-muon", "v5p", "data", "resident"),
    ("airbench-airbench94-muon", "v5e", "fsdp", "streamed"),
    ("airbench-airbench94", "v6e", "both", "resident"),
    ("airbench-airbench96", "v5p", "alone", "resident"),
    ("imagenet-resnet18-ffcv", "v5p", "data", "streamed"),
    ("imagenet-resnet50-a3", "v5p", "fsdp", "streamed"),
]


def load(name):
    spec = importlib.util.spec_from_file_location(f"tpu_{name}", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


@functools.cache
def experiments():
    """The recipes of all experiments, and what they learn from."""
    digits = {"image_shape": (32, 32, 1), "images": 60_000}
    pictures = {"image_shape": (292, 292, 3), "images": 1_281_167, "classes": 1000}
    found = {
        "lenet5": (dataclasses.replace(load("lenet5").Config().recipe, epochs=10), digits),
        "detect_digits": (load("detect_digits").Config().recipe, digits | {"images": 192_000, "classes": 11}),
    }
    for name, row in load("lecun1998").ROWS.items():
        size = models.input_size(row.recipe.model)
        found[f"lecun1998-{name}"] = row.recipe, digits | {"image_shape": (*size, 1)}
    found |= {f"cifar-{name}": (row.recipe, {}) for name, row in load("cifar").ROWS.items()}
    found |= {f"airbench-{name}": (recipe, {}) for name, recipe in load("airbench").RECIPES.items()}
    return found | {f"imagenet-{name}": (known.recipe, pictures) for name, known in load("imagenet").RECIPES.items()}


def setting(name, kind, layout):
    """A recipe as it is, but in bfloat16, on four chips or one. A3 in parts, as a chip could hold them."""
    recipe, images = experiments()[name]
    model = models.with_classes(recipe.model, images.get("classes", 10))
    parts = {"accumulate": 8} if name.endswith("a3") else {}
    recipe = dataclasses.replace(recipe, model=model, precision="bfloat16", **parts)
    return chips.Setting(recipe=recipe, kind=kind, topology=TOPOLOGIES[kind], shape=LAYOUTS[layout], **images)


@pytest.mark.tpu
@pytest.mark.parametrize(("name", "kind", "layout", "feed"), CASES, ids=map("-".join, CASES))
def test_an_experiment_compiles_for_tpus(name, kind, layout, feed):
    chosen = setting(name, kind, layout)
    program, measuring = chips.compile_train(chosen, feed == "streamed"), chips.compile_eval(chosen)
    for text in (program.as_text(), measuring.as_text()):
        assert not re.search(r"infeed|outfeed|xla_python|host-compute", text), "something falls back to the host"
        # Of the layers; products of matrices, which an optimiser may want in float32, are convolutions there too.
        kept = re.findall(r"= (\w+)\[[^=]*? convolution\(.*conv_general_dilated", text)
        assert kept
        assert set(kept) == {"bf16"}
    state, shape = chips.state_of(chosen), chosen.shape
    parameters, divided = chips.parameter_bytes(state), chips.parameter_bytes(state, divided=True)
    kernels = sum(FSDP in leaf.sharding.spec for leaf in jax.tree.leaves(state.params))  # that are divided
    gathered = (divided / 2, divided)  # kernels that are divided, in bfloat16 or before they are rounded
    found, measured = chips.sent(program), chips.sent(measuring)
    assert measured.pop("all-reduce", 0) <= SCALARS
    assert within(measured.pop("all-gather", 0), *gathered)
    assert not measured
    # Gradients are added up, those of divided kernels to each chip's share, but XLA adds up some whole;
    # then the running statistics; and where norms are over rows of several chips what these find, there and back.
    reduced, scattered = found.pop("all-reduce", 0), found.pop("reduce-scatter", 0)
    statistics = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    least = parameters + statistics * (3 if chosen.division().share_of_rows.together > 1 else 1)
    if shape.size > 1:
        summed = reduced + (shape.fsdp - (shape.data > 1)) * scattered
        # Two biases with the same gradient send it once; a thousand columns are filled up to whole tiles.
        assert summed == pytest.approx(least, rel=0.01, abs=SCALARS + NORMS * kernels)
        assert within(shape.fsdp * scattered, divided / 2, divided)
    # Muon's products are of whole kernels, which are gathered in bfloat16 in each step of its iteration.
    again = found.pop("all-gather", 0) - chips.sent(program, "/model/").get("all-gather", 0)
    assert again <= (3 * divided if "muon" in name else 0)
    assert within(chips.sent(program, "/model/").get("all-gather", 0), *gathered)
    # What is mixed with the next row needs that of the next chip; and columns change chips where tiles were filled up.
    row = 4 * (math.prod(chosen.recipe.trained_shape(chosen.image_shape)) + chosen.classes)
    mixed = row if needs_targets(chosen.recipe.augment) else 0
    assert within(found.pop("collective-permute", 0), mixed, mixed + 0.01 * divided)
    assert not found
    # A chip holds its share of the state, and all images or its rows of two batches; arrays are filled up to tiles.
    images = chosen.images if feed == "resident" else 2 * chosen.recipe.batch_size // shape.size
    held = images * math.prod(chosen.image_shape) + sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
    )
    assert within(program.memory_analysis().argument_size_in_bytes, held, 1.2 * held + 1e6)
    products = operations(chosen)  # beside them each tanh and distorted pixel of a LeNet counts, being as many
    assert within(program.cost_analysis()["flops"], 0.6 * products, (2.5 if products < 1e9 else 1.3) * products)


def within(number, least, most):
    return least <= number <= most


def operations(chosen):
    """Operations of a chip in a step, or in a part of one: of convolutions and products of matrices.

    A multiplication and an addition, forward and of two gradients; but none to the first layer's input. TPU's compiler
    counts no products with padding, of which small images have many.
    """
    share, rows = chosen.division().share_of_rows, chosen.recipe.batch_size
    rows = chosen.recipe.selection[0].keep if chosen.recipe.selection else rows // chosen.shape.size // share.parts
    layers = describe(chosen.recipe.model, chosen.recipe.trained_shape(chosen.image_shape))
    first = next(layer.multiply_adds for layer in layers if layer.multiply_adds)
    return (6 * layers.total.multiply_adds - 2 * first) * rows


def test_what_is_sent_takes_its_time_over_the_links():
    assert scale.seconds_to_send({"all-reduce": 300 * 10**9}, 2) == pytest.approx(1.0)
    assert scale.seconds_to_send({"all-gather": 300 * 10**9, "reduce-scatter": 300 * 10**9}, 4) == pytest.approx(1.5)
    assert scale.seconds_to_send({}, 8) == 0
