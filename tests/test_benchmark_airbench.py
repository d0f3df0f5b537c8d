"""PyTorch's airbench94-muon and ours take the same steps, and its own run learns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.benchmark import airbench
from cnn_jax.benchmark.timing import CHANNELS_LAST, COMPILED, CONTIGUOUS, OURS
from cnn_jax.benchmark.yardstick import Yardstick
from cnn_jax.training import Whiten, normed_muon
from tests import quick

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
from cnn_jax.benchmark import airbench_torch, torch_networks  # noqa: E402

FEATURES = (8, 12, 16)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_contenders_are_found_to_agree(precision):
    yardstick = Yardstick(torch=None, compile="not here", onednn=False)
    field = airbench.build_airbench("airbench", precision, yardstick, batch=64, features=FEATURES)
    assert [contender.name for contender in field.contenders] == [OURS, CONTIGUOUS, CHANNELS_LAST]
    assert field.skipped == {COMPILED: "not here"}


def test_parameters_are_the_same_after_each_step(monkeypatch):
    """To rounding that training passes on, as shares of what a step moves; Muon in float32 on both sides."""
    monkeypatch.setattr(normed_muon, "_HALF", jnp.float32)
    monkeypatch.setattr(airbench_torch, "HALF", torch.float32)
    # Of flat colours some maps would be nearly constant, and float32's own gradients off by a hundredth.
    images, labels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8), np.arange(64) % 10
    functions = airbench.make_step(images, "float32", features=FEATURES)
    step, begun = quick.jit(functions.train_step), quick.jit(functions.init)(jax.random.key(0), images)
    state, module = begun, torch_networks.CifarNet(scale=1 / 256, features=FEATURES)
    torch_networks.load(module, jax.tree.map(np.asarray, begun.params))
    racer = airbench_torch.Racer(module, airbench.STEPS, "contiguous", "float32")
    pixels = torch.tensor(np.asarray(functions.preprocess(images))).permute(0, 3, 1, 2)
    for k in range(4):
        before = dict(torch_networks.flatten(state.params))
        state, _ = step(state, {"image": images, "label": labels})
        racer.step(racer.to_device(pixels), torch.tensor(labels).long())
        for path, found in torch_networks.flatten(state.params):
            axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(found.ndim, (0,))
            expected = torch_networks._parameter(racer.module, path).detach().permute(axes).numpy()
            moved = np.linalg.norm(found - before[path])
            assert np.linalg.norm(found - expected) <= (1e-4, 1e-3, 5e-3, 2e-2)[k] * moved, path


def test_whitening_is_ours():
    images = airbench.make_batch(20)[0] / np.float32(255) - 0.5
    theirs = airbench_torch.whitening(torch.tensor(images).permute(0, 3, 1, 2)).permute(2, 3, 1, 0).numpy()
    ours = quick.jit(Whiten())({"whiten": {"kernel": jnp.zeros((2, 2, 3, 24))}}, images)["whiten"]["kernel"]
    signs = np.sign((theirs * ours).sum((0, 1, 2)))
    np.testing.assert_allclose(ours, theirs * signs, rtol=1e-2, atol=1e-2)


def test_images_are_mirrored_in_turns_and_moved_within_their_reflection():
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    mirrored = torch.tensor([True, False])
    for epoch in range(2):
        for image, shown, is_mirrored in zip(
            images, airbench_torch.augmented(images, mirrored, epoch), mirrored ^ (epoch == 1), strict=True
        ):
            padded = np.pad((image.flip(2) if is_mirrored else image).numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
            windows = [padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
            assert sum(np.array_equal(shown, window) for window in windows) == 1


def test_a_short_run_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(airbench_torch, "BATCH", 40)
    monkeypatch.setattr(
        airbench_torch, "CifarNet", lambda scale: torch_networks.CifarNet(features=FEATURES, scale=scale)
    )
    for split in ("train", "test"):
        images, labels = airbench.make_batch(240)
        np.save(tmp_path / f"{split}-images.npy", images)
        np.save(tmp_path / f"{split}-labels.npy", labels)
    course = []
    trained = airbench_torch.train(tmp_path, "channels-last", "float32", epochs=4, seeds=(0, 0), course=course)
    found, seconds = next(trained)
    assert found > 0.5
    assert [accuracy for _, accuracy in course][-1] == found
    after = [0.0, *(seconds for seconds, _ in course), seconds]
    assert len(after) == 6
    assert after == sorted(set(after))
    assert next(trained)[0] == found  # the same seed once more, with nothing left of the first
