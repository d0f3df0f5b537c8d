"""What each of several processes does for `tests.test_hosts`: trains runs with the others, and writes down how it went.

Arguments: a port, the number of processes, which this one is, and a folder, in which `stopped` is a run to go on with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from cnn_jax.augment import Flip
from cnn_jax.data.encoded import Encoded
from cnn_jax.runs import engine as engines
from cnn_jax.runs import fit, hosts
from cnn_jax.runs.digests import digest_arrays
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.joint_folder import open_together
from cnn_jax.runs.loop import Loop
from cnn_jax.runs.placing import gathered, whole
from cnn_jax.training import EMA, SGD, Constant
from tests.drawers import Drawers
from tests.tiny import Wide, make_dataset, make_execution, make_recipe

TRAIN, TEST = make_dataset(64), make_dataset(30, seed=1, split="test")


class Normed(nn.Module):
    """With statistics of batches, which several processes share."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


recipe = functools.partial(
    make_recipe, epochs=2, batch_size=8, optimizer=SGD(0.05, momentum=0.9), schedule=Constant(), averaging=(EMA(0.9),)
)
RUNS = {  # the recipe, and how several processes train it
    "streamed": (recipe(validation=0.125, augment=(Flip(),)), {"feed": "streamed"}),
    "divided": (recipe(model=Wide()), {"mesh": "fsdp=4"}),
}


def encoded(dataset):
    return dataclasses.replace(dataset, images=Encoded(Drawers(np.asarray(dataset.images))))


def open_folder(path, recipe, resume=False):
    contents = {"recipe": {"model": "tiny()"}, "data": {"name": "bars"}, "seeds": [0]}
    return open_together(lambda: path, contents, resume=resume)


def signal_after(step, number):
    """Sends a signal to this process once that many steps have been taken."""
    plain, sent = Loop._take_steps, []

    def take_steps(self, *arguments):
        if self.step >= step and not sent:
            sent.append(os.kill(os.getpid(), number))
        return plain(self, *arguments)

    Loop._take_steps = take_steps


def train(recipe, execution, path, resume=False, feed="resident"):
    splits = [encoded(split) if feed == "streamed" else split for split in (TRAIN, TEST)]
    with contextlib.closing(open_folder(path, recipe, resume)) as folder:
        return fit(recipe, splits[0], test=splits[1], execution=execution, folder=folder)


def described(result):
    """Figures, and digests of the state, which say nothing of where it lies."""
    evaluations = {name: found[0].values() for name, found in result.evaluations.items()}
    return {"evaluations": evaluations, "digests": digest_arrays(gathered(result.state))}


def batches(feed):
    """What two steps in the middle learn from, whole: images, labels, indices and epochs."""
    execution = make_execution(feed=feed)
    engine = Engine(RUNS["streamed"][0], encoded(TRAIN), (0,), execution, None, TEST)
    chunk = engine._feed.chunk(3, 2, 2)
    taken = [engine._feed.take(chunk, k) for k in range(2)]
    engine.close()
    return engine.fetch(taken)


def main(port, count, index, folder):
    hosts.join(f"localhost:{port}", count, index)
    assert jax.device_count() == 2 * count
    says = {}
    read = []
    for name, (chosen, options) in RUNS.items():
        execution = make_execution(steps_per_call=1, **options)
        result = train(chosen, execution, folder / name, feed=options.get("feed", "resident"))
        says[name] = described(result)
        if hosts.is_first():
            variables = jax.tree.map(whole, gathered(result.variables()))
        else:
            gathered(result.variables())
        if hosts.is_first():
            leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
            np.savez(folder / f"{name}.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})
    for feed in ("resident", "streamed"):
        found = batches(feed)
        np.savez(
            folder / f"batches-{feed}-{index}.npz", **{f"{k}{n}": a for k, b in enumerate(found) for n, a in b.items()}
        )

    # Each image is read once by one of the processes.
    engines.EVAL_BATCH = 16
    plain = Drawers.__getitem__
    Drawers.__getitem__ = lambda self, k: (read.append(int(k)), plain(self, k))[1]
    engine = Engine(recipe(), TRAIN, (0,), make_execution(feed="streamed"), None, encoded(TEST))
    says["score"] = engine.evaluate(engine.init(), "test")[0].scores.tolist()
    says["read"] = read

    # A run that one process had begun goes on here; and one that is stopped in any process stops in all.
    says["resumed"] = described(train(recipe(), make_execution(steps_per_call=1), folder / "stopped", resume=True))
    if index == count - 1:
        signal_after(5, signal.SIGTERM)
    says["interrupted"] = train(
        recipe(model=Normed()), make_execution(steps_per_call=1), folder / "signalled"
    ).interrupted
    hosts.leave()
    (folder / f"said-{index}.json").write_text(json.dumps(says))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
