"""What `tests.test_mesh` runs in a process of eight devices: a seed on a mesh of them is that seed on one device."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import math
import re

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cnn_jax import augment, models
from cnn_jax.errors import InputError
from cnn_jax.runs import Execution
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.layout import Layout
from cnn_jax.runs.mesh import Division, Share, choose_layout, divide, what_joins
from cnn_jax.runs.replicas import Replicas
from cnn_jax.training import EMA, SGD, SWA, AdamW, Constant, Hardest, Mirror, Shift
from tests.tiny import (
    TinyNet,
    Wide,
    assert_same_bits,
    make_dataset,
    make_recipe,
)

SHAPE = (6, 6, 1)
TRAIN, TEST = make_dataset(192), make_dataset(30, seed=1, split="test")
STEPS, BATCH = 50, 32


class Normed(nn.Module):
    """With statistics of batches, and a large kernel too."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
        return nn.Dense(3)(x)


class Dropped(nn.Module):
    """With random numbers for a whole batch."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.relu(nn.Conv(4, (3, 3))(images))
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(3)(x)


class Centred(nn.Module):
    """With statistics of batches of its own making."""

    @nn.compact
    def __call__(self, images, train=False):
        x = images.reshape(len(images), -1)
        kept = self.variable("batch_stats", "mean", lambda: x.mean(0))
        mean = x.mean(0) if train else kept.value
        if train:
            kept.value = mean
        return nn.Dense(3)(x - mean)


KERNEL = 4 * (6 * 6 * 4) * 512  # bytes of the one that is divided
optimizer = SGD(learning_rate=0.05, momentum=0.9)
recipe = functools.partial(make_recipe, batch_size=BATCH, epochs=9, optimizer=optimizer, schedule=Constant())
RECIPES = {
    "parts": recipe(model=Wide(), accumulate=2, augment=(augment.Flip(), augment.Mixup(0.2)), averaging=(EMA(0.9),)),
    "norms": recipe(model=Normed(), averaging=(SWA(),)),
    "groups": recipe(model=Normed(), accumulate=2, norm_batch=8),
    "half": recipe(model=Wide(), precision="bfloat16"),
    "draws": recipe(model=Dropped()),
}
MESHES = [
    ("parts", "data=8"), ("parts", "data=2, fsdp=4"), ("norms", "fsdp=4"), ("groups", "data=2"), ("groups", "data=8"),
    ("half", "data=2, fsdp=4"), ("draws", "data=4"),
]  # fmt: skip


@functools.cache
def engine_of(chosen, mesh):
    """An engine, and the program by which it takes a step."""
    engine = Engine(chosen, TRAIN, (0,), Execution(mesh=mesh, steps_per_call=1), None, TEST)
    program = engine.lower(engine.init()).compile()
    engine._train_steps = [lambda *arguments: jax.block_until_ready(program(*arguments))]
    return engine, program


def gradient_of(state):
    """Of a state after its first step: what the momentum has seen."""
    leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    return [np.asarray(leaf) for path, leaf in leaves if ".trace" in jax.tree_util.keystr(path)]


def trained(engine, state):
    """The gradient of the first step, and the variables after all."""
    state, _ = engine.train_steps(state, 0, 1)
    gradient = gradient_of(state)
    for step in range(1, STEPS):
        state, _ = engine.train_steps(state, step, 1)
    return gradient, jax.device_get(engine.settle(state).eval_variables)


def nudged(state, precision, seed):
    """A state with every parameter one unit in the last place of that precision higher or lower."""
    draw, units = np.random.default_rng(seed), {"float32": 1, "bfloat16": 2**16}[precision]

    def nudge(leaf):
        return leaf + np.spacing(np.abs(leaf)) * draw.choice(np.float32([-units, units]), leaf.shape)

    return state.replace(params=jax.tree.map(nudge, jax.device_get(state.params)))


def distance(variables, others):
    differences = jax.tree.leaves(jax.tree.map(np.subtract, variables, others))
    return math.sqrt(sum(float(np.sum(np.square(d, dtype=np.float64))) for d in differences))


@functools.cache
def alone(name):
    """On one device: the start, the gradient, the end, and how far from it starts nearby end."""
    engine, _ = engine_of(RECIPES[name], "data=1")
    gradient, end = trained(engine, engine.init())
    others = [trained(engine, nudged(engine.init(), RECIPES[name].precision, seed))[1] for seed in range(3)]
    return engine.init(), gradient, end, max(distance(other, end) for other in others)


@pytest.mark.parametrize(("name", "mesh"), MESHES)
def test_a_seed_is_trained_the_same_on_any_mesh(name, mesh):
    begun, expected, end, drift = alone(name)
    engine, _ = engine_of(RECIPES[name], mesh)
    state = engine.init()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(begun.params))
    gradient, found = trained(engine, state)
    largest = max(float(np.abs(leaf).max()) for leaf in expected)
    close = 1e-5 if RECIPES[name].precision == "float32" else 2.0**-7
    for leaf, reference in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(leaf, reference, rtol=0, atol=close * largest)
    assert distance(found, end) <= drift


def collectives(compiled):
    """Of a compiled program: (operation, whether outside of all loops) -> dtype and bytes of each array they give."""
    found, outside = collections.defaultdict(list), False
    for line in compiled.as_text().splitlines():
        if line and not line[0].isspace():
            outside = line.startswith("ENTRY")
        match = re.match(r"\s+(?:ROOT )?%\S+ = (.*?) (all-[a-z-]+?|reduce-scatter|collective-\w+?)(?:-start)?\(", line)
        if match:
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", match[1]):
                numbers = math.prod(int(size) for size in shape.split(",") if size)
                found[match[2], outside].append((dtype, numbers * {"pred": 1, "f32": 4, "bf16": 2}.get(dtype, 8)))
    return dict(found)


def compiled(mesh, chosen):
    """A step's program, and the bytes of the parameters."""
    engine, program = engine_of(chosen, mesh)
    return program, sum(leaf.nbytes for leaf in jax.tree.leaves(engine.init().params))


