"""Runs whose checkpoints hold known arrays, and what can happen to them on disk."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax.models import MLP
from cnn_jax.runs.checkpoints import Checkpoints
from cnn_jax.runs.folder import RunFolder
from cnn_jax.runs.progress import Progress, to_json
from cnn_jax.runs.texts import to_json as texts_of
from cnn_jax.training import Recipe, TrainState, create_state

STEPS, NEWEST, BEST = (10, 20, 30), 30, 20
RECIPE = Recipe(model=MLP(features=(3,), num_classes=3))
DATA = {
    "name": "digits",
    "images": 61,
    "image_shape": [32, 32, 1],
    "class_names": ["left", "right", "top"],
    "statistics": {"mean": [0.3], "std": [0.25], "ink": None},
}


class Saved(NamedTuple):
    """A run on disk, and its state and progress by kind and step, as they were handed over."""

    path: Path
    states: dict[tuple[str, int], TrainState]
    progress: dict[tuple[str, int], dict[str, Any]]


@functools.cache
def initial() -> TrainState:
    """The state that `load_run` expects of `RECIPE`."""
    return create_state(RECIPE.model, RECIPE.optimizer(lambda count: 0.0), (32, 32, 1), 0)


def make_run(path: Path, seed: int, with_best: bool) -> Saved:
    """Saves states of random numbers as a run of the steps `STEPS` would."""
    contents = {"recipe": texts_of(RECIPE), "data": DATA, "seeds": [seed], "source": 'tfds("digits")'}
    folder = RunFolder(path, contents)
    folder.close()
    checkpoints = Checkpoints(path, folder.run, keep=len(STEPS))
    saved = Saved(path, {}, {})
    for kind, step in [*([("best", BEST)] if with_best else []), *(("checkpoints", step) for step in STEPS)]:
        draw = np.random.default_rng([seed, step, kind == "best"])

        def fill(leaf, draw=draw, step=step):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.key(step)
            random = draw.normal(size=leaf.shape) if leaf.dtype == np.float32 else step
            return jax.numpy.full(leaf.shape, random, leaf.dtype)

        state = jax.tree.map(fill, initial())
        sums = {"loss": float(draw.normal()), "accuracy": 1.5}
        best = [0.9, -0.1] if with_best else []
        progress = to_json([Progress(steps=step, sums=sums, best=best, seconds=2.0)])
        saved.states[kind, step], saved.progress[kind, step] = state, progress
        checkpoints.save(step, state, progress, best=kind == "best")
    checkpoints.close()
    records = [json.dumps({"split": "train", "step": step, "loss": 1.0, "accuracy": 0.5}) for step in STEPS]
    (path / "metrics.jsonl").write_text("\n".join(records) + "\n")
    return saved


class Place(NamedTuple):
    """Where damage is done: a copy of a run, and another run as it was saved."""

    path: Path
    other: Path
    draw: random.Random

    def step(self) -> Path:
        """The checkpoint that would be read, or now and then another."""
        kinds = [kind for kind in ("checkpoints", "best") if list((self.path / kind).iterdir())]
        kind = self.draw.choice(kinds)
        steps = sorted((self.path / kind).iterdir(), key=lambda step: int(step.name))
        return steps[-1] if self.draw.random() < 0.8 else self.draw.choice(steps)

    def file(self, part: str = "") -> Path:
        """A file of a checkpoint with something in it."""
        step = self.step()
        files = [file for file in sorted(step.rglob("*")) if file.is_file() and part in str(file.relative_to(step))]
        return self.draw.choice([file for file in files if file.stat().st_size] or files)

    def another(self, step: Path) -> Path:
        """Another checkpoint of the same run."""
        found = [other for kind in ("checkpoints", "best") for other in (self.path / kind).iterdir() if other != step]
        return self.draw.choice(sorted(found))


def change(file: Path, edit: Callable[[bytearray], None]) -> None:
    """Edits the bytes of a file."""
    content = bytearray(file.read_bytes())
    edit(content)
    file.write_bytes(content)


def flip(file: Path, draw: random.Random) -> None:
    """Flips one bit."""

    def edit(content: bytearray) -> None:
        bit = draw.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8

    change(file, edit)


def overwrite(file: Path, draw: random.Random, filling: Callable[[int], bytes]) -> None:
    """Overwrites a run of bytes."""
    size = file.stat().st_size
    start = draw.randrange(size)
    length = min(draw.choice([1, 16, 512, 4096]), size - start)

    def edit(content: bytearray) -> None:
        content[start : start + length] = filling(length)

    change(file, edit)


def exchange(one: Path, two: Path) -> None:
    """Two files or folders change places."""
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def replace(target: Path, source: Path) -> None:
    """Puts a copy in the place of a file or folder."""
    delete(target)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def delete(target: Path) -> None:
    shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()


def edit_json(file: Path, edit: Callable[[Any], Any]) -> None:
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))


def foreign(place: Place, change_leaf: Callable[[Any], Any]) -> None:
    """Another state under the run's own digests, written by Orbax alone."""
    import orbax.checkpoint as ocp

    state = jax.tree.map(lambda leaf: change_leaf(leaf) if leaf.dtype == np.float32 else leaf, initial())
    target = place.step() / "state"
    delete(target)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target, state)


