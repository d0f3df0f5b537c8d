"""What each of several processes does for `tests.test_hosts`: trains runs with the others, and writes down how it went.

Arguments: a port, the number of processes, which this one is, and a folder, in which `stopped` is a run to go on with
and `set.npz` the images for another. The last process is killed in the end.
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
from cnn_jax.data.arrays import Arrays
from cnn_jax.data.encoded import Encoded
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import ConvNet
from cnn_jax.runs import Place, fit, hosts
from cnn_jax.runs import engine as engines
from cnn_jax.runs.digests import digest_arrays
from cnn_jax.runs.engine import Engine
from cnn_jax.runs.joint_folder import open_together
from cnn_jax.runs.loop import Loop
from cnn_jax.runs.placing import gathered, whole
from cnn_jax.training import EMA, SGD, Constant
from tests.drawers import Drawers
from tests.tiny import Wide, make_dataset, make_execution, make_recipe

TRAIN, TEST = make_dataset(64), make_dataset(30, seed=1, split="test")
LARGE = 16  # images in a batch of an evaluation, so that each process has some of them


class Normed(nn.Module):
    """With statistics of batches, which several processes share."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Noted(Drawers):
    """Notes which of its images are read."""

    def __init__(self, images):
        super().__init__(images)
        self.read = []

    def __getitem__(self, index):
        self.read.append(int(index))
        return super().__getitem__(index)


recipe = functools.partial(
    make_recipe, epochs=2, batch_size=8, optimizer=SGD(0.05, momentum=0.9), schedule=Constant(), averaging=(EMA(0.9),)
)
STREAMED = recipe(model=Normed(), validation=0.125, augment=(Flip(),))
DIVIDED = recipe(model=Wide())


def encoded(dataset, drawers):
    return dataclasses.replace(dataset, images=Encoded(drawers))


def open_folder(path, resume=False):
    contents = {"recipe": {"model": "tiny()"}, "data": {"name": "bars"}, "seeds": [0]}
    return open_together(lambda: path, contents, resume=resume)


def run(folder, out, resume=False):
    """A run from its configuration to the end, whatever that may be."""
    experiment = Experiment(
        recipe=recipe(model=ConvNet(filters=(2,)), epochs=3), data=Arrays(str(folder / "set.npz")),
        execution=make_execution(steps_per_call=1), place=Place(out=folder / out, resume=resume, report=False),
    )  # fmt: skip
    return run_experiment(experiment, "hosts")


def signal_after(step, number):
    """Sends a signal to this process once that many steps have been taken."""
    plain, sent = Loop._take_steps, []

    def take_steps(self, *arguments):
        if self.step >= step and not sent:
            sent.append(os.kill(os.getpid(), number))
        return plain(self, *arguments)

    Loop._take_steps = take_steps


def described(result):
    """Figures, and digests of the state, which say nothing of where it lies."""
    evaluations = {name: found[0].values() for name, found in result.evaluations.items()}
    return {"evaluations": evaluations, "digests": digest_arrays(gathered(result.state))}


def variables_of(result):
    """Whole, by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(gathered(result.variables()))[0]
    return {jax.tree_util.keystr(path): whole(leaf) for path, leaf in leaves}


def batches(feed):
    """What two steps in the middle learn from, whole: images, labels, indices and epochs."""
    train = encoded(TRAIN, Drawers(np.asarray(TRAIN.images))) if feed == "streamed" else TRAIN
    engine = Engine(STREAMED, train, (0,), make_execution(feed=feed), None, TEST)
    chunk = engine._feed.chunk(3, 2, 2)
    taken = [engine._feed.take(chunk, k) for k in range(2)]
    engine.close()
    return engine.fetch(taken)


def main(port, count, index, folder):
    hosts.HEARTBEAT = 10
    hosts.join(f"localhost:{port}", count, index)
    assert jax.device_count() == 2 * count
    engines.EVAL_BATCH = LARGE
    says, results = {}, {}

    # A run that one process had begun goes on, with images that each process reads for itself.
    train, test = (Noted(np.asarray(split.images)) for split in (TRAIN, TEST))
    with contextlib.closing(open_folder(folder / "stopped", resume=True)) as opened:
        results["stopped"] = fit(
            STREAMED, encoded(TRAIN, train), test=encoded(TEST, test), folder=opened,
            execution=make_execution(steps_per_call=1, feed="streamed"),
        )  # fmt: skip
    says["read"] = test.read
    # Another has a kernel that is divided over the processes.
    with contextlib.closing(open_folder(folder / "divided")) as opened:
        results["divided"] = fit(
            DIVIDED, TRAIN, test=TEST, execution=make_execution(steps_per_call=1, mesh="fsdp=4"), folder=opened
        )
    for name, result in results.items():
        says[name] = described(result)
        np.savez(folder / f"{name}-{index}.npz", **variables_of(result))
    for feed in ("resident", "streamed"):
        arrays = {f"{k}{name}": array for k, batch in enumerate(batches(feed)) for name, array in batch.items()}
        np.savez(folder / f"batches-{feed}-{index}.npz", **arrays)

    # A run that is stopped in any process stops in all; and it can go on.
    plain, hosts.leave = hosts.leave, lambda: None  # there is another run in these processes
    hosts.join = lambda *options, **others: None
    is_last = index == count - 1
    if is_last:
        signal_after(5, signal.SIGTERM)
    try:
        run(folder, "killed")
    except SystemExit as stop:
        says["code"] = stop.code
    (folder / f"said-{index}.json").write_text(json.dumps(says))
    if is_last:
        signal_after(14, signal.SIGKILL)
    hosts.leave, hosts._found, hosts._STOP = plain, None, "cnn_jax_stop_again/"
    run(folder, "killed", resume=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