def total(found, operation):
    return sum(size for _, size in found.get((operation, True), ()))


SCALARS = 64  # bytes, at the most, of the loss, the metrics and the norms of what is divided
MIXED = 4 * math.prod(SHAPE) + 4 * 3  # an image and its target


@pytest.mark.parametrize(("name", "moved"), [("parts", MIXED), ("half", 0)])
def test_gradients_are_added_up_once_a_step_in_float32_and_images_stay_where_they_are(name, moved):
    """But for the one that the next device's last row is mixed with."""
    program, parameters = compiled("data=8", RECIPES[name])
    found = collectives(program)
    assert all(is_outside for _, is_outside in found)  # of loops
    outside = {operation for operation, _ in found}
    assert outside == {"all-reduce"} | ({"collective-permute"} if moved else set())
    assert total(found, "collective-permute") == moved
    assert {dtype for dtype, _ in found["all-reduce", True]} == {"f32"}
    assert parameters < total(found, "all-reduce") <= parameters + SCALARS
    program, _ = compiled("data=2, fsdp=4", RECIPES[name])
    found = collectives(program)
    outside = {operation for operation, is_outside in found if is_outside} - {"collective-permute"}
    assert outside == {"all-reduce", "all-gather", "reduce-scatter"}
    assert total(found, "collective-permute") == moved
    assert total(found, "all-gather") == KERNEL
    assert total(found, "reduce-scatter") == KERNEL // 4
    rest = parameters - KERNEL + KERNEL // 4
    assert rest < total(found, "all-reduce") <= rest + SCALARS


