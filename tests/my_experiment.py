"""Circles or squares: an experiment of which every part is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tyro.conf import arg

from cnn_jax import command, data
from cnn_jax.augment import ImageTransform
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.training import Loss, Metric, Optimizer, Recipe, Schedule


class Tiny(nn.Module):
    """Two convolutions and what they find at most anywhere."""

    width: int = 4
    num_classes: int = 2

    @nn.compact
    def __call__(self, images, train: bool = False):
        x = nn.relu(nn.Conv(self.width, (3, 3))(images))
        x = nn.relu(nn.Conv(2 * self.width, (5, 5), strides=2)(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.max(axis=(1, 2)))


@dataclass(frozen=True)
class Hinge(Loss):
    """How far the wrong classes are from a margin below the right one, squared."""

    margin: float = 1.0

    def __call__(self, scores, targets):
        right = jnp.sum(scores * targets, axis=-1, keepdims=True)
        return jnp.sum(jax.nn.relu(self.margin + scores - right) ** 2 * (1 - targets), axis=-1)


@dataclass(frozen=True)
class Sureness(Metric):
    """How far apart the two scores are."""

    def __call__(self, scores, targets):
        return jnp.max(scores, axis=-1) - jnp.min(scores, axis=-1)


@dataclass(frozen=True)
class Heavy(Optimizer):
    """The heavy ball."""

    mass: float = 0.9

    def __call__(self, schedule):
        return optax.sgd(schedule, momentum=self.mass)


@dataclass(frozen=True)
class Sawtooth(Schedule):
    """Down to nothing, several times."""

    teeth: int = 2

    def __call__(self, peak, steps):
        length = -(-steps // self.teeth)
        return lambda count: peak * (1 - (count % length) / length)


@dataclass(frozen=True)
class Noise(ImageTransform):
    """Normal noise, less and less of it."""

    deviation: float = 0.1

    def __call__(self, context, image):
        return image + self.deviation * (1 - context.progress) * jax.random.normal(context.key, image.shape)


@dataclass(frozen=True)
class Shapes(data.Source):
    """Circles and squares of any size, anywhere."""

    count: int = 600

    def __call__(self, split, image_size):
        splits = {name: self.draw(seed) for seed, name in enumerate(("train", "test"))}
        return data.make_datasets("shapes", ("circle", "square"), splits)[split]

    def draw(self, seed):
        """Images (N, 20, 20, 1) and labels."""
        draw = np.random.default_rng(seed)
        labels = draw.integers(0, 2, self.count)
        y, x, radius = (draw.integers(*ends, (self.count, 1, 1)) for ends in ((6, 14), (6, 14), (3, 6)))
        row, column = np.mgrid[:20, :20]
        far = np.hypot(row - y, column - x), np.maximum(abs(row - y), abs(column - x))
        return np.uint8(255 * (np.where(labels[:, None, None], far[1], far[0]) <= radius))[..., None], labels


@dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Circles or squares."""

    recipe: Annotated[Recipe, arg(name="")] = Recipe(
        model=Tiny(),
        loss=Hinge(),
        metrics=(Sureness(),),
        optimizer=Heavy(learning_rate=0.004),
        schedule=Sawtooth(),
        augment=(Noise(),),
        epochs=6,
        batch_size=20,
    )
    data: data.Source = Shapes()


def main(config: Config) -> None:
    run_experiment(config, "shapes")


if __name__ == "__main__":
    command.main(main, Config, description=__doc__)
