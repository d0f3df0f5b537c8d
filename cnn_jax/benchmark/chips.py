"""Programs of runs for TPUs that are not there, compiled by TPU's own compiler, and what those do.

It comes with `pip install 'jax[tpu]'` and needs no chip. Run with JAX_PLATFORMS=cpu, or JAX looks for one.
"""

from __future__ import annotations

import collections
import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax import data
from cnn_jax.data.feed import Resident
from cnn_jax.data.streamed import Streamed
from cnn_jax.errors import InputError
from cnn_jax.runs.execution import MeshShape
from cnn_jax.runs.mesh import AXES, FSDP, Division, Share, divide, shardings, what_joins
from cnn_jax.training.recipe import Functions, Recipe, make_functions
from cnn_jax.training.step import make_train_steps

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f32": 4, "s32": 4, "u32": 4}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A recipe on a mesh of chips and the data that it learns from.

    Attributes:
      recipe: what is trained.
      shape: of the mesh; that of one chip divides nothing.
      kind: of the chips, "v5e", "v5p" or "v6e".
      topology: how many there are in each dimension, as "2x2x2"; their product is that of the mesh.
      image_shape: (height, width, channels) of one image.
      classes: number of classes.
      images: number of training images.
    """

    recipe: Recipe
    shape: MeshShape
    kind: str = "v5p"
    topology: str = "2x2x1"
    image_shape: tuple[int, int, int] = (32, 32, 3)
    classes: int = 10
    images: int = 50_000

    def division(self) -> Division:
        """Where the run is trained.

        Raises:
            InputError: TPU's compiler is not installed, or the chips cannot divide a batch.
        """
        from jax.experimental import topologies

        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=f"{self.kind}:{self.topology}")
        except Exception as error:  # of whatever kind the plugin's is
            raise InputError(
                f"TPU's compiler: expected it for {self.kind}:{self.topology}; pip install 'jax[tpu]', and set "
                f"JAX_PLATFORMS=cpu ({str(error).splitlines()[0]})"
            ) from None
        share: Share | None = Share(alone=False)  # XLA has nothing to divide for one chip
        if self.shape.size > 1:
            share = divide(self.recipe, self.shape.size, what_joins(self.recipe.model, self.image_shape))
        if share is None:
            raise InputError(f"mesh: expected chips that divide batches of {self.recipe.batch_size}, got {self.shape}")
        return Division(self.shape, found.devices[: self.shape.size], share)

    def functions(self, division: Division) -> Functions:
        """Those of the recipe, as an engine makes them."""
        channels = self.image_shape[-1]
        statistics = data.Statistics(mean=(0.5,) * channels, std=(0.25,) * channels)
        total = self.recipe.count_steps(self.images)
        ends = self.recipe.epoch_ends(self.images) if self.recipe.averaging else ()
        return make_functions(
            self.recipe, statistics, self.image_shape, self.classes, total, ends, take_gradient=division.gradient
        )


def compile_train(setting: Setting, streamed: bool = False, steps: int = 2) -> Any:
    """The program of some train steps as an engine has it, with a resident or with a streamed feed."""
    division = setting.division()
    functions = setting.functions(division)
    feed: Any = Streamed if streamed else Resident
    order = jax.ShapeDtypeStruct((steps, setting.recipe.batch_size), jnp.int32)
    chosen: dict[str, Any] = {"index": order} | ({"epoch": order} if setting.recipe.augment else {})
    count = (steps, setting.recipe.batch_size) if streamed else (setting.images,)
    images = {
        "image": jax.ShapeDtypeStruct((*count, *setting.image_shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct(count, jnp.int32),
    }
    rows = PartitionSpec(None, AXES)
    chunk = ({}, _on(division, rows, images | chosen)) if streamed else (
        _on(division, PartitionSpec(), images), _on(division, rows, chosen),
    )  # fmt: skip
    taken = make_train_steps(division.divided(functions.train_step), feed.take, feed.length)
    return jax.jit(taken, donate_argnums=0).lower(_state(setting, division, functions), chunk, jnp.int32(1)).compile()


def compile_eval(setting: Setting, rows: int = 256) -> Any:
    """The program that measures a batch, of that many images or the next number that the chips divide."""
    division = setting.division()
    functions, rows = setting.functions(division), division.whole(rows)
    batch = {
        "image": jax.ShapeDtypeStruct((rows, *setting.image_shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }
    variables = _state(setting, division, functions).eval_variables
    eval_step = jax.jit(lambda variables, batch: functions.eval_step(division.gathered(variables), batch))
    return eval_step.lower(variables, _on(division, PartitionSpec(AXES), batch)).compile()


def _on(division: Division, spec: PartitionSpec, shapes: Any) -> Any:
    place = NamedSharding(division.mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)


def _state(setting: Setting, division: Division, functions: Functions) -> Any:
    first = jax.ShapeDtypeStruct((setting.recipe.first_images, *setting.image_shape), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(functions.init, key, first)
    places = shardings(division.mesh, state)
    return jax.tree.map(lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), state, places)


def state_of(setting: Setting) -> Any:
    """Shapes, dtypes and places of the arrays of a run's state."""
    division = setting.division()
    return _state(setting, division, setting.functions(division))


def parameter_bytes(state: Any, divided: bool = False) -> int:
    """Those of a state's parameters, in float32; or of those alone that are divided among chips."""
    leaves = [leaf for leaf in jax.tree.leaves(state.params) if not divided or FSDP in leaf.sharding.spec]
    return sum(4 * math.prod(leaf.shape) for leaf in leaves)


def sent(compiled: Any, scope: str = "") -> dict[str, int]:
    """Bytes that each kind of collective of a program gives a chip, by its name, as "all-reduce".

    Each is counted once, though it may stand in a loop. With a scope, such as "/model/", only those within it.
    """
    found: collections.Counter[str] = collections.Counter()
    chains = set()
    for line in compiled.as_text().splitlines():
        match = re.match(r"\s+(?:ROOT )?%?\S+ = (.*?) (all-[a-z-]+?|reduce-scatter|collective-\w+?)(-start)?\(", line)
        chain = re.search(r'chain_id="(\d+)"', line)
        if not match or scope not in line or (chain and chain[1] in chains):
            continue
        if chain:  # it is done beside other work, and stands in each of the pieces that this is cut into
            chains.add(chain[1])
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", match[1])
        if match[3] and match[2] != "all-reduce":  # what is begun gives its operands too, before its results
            arrays = [array for array in arrays if array != ("u32", "")]
            arrays = arrays[len(arrays) // 2 :]
        found[match[2]] += sum(
            _BYTES.get(dtype, 8) * math.prod(int(size) for size in shape.split(",") if size) for dtype, shape in arrays
        )
    return dict(found)