@pytest.mark.parametrize("mesh", ["fsdp=4", "data=2, fsdp=4"])
def test_several_processes_of_a_cpu_add_up_what_others_scatter(monkeypatch, mesh):
    """The scattering of their JAX 0.10 is wrong."""
    division, rows = layout(mesh=mesh), PartitionSpec(("data", "fsdp"))
    values = np.random.default_rng(0).integers(-9, 9, (8, 3, 16)).astype(np.float32)[: division.mesh.size]

    def added(values):
        return division._added(values[0], PartitionSpec(None, "fsdp"))

    def program():
        found = jax.shard_map(
            added, mesh=division.mesh, in_specs=rows, out_specs=PartitionSpec(None, "fsdp"), check_vma=False
        )
        return jax.jit(found).lower(values).compile()

    scattered = program()
    monkeypatch.setattr("cnn_jax.runs.hosts.count", lambda: 2)
    summed = program()
    assert [("reduce-scatter", True) in collectives(one) for one in (scattered, summed)] == [True, False]
    for one in (scattered, summed):
        np.testing.assert_array_equal(one(jax.device_put(values, one.input_shardings[0][0])), values.sum(0))


def test_norms_of_groups_within_a_device_ask_nobody():
    statistics = 8 * 4  # mean and variance of four channels
    program, parameters = compiled("data=2", RECIPES["groups"])
    assert total(collectives(program), "all-reduce") <= parameters + statistics + SCALARS
    # Those of the whole batch are added up on the way there, their gradients on the way back.
    program, parameters = compiled("data=4", recipe(model=Normed(), averaging=(EMA(0.9),)))
    assert total(collectives(program), "all-reduce") <= parameters + 3 * statistics + SCALARS


def test_an_evaluation_gathers_kernels_and_nothing_of_images():
    """Nor of what lies between layers, with several views of an image."""
    engine, _ = engine_of(recipe(model=Normed(), test_time=(Shift(), Mirror())), "data=2, fsdp=4")
    row, place = np.zeros(BATCH, np.float32), engine._layout.rows
    batch = {"image": place([np.zeros((BATCH, *SHAPE), np.uint8)], 3), "label": place([row.astype(np.int32)])}
    program = engine._eval_step.lower(engine.init().eval_variables, batch | {"mask": place([row])}, {}).compile()
    found = collectives(program)
    assert found.keys() == {("all-reduce", True), ("all-gather", True)}
    assert total(found, "all-gather") == KERNEL
    assert total(found, "all-reduce") <= SCALARS


def test_memory_of_a_device_falls():
    """Of the state by what is divided of it: kernel, momentum and average; and of activations by their rows."""
    by_data, by_both = (compiled(mesh, RECIPES["parts"])[0].memory_analysis() for mesh in ("data=8", "data=2, fsdp=4"))
    saved = by_data.argument_size_in_bytes - by_both.argument_size_in_bytes
    assert saved == pytest.approx(3 * KERNEL * 3 / 4, rel=1e-3)
    large = recipe(model=TinyNet(), batch_size=4096)
    one, eight = (compiled(mesh, large)[0].memory_analysis() for mesh in ("data=1", "data=8"))
    assert eight.temp_size_in_bytes < one.temp_size_in_bytes / 4


def test_a_large_kernel_is_divided_with_all_that_is_kept_of_it():
    chosen = recipe(model=Wide(), optimizer=AdamW(), averaging=(EMA(),))
    state = Engine(chosen, TRAIN, (0,), Execution(mesh="data=2, fsdp=4"), None, None).init()
    divided = {
        jax.tree_util.keystr(path): leaf.addressable_shards[0].data.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
        if not leaf.is_fully_replicated
    }
    assert len(divided) == 4, divided  # itself, two moments, the average
    assert all("wide" in path and "kernel" in path and shape == (144, 128) for path, shape in divided.items())
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(state))


def test_a_checkpoint_moves_between_meshes(tmp_path):
    """Every number of it, bit for bit, to where the next engine wants it."""
    engine, _ = engine_of(RECIPES["parts"], "data=2, fsdp=4")
    state, _ = engine.train_steps(engine.init(), 0, 1)
    with contextlib.closing(Checkpoints(tmp_path, "a run")) as checkpoints:
        checkpoints.save(1, state, {})
    with contextlib.closing(Checkpoints(tmp_path, "a run", read_only=True)) as checkpoints:
        for other in ("data=8", "data=1"):
            like = engine_of(RECIPES["parts"], other)[0].init()
            restored, _ = checkpoints.restore(like)
            assert_same_bits(jax.device_get(restored), jax.device_get(state))
            assert jax.tree.map(lambda a: a.sharding, restored) == jax.tree.map(lambda a: a.sharding, like)