def same_name(place: Place, one: Path) -> Path:
    """The file of another checkpoint that belongs where this one does; where there is none, any of its files."""
    step = next(parent for parent in one.parents if parent.parent.name in ("checkpoints", "best"))
    other = place.another(step)
    twin = other / one.relative_to(step)
    return twin if twin.is_file() else place.draw.choice([f for f in sorted(other.rglob("*")) if f.is_file()])


def link_to(target: Path, to: Path) -> None:
    delete(target)
    target.symlink_to(to)


def shift(values: dict[str, Any]) -> None:
    values["seeds"][0]["sums"]["loss"] += 1e-9


KINDS: dict[str, Callable[[Place], Any]] = {
    "flip a bit of an array": lambda p: flip(p.file("/d/"), p.draw),
    "flip a bit of any file": lambda p: flip(p.file(), p.draw),
    "flip a bit of metadata": lambda p: flip(p.file(p.draw.choice(["_METADATA", "manifest", "_sharding"])), p.draw),
    "flip a bit of the progress or the digests": lambda p: flip(p.file(p.draw.choice(["progress", "digests"])), p.draw),
    "flip a bit of config.json": lambda p: flip(p.path / "config.json", p.draw),
    "zero bytes": lambda p: overwrite(p.file("/d/"), p.draw, bytes),
    "zero a file": lambda p: change(p.file(), lambda content: content.__setitem__(slice(None), bytes(len(content)))),
    "overwrite with noise": lambda p: overwrite(p.file(), p.draw, p.draw.randbytes),
    "truncate a file": lambda p: os.truncate(file := p.file(), p.draw.randrange(file.stat().st_size)),
    "empty a file": lambda p: os.truncate(p.file(), 0),
    "append to a file": lambda p: change(p.file(), lambda content: content.extend(p.draw.randbytes(9))),
    "delete a file": lambda p: p.file().unlink(),
    "delete an item": lambda p: shutil.rmtree(p.step() / p.draw.choice(["state", "progress", "digests"])),
    "delete a checkpoint": lambda p: shutil.rmtree(p.step()),
    "exchange files of checkpoints": lambda p: exchange(one := p.file(), same_name(p, one)),
    "exchange states of checkpoints": lambda p: exchange((one := p.step()) / "state", p.another(one) / "state"),
    "exchange progress of checkpoints": lambda p: exchange((one := p.step()) / "progress", p.another(one) / "progress"),
    "exchange checkpoints": lambda p: exchange(one := p.step(), p.another(one)),
    "a checkpoint of another run": lambda p: replace(one := p.step(), p.other / one.relative_to(p.path)),
    "a state of another run": lambda p: replace(one := p.step() / "state", p.other / one.relative_to(p.path)),
    "config.json of another run": lambda p: replace(p.path / "config.json", p.other / "config.json"),
    "a checkpoint under another step": lambda p: (one := p.step()).rename(one.with_name(str(p.draw.randrange(31, 99)))),
    "a checkpoint renamed": lambda p: (one := p.step()).rename(one.with_name(p.draw.choice(["x", "30a", "-1", "old"]))),
    "a copy of another checkpoint": lambda p: replace(one := p.step(), p.another(one)),
    "a file for a checkpoint": lambda p: (delete(one := p.step()), one.write_bytes(b"x")),
    "a link for a checkpoint": lambda p: link_to(one := p.step(), p.draw.choice([p.another(one), Path("nowhere")])),
    "a folder for a file": lambda p: (delete(one := p.file()), one.mkdir()),
    "a file for a folder": lambda p: (delete(one := p.step() / p.draw.choice(["state", "progress"])), one.touch()),
    "values of the progress changed": lambda p: edit_json(p.file("progress/metadata"), shift),
    "values of config.json changed": lambda p: edit_json(
        p.path / "config.json", lambda v: v["data"]["statistics"].update(mean=[0.30001])
    ),
    "the identity removed": lambda p: edit_json(p.path / "config.json", lambda v: (v.pop("run"), v.pop("digest"))),
    "other shapes": lambda p: foreign(p, lambda leaf: jax.numpy.zeros((*leaf.shape, 2))),
    "other dtypes": lambda p: foreign(p, lambda leaf: leaf.astype(p.draw.choice(["bfloat16", "float16", "int32"]))),
    "other values": lambda p: foreign(p, lambda leaf: leaf + 1),
    "a folder for the records": lambda p: (delete(one := p.path / "metrics.jsonl"), one.mkdir()),
    "not permitted": lambda p: p.file().chmod(0),
}
