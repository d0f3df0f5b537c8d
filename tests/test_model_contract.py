"""What is asked of a model of one's own: how it is called, and how many scores it gives."""

from __future__ import annotations

import flax.linen as nn
import numpy as np
import pytest

from cnn_jax import data, runs, training
from cnn_jax.errors import InputError


class Seven(nn.Module):
    """Seven scores, whatever is asked for."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(7)(images.reshape(len(images), -1))


class Places(nn.Module):
    """A score a place."""

    @nn.compact
    def __call__(self, images, **options):
        return nn.Conv(3, (3, 3))(images)


class Plain(nn.Module):
    """Not told whether it is trained."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(3)(images.reshape(len(images), -1))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Seven(), r"Seven: expected scores \(N, 3\), .* got \(12, 7\)"),
        (Places(), r"Places: expected scores \(N, 3\), .* got \(12, 8, 8, 3\)"),
        (Plain(), r"Plain: expected a model that is called as model\(images, train=...\)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_a_line(model, said):
    images = np.zeros((12, 8, 8, 1), np.uint8)
    train = data.make_datasets("noise", ("a", "b", "c"), {"train": (images, np.arange(12) % 3)})["train"]
    with pytest.raises(InputError, match=said) as refusal:
        runs.fit(training.Recipe(model=model, batch_size=12), train)
    assert "\n" not in str(refusal.value)