def layout(mesh=None, count=1, **changes):
    return choose_layout(recipe(**changes), Execution(mesh=mesh), SHAPE, count)


def test_by_default_batches_are_divided_over_as_many_devices_as_divide_them():
    sizes = {batch: layout(batch_size=batch).mesh.size for batch in (32, 28, 60)}
    assert sizes == {32: 8, 28: 7, 60: 6}
    sizes = {rows: layout(model=Normed(), batch_size=28, norm_batch=rows).mesh.size for rows in (4, 14, 28)}
    assert sizes == {4: 7, 14: 4, 28: 7}
    assert type(layout(batch_size=11)) is type(layout(mesh="data=1")) is Layout
    assert type(layout(count=3)) is Replicas
    assert type(layout(mesh=" fsdp = 2,data=2 ")) is Division
    assert layout(mesh="data=2, fsdp=2").where == "4 cpu devices (data=2, fsdp=2)"
    with jax.default_device(jax.devices()[3]):
        assert type(layout()) is Layout


@pytest.mark.parametrize(
    ("mesh", "count", "changes", "message"),
    [
        ("data=2", 1, {"selection": (Hardest(keep=8),)}, r"expected data=1 with a selection, .* got 'data=2'"),
        ("data=16", 1, {}, r"expected no more devices than the 8 .*, got 'data=16' \(JAX_NUM_CPU_DEVICES=16 .*\)"),
        ("data=2", 3, {}, r"expected none with 3 seeds, which are spread over the devices, got 'data=2'"),
        ("data=5", 1, {}, r"expected a number of devices that divides the batch_size, 32, got 'data=5'"),
        (
            "data=3", 1, {"model": Normed(), "batch_size": 24, "norm_batch": 6},
            r"expected .* batch_size, 24, each with whole groups of 6 rows or equal parts of one, got 'data=3'",
        ),
    ],
)  # fmt: skip
def test_a_mesh_that_cannot_be_is_refused(mesh, count, changes, message):
    with pytest.raises(InputError, match=f"^mesh: {message}$"):
        layout(mesh, count, **changes)


def test_what_joins_examples_is_seen():
    assert what_joins(models.LeNet5(), (32, 32, 1)) == "nothing"
    found = {type(m).__name__: what_joins(m, SHAPE) for m in (Wide(), Normed(), Dropped(), Centred())}
    assert found == {"Wide": "nothing", "Normed": "norms", "Dropped": "anything", "Centred": "anything"}


def test_rows_that_share_statistics_stay_together():
    batch = recipe(batch_size=64, accumulate=4)
    assert divide(batch, 8, "nothing") == Share(parts=4)
    assert divide(batch, 2, "norms") == Share(parts=2)  # two groups of 16 a device
    assert divide(batch, 4, "norms") == Share()
    assert divide(batch, 8, "norms") == Share(together=2)
    small = dataclasses.replace(batch, norm_batch=4)
    assert [divide(small, n, "norms") for n in (2, 4)] == [Share(parts=4), Share(parts=4)]
    assert divide(small, 8, "norms") == Share(parts=2)
    assert divide(small, 32, "norms") == Share(together=2)
    assert divide(batch, 3, "norms") is None
    assert divide(batch, 4, "anything") == Share(alone=False)


def test_streamed_batches_are_divided_as_resident_ones():
    """The same bits; what is made of them in several processes is held against one device in `tests.test_hosts`."""
    chosen, taken = make_recipe(augment=(augment.Flip(),)), []
    for feed in ("resident", "streamed"):
        engine = Engine(chosen, TRAIN, (0,), Execution(mesh="data=2, fsdp=2", feed=feed), None, TEST)
        taken.append(engine._feed.take(engine._feed.chunk(1, 2, 2), 1))
        engine.close()
    assert_same_bits(jax.device_get(taken[1]), jax.device_get(taken[0]))
    image = taken[1]["image"]
    assert image.sharding.shard_shape(image.shape) == (chosen.batch_size // 4, *SHAPE)
