"""Windows cut out of scenes, as a data set to train a classifier on: each shows a digit in its middle, or background.

A window sees the scene at its own scale. It shows a digit if the digit's box is in the middle to within `MIDDLE` of the
window's side, down and across, and its longer side is `EXTENT` of the window's to within a factor of `FACTOR`. It shows
background if there is no digit for which both hold with twice the tolerance (`FACTOR` squared). Windows between the two
are nothing to learn from.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data
from cnn_jax.detection.clutter import between
from cnn_jax.detection.ink import middle_box
from cnn_jax.detection.resampling import cut
from cnn_jax.detection.scenes import Scene, SceneConfig, make_scene
from cnn_jax.errors import InputError

BACKGROUND = "background"
EXTENT = 0.625  # 20 of 32 pixels, as digits stand in the images of LeCun et al. 1998
MIDDLE = 0.08  # 2.5 of 32 pixels; on a grid of every fourth pixel some window is within 2 of any digit
FACTOR = 1.15  # in a pyramid of scales 2 ** (1 / 3) apart some scale is within 1.13 of any digit
PER_DIGIT, BESIDE, ELSEWHERE = 2, 8, 16  # windows: with each digit; near digits, and elsewhere, of each scene
_CHUNK = 64  # scenes at a time


def shows(boxes: jax.Array, size: jax.Array, centre: jax.Array, side: int, slack: float = 1.0) -> jax.Array:
    """Which digits a window shows.

    Args:
        boxes: (M, 4), of the digits in the scene.
        size: how much larger than in the scene the window shows things.
        centre: (2,), of the window in the scene.
        side: of the window, in its own pixels.
        slack: how many times the tolerances are allowed.

    Returns:
        bool (M,).
    """
    middles, longer = middle_and_length(boxes)
    in_middle = jnp.max(jnp.abs(middles - centre), axis=1) * size / side <= slack * MIDDLE
    return in_middle & (jnp.abs(jnp.log(longer * size / (EXTENT * side))) <= slack * math.log(FACTOR))


def middle_and_length(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Middles (..., 2) and longer sides (...), at least a pixel, of boxes (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, jnp.maximum(jnp.max(boxes[..., 2:] - boxes[..., :2], axis=-1), 1.0)


def about(
    boxes: jax.Array, random: jax.Array, side: int, offset: float = MIDDLE, factor: float = FACTOR
) -> tuple[jax.Array, jax.Array]:
    """Windows about boxes (K, 4), within tolerances by numbers (K, 3) from 0 to 1: their sizes (K,), centres (K, 2)."""
    middles, longer = middle_and_length(boxes)
    sizes = EXTENT * side / longer * factor ** between(random[:, 0], -1.0, 1.0)
    return sizes, middles + between(random[:, 1:3], -offset, offset) * side / sizes[:, None]


def cut_windows(key: jax.Array, scene: Scene, side: int, background: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cuts windows out of a scene of M digits.

    Each digit is in `PER_DIGIT` windows, anywhere within the tolerances. The others show background. `BESIDE` of them
    are about digits, out of the middle by up to 0.6 of the side, too large or too small by up to `FACTOR` to the sixth,
    or both; `ELSEWHERE` are about other pixels, bright ones far sooner, at any scale at which a digit might be. Half of
    both kinds are put right, as `candidates` does for its second look: what is inked in their middle (`middle_box`), if
    it lies there and is as large as a digit might, at twice the tolerances, is shown as a digit would be. Ends of long
    strokes and parts of digits then look as much like digits as they can.

    Args:
        key: random key.
        scene: to cut from.
        side: of the windows, in pixels.
        background: label of the windows that show no digit.

    Returns:
        uint8 images (K, side, side, 1), int32 labels (K,), and bool (K,), which of them are to be used: not those of
        digits that are not there, nor those of background that show a digit at twice the tolerances.
        K = PER_DIGIT * M + BESIDE + ELSEWHERE.
    """
    image = scene.image[..., 0].astype(jnp.float32)
    look = jax.vmap(lambda size, centre: cut(image, side, size, centre))
    own = jnp.repeat(jnp.arange(len(scene.labels)), PER_DIGIT)
    counts = len(own), BESIDE, ELSEWHERE, (BESIDE + ELSEWHERE + 1) // 2
    random = jax.random.uniform(key, (sum(counts), 4))
    of_digits, beside, elsewhere, again = jnp.split(random, np.cumsum(counts)[:-1])

    there_first = jnp.argsort(~scene.valid, stable=True)
    some = there_first[(beside[:, 3] * jnp.sum(scene.valid)).astype(int)]
    near = about(scene.boxes[some], beside, side, 0.6, FACTOR**6)
    sizes, centres = (jnp.concatenate(parts) for parts in zip(near, _anywhere(elsewhere, scene, side), strict=True))
    boxes = jax.vmap(middle_box)(look(sizes[::2], centres[::2]))
    like_digits = shows(boxes, jnp.float32(1), jnp.full(2, side / 2), side, slack=2.0)
    boxes = (boxes - side / 2) / sizes[::2, None] + jnp.tile(centres[::2], 2)
    put_right = about(boxes, again, side)
    sizes, centres = sizes.at[::2].set(put_right[0]), centres.at[::2].set(put_right[1])

    def shows_some(size: jax.Array, centre: jax.Array) -> jax.Array:
        return jnp.any(shows(scene.boxes, size, centre, side, slack=2.0) & scene.valid)

    nothing = ~jax.vmap(shows_some)(sizes, centres)
    usable = jnp.concatenate([scene.valid[own], nothing.at[::2].set(nothing[::2] & like_digits)])
    labels = jnp.concatenate([scene.labels[own], jnp.full(len(sizes), background, jnp.int32)])
    shown = about(scene.boxes[own], of_digits, side)
    windows = look(jnp.concatenate([shown[0], sizes]), jnp.concatenate([shown[1], centres]))
    return jnp.rint(jnp.clip(windows, 0, 255)).astype(jnp.uint8)[..., None], labels, usable


