"""ResNet-50 on 8, 64 and 512 chips of a TPU v5p, by compiling for them: `python -m cnn_jax.benchmark --only scale`."""

from __future__ import annotations

import time
from typing import Any

from cnn_jax import models, terminal
from cnn_jax.benchmark.chips import Setting, compile_train, sent
from cnn_jax.runs.execution import MeshShape
from cnn_jax.training import SGD, Constant, Recipe

# A v5p as Google's documentation has it: multiplications and additions a second in bfloat16, bytes a second of its
# memory, and bits a second of all its links together, of which half are taken to go each way.
_PEAK, _MEMORY, _LINKS = 459e12, 2765e9, 4800e9 / 8 / 2
ROWS = 128  # images a chip
_MESHES = (
    ("2x2x2", MeshShape(data=8)),
    ("4x4x4", MeshShape(data=64)),
    ("8x8x8", MeshShape(data=512)),
    ("2x2x2", MeshShape(data=4, fsdp=2)),
)
ASSUMED = (
    "A step takes as long as its longer part, of multiplying at the peak of 459 TFLOP/s and of moving its bytes at "
    "2.77 TB/s, both as the compiler counts them, and then what is sent between chips, at 300 GB/s, with nothing done "
    "meanwhile. Efficiency is against a chip that sends nothing; of the peak, the compiler's operations a second. No "
    "chip was there: real steps take longer."
)


def setting(topology: str, shape: MeshShape) -> Setting:
    """ResNet-50 at 224x224 in bfloat16, 128 images a chip with norms over these, and a million images, streamed."""
    recipe = Recipe(
        model=models.with_classes(models.build("resnet50"), 1000),
        optimizer=SGD(0.1, momentum=0.9, nesterov=True),
        schedule=Constant(),
        precision="bfloat16",
        batch_size=ROWS * shape.size,
        norm_batch=ROWS,
        epochs=1,
    )
    return Setting(
        recipe=recipe, shape=shape, topology=topology, image_shape=(224, 224, 3), classes=1000, images=1_281_167
    )


def show() -> None:
    """Compiles, minutes, and prints the table.

    Raises:
        InputError: TPU's compiler is not installed.
    """
    rows = []
    for topology, shape in _MESHES:
        began = time.monotonic()
        rows.append(row(shape, compile_train(setting(topology, shape), streamed=True, steps=1)))
        terminal.complain(f"{' | '.join(rows[-1])} | compiled in {time.monotonic() - began:.0f} s")
    head = (
        "ResNet-50, 224x224, bfloat16, chips of a v5p", "memory a chip", "operations a step", "bytes moved",
        "bytes sent", "step", "images/s", "of the peak", "efficiency",
    )  # fmt: skip
    terminal.show_table(head, rows)
    terminal.say(ASSUMED)


def row(shape: MeshShape, compiled: Any) -> tuple[str, ...]:
    """A row of the table: what a chip holds, does and sends in a step, and how long that takes at the least."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    held -= memory.alias_size_in_bytes
    moved = sent(compiled)
    alone = max(cost["flops"] / _PEAK, cost["bytes accessed"] / _MEMORY)
    step = alone + seconds_to_send(moved, shape.size)
    return (
        str(shape), f"{held / 1e9:.2f} GB", f"{cost['flops'] / 1e12:.2f} T", f"{cost['bytes accessed'] / 1e9:.1f} GB",
        f"{sum(moved.values()) / 1e6:.1f} MB", f"{1e3 * step:.1f} ms", f"{ROWS * shape.size / step:,.0f}",
        f"{cost['flops'] / step / _PEAK:.0%}", f"{alone / step:.1%}",
    )  # fmt: skip


def seconds_to_send(moved: dict[str, int], chips: int) -> float:
    """The least that collectives over rings of all chips take: of n chips each sends (n - 1) / n of what is to be known
    to all, and twice that to add it up."""
    passes = sum((2 if name == "all-reduce" else 1) * number for name, number in moved.items())
    return passes * (chips - 1) / chips / _LINKS
