"""What tests of augmentations share: contexts, images, and what the documented draws give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.augment import Context, apply
from tests import quick

ROWS, SHAPE = 24, (14, 10, 3)
chain = quick.jit(apply, static_argnums=(0, 4))


def contexts(rows, seed=0):
    return Context(
        key=jax.random.split(jax.random.key(seed), rows),
        run=jnp.broadcast_to(jax.random.key(99), rows),
        index=np.arange(rows, dtype=np.int32) * 7,
        epoch=np.full(rows, 3, np.int32),
        progress=np.full(rows, 0.25, np.float32),
    )


def batch(rows, height=9, width=12, classes=5):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(rows, height, width, 2)).astype(np.float32)
    return images, np.eye(classes, dtype=np.float32)[rng.integers(classes, size=rows)]


def drawn(draw, context):
    """What a documented draw gives for each row's key, (N, ...)."""
    return np.asarray(quick.jit(jax.vmap(draw))(context.key))


def rectangle(key, sides, smallest, largest, aspect):
    """`draw_rectangle` as its docstring says, in float64: (top, left, height, width), or None where none fits."""
    sizes, aspects, places = jax.random.split(key, 3)
    bound = float(np.log(aspect))
    areas = np.prod(sides) * np.float64(jax.random.uniform(sizes, (10,), minval=smallest, maxval=largest))
    ratios = np.exp(np.float64(jax.random.uniform(aspects, (10,), minval=-bound, maxval=bound)))
    for area, ratio in zip(areas, ratios, strict=True):
        extents = np.round([np.sqrt(area * ratio), np.sqrt(area / ratio)]).astype(int)
        if np.all(extents >= 1) and np.all(extents <= sides):
            place = jax.random.randint(places, (2,), 0, jnp.array(sides) - extents + 1)
            return (*np.asarray(place), *extents)
    return None


def pictures(rows=ROWS, shape=SHAPE):
    """Noise on slopes, so that levels, places and colours can be told apart; one image of a single colour."""
    draw = np.random.default_rng(7)
    slopes = np.linspace(30, 200, shape[1])[:, None] + np.linspace(-20, 30, shape[2])
    images = np.clip(slopes + draw.normal(0, 25, (rows, *shape)), 0, 255).astype(np.uint8)
    images[0] = (100, 150, 200)[: shape[2]]
    return images
