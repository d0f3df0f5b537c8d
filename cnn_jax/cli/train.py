"""`cnn-jax train`: any model on any data, without a script."""

from __future__ import annotations

from cnn_jax import models, parts
from cnn_jax.experiment import Experiment, run_experiment

DESCRIPTION = """Train any model on any images.

    cnn-jax train                                            LeNet-5 on the digits that come with scikit-learn
    cnn-jax train --model 'convnet(filters=(16, 32))' --data 'folder("photos")'
    cnn-jax train --model my_model.py:Tiny --data 'arrays("set.npz")' --augment 'crop(4) | flip()'
    cnn-jax train --data.name cifar10 --model resnet18 --dry-run

Parts are named by their constructor calls, and every field of the parts chosen is an option too."""


def train(config: Experiment) -> None:
    """Trains, prints how it went, and writes the report.

    Raises:
        InputError: as `run_experiment`.
    """
    name = parts.short_text(config.recipe.model, models.MODELS).partition("(")[0].rpartition(":")[2]
    run_experiment(config, name.lower())
