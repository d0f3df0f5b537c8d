"""`python -O`, which carries out no assert, of ours or of others', gives what Python gives."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.describe import describe
from cnn_jax.pictures import attribution
from tests.tiny import TinyNet

ROOT = Path(__file__).parent.parent
SCRIPT = """
import json, sys
from pathlib import Path
from cnn_jax import data, models, runs, training
from cnn_jax.describe import describe
from cnn_jax.experiment import Experiment, run_experiment

run, images = Path(sys.argv[1]), data.Arrays(sys.argv[2])
recipe = training.Recipe(model=models.MLP(features=(4,)), epochs=1, batch_size=16)
run_experiment(Experiment(recipe=recipe, data=images, place=runs.Place(out=run, report=False)), "mlp")
found = runs.load_run(run).evaluate(images("test", (8, 8)))
tables = [describe(models.build("mlp", features=(4,)), (8, 8, 1)).total.parameters for _ in range(2)]
print(json.dumps([__debug__, tables, found.count]))
"""


def test_the_package_under_o(tmp_path):
    """On arrays: no bytecode is kept of what -O imports, and the embedded digits would bring all of scikit-learn."""
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8), np.arange(40) % 10
    arrays = {f"{s}_{name}": a for s in ("train", "test") for name, a in (("images", images), ("labels", labels))}
    np.savez(tmp_path / "set.npz", **arrays)
    done = subprocess.run(
        [sys.executable, "-O", "-c", SCRIPT, tmp_path / "run", tmp_path / "set.npz"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parameters = (64 + 1) * 4 + (4 + 1) * 10
    assert json.loads(done.stdout.splitlines()[-1]) == [False, [parameters, parameters], 40]


def test_an_interceptor_that_flax_leaves_behind_is_taken_off(monkeypatch):
    """As under -O, where Flax's `assert stack.pop() is interceptor` does nothing."""
    model = TinyNet()
    image = jnp.asarray(np.random.default_rng(0).random((6, 6, 1), np.float32))
    variables = model.init(jax.random.key(0), image[None])
    stack = nn.module._global_interceptor_stack

    def measure():
        return describe(model, (6, 6, 1)).text(), attribution.layer_outputs(model, variables, image[None])[0]

    expected = measure()

    @contextlib.contextmanager
    def leave(interceptor):
        stack.push(interceptor)
        yield

    monkeypatch.setattr(nn, "intercept_methods", leave)
    for _ in range(2):
        table, heat = measure()
        assert table == expected[0]
        np.testing.assert_array_equal(heat, expected[1])
        assert len(stack) == 0