def _anywhere(random: jax.Array, scene: Scene, side: int) -> tuple[jax.Array, jax.Array]:
    """Sizes (K,) and centres (K, 2) of windows about pixels outside the digits' boxes, by numbers (K, 4)."""
    image = scene.image[..., 0].astype(jnp.float32) / 255
    y, x = (jnp.arange(length) + 0.5 for length in image.shape)
    top, left, bottom, right = scene.boxes.T[:, :, None]
    in_box = jnp.any(((y > top) & (y < bottom))[:, :, None] & ((x > left) & (x < right))[:, None], axis=0)
    weights = jnp.where(in_box, 0.0, 0.002 + (image - jnp.min(image)) ** 2)
    upto = jnp.cumsum(weights.ravel())
    pixel = jnp.unravel_index(jnp.searchsorted(upto, random[:, 0] * upto[-1]), image.shape)
    size = EXTENT * side / (12 * 3.0 ** random[:, 3])  # as for a digit 12 to 36 pixels long
    return size, jnp.stack(pixel, axis=1) + 0.5 + between(random[:, 1:3], -0.2, 0.2) * side / size[:, None]


def framed(digits: data.Dataset, side: int) -> data.Dataset:
    """The data set with its drawings `EXTENT` of the side long in the middle of images (side, side).

    28x28 images of MNIST get zeros around them and keep their pixels. The statistics are those of the training split as
    it is thus changed, exactly where images get zeros, nearly where they are resized.

    Raises:
        InputError: these are not one-channel drawings, light on dark.
    """
    old, ink = digits.statistics, digits.ink
    if ink is None:
        raise InputError(f"data set {digits.name}: expected one-channel drawings, light on dark; take mnist or digits")
    own = min(side, round(EXTENT * side / ink.extent))
    before = (side - own) // 2
    margins = before, side - own - before
    images = np.pad(data.fit_images(np.asarray(digits.images), (own, own)), ((0, 0), margins, margins, (0, 0)))
    share = (own / side) ** 2
    mean = share * old.mean[0]
    std = math.sqrt(share * (old.std[0] ** 2 + old.mean[0] ** 2) - mean**2)
    return dataclasses.replace(
        digits,
        images=images,
        statistics=data.Statistics(mean=(mean,), std=(std,)),
        ink=data.Ink(extent=ink.extent * own / side, mean=mean),
    )


def window_dataset(digits: data.Dataset, key: jax.Array, scenes: int, config: SceneConfig) -> data.Dataset:
    """A data set of the windows cut out of scenes of digits.

    Args:
        digits: as `framed` gives them; windows are as large as its images.
        key: of the scenes and the windows: equal arguments give equal data.
        scenes: their number.
        config: what scenes look like.

    Returns:
        A data set with the class `BACKGROUND` after those of the digits; its statistics are the digits'.
    """
    keys, inputs = jax.random.split(key, scenes), (jnp.asarray(digits.images), jnp.asarray(digits.labels))
    found = []
    for start in range(0, scenes, _CHUNK):
        chunk = _windows_of_scenes(config, len(digits.class_names), keys[start : start + _CHUNK], *inputs)
        images, labels, usable = jax.device_get(chunk)
        found.append((images[usable], labels[usable]))
    images, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    names = (*digits.class_names, BACKGROUND)
    return dataclasses.replace(digits, images=images, labels=labels, class_names=names)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _windows_of_scenes(
    config: SceneConfig, background: int, keys: jax.Array, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def of_scene(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        drawn, chosen = jax.random.split(key)
        return cut_windows(chosen, make_scene(drawn, images, labels, config), images.shape[1], background)

    return jax.vmap(of_scene)(keys)
