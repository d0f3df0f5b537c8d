"""What torchvision has too gives its pixels for the same drawn numbers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.augment import ColorJitter, Crop, Cutmix, Mixup, RandomErasing, RandomResizedCrop, apply, policies
from cnn_jax.augment.mixup import draw_weights
from cnn_jax.augment.rectangles import draw_rectangle
from tests import quick
from tests.augmented import contexts, pictures

torch = pytest.importorskip("torch")
v2 = pytest.importorskip("torchvision.transforms.v2")
pytestmark = pytest.mark.torch

ROWS, SHAPE = 16, (24, 20, 3)
THEIRS = {
    "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY",
    "rotate": "Rotate", "identity": "Identity", "brightness": "Brightness", "contrast": "Contrast",
    "saturation": "Color", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
    "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip
operate = quick.jit(policies.operate, static_argnums=4)


def to_torch(image):
    return torch.from_numpy(np.moveaxis(np.array(image), -1, 0).copy())


def from_torch(image):
    return np.moveaxis(image.numpy(), 0, -1)


def assert_same(got, theirs, share=0.01):
    """Equal but for one level in few places, where a product in float32 falls on either side of a whole number."""
    off = np.abs(np.asarray(got).astype(int) - theirs)
    assert off.max() <= 1
    assert np.mean(off > 0) <= share


def policy(transform, kind):
    """The magnitudes of one of torchvision's policies, with their signs, and what applies one."""
    magnitudes, signed = transform._AUGMENTATION_SPACE[THEIRS[kind]]
    magnitudes = magnitudes(31, *SHAPE[:2])

    def change(image, strength, negative):
        magnitude = 0.0 if magnitudes is None else float(magnitudes[strength])
        magnitude = -magnitude if signed and negative else magnitude
        changed = transform._apply_image_or_video_transform(
            to_torch(image), THEIRS[kind], magnitude, transform.interpolation, transform._fill
        )
        return from_torch(changed)

    return change


@pytest.mark.parametrize("kind", policies.KINDS)
@pytest.mark.parametrize("wide", [False, True], ids=["rand_augment", "trivial_augment"])
def test_operations_are_those_of_the_policies(kind, wide):
    transform = v2.TrivialAugmentWide() if wide else v2.RandAugment()
    side = 150 / 331
    narrow = policies.Strongest(0.3, side * SHAPE[0], side * SHAPE[1], 30.0, 0.9, 4)
    strongest = policies.Strongest(0.99, 32.0, 32.0, 135.0, 0.99, 6) if wide else narrow
    assert set(transform._AUGMENTATION_SPACE) == set(THEIRS.values())
    change = policy(transform, kind)
    images = pictures(5, SHAPE)[1:]  # not that of one colour
    for image, strength, negative in zip(images, (1, 9, 17, 29), (False, True, True, False), strict=True):
        got = np.asarray(operate(image, policies.KINDS.index(kind), strength, negative, strongest))
        theirs = change(image, strength, negative)
        if kind in ("shear_x", "shear_y", "rotate"):  # a place may lie between two pixels, where either is the nearest
            assert np.mean(np.any(got != theirs, axis=-1)) < 0.02
        else:
            # Autocontrast divides by a rounded number, and then rounds down.
            assert_same(got, theirs, 0.05 if kind == "autocontrast" else 0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter(channels):
    images, changes = pictures(ROWS, (*SHAPE[:2], channels)), np.array([0.4, 0.8, 0.6])
    got = quick.jit(jax.vmap(ColorJitter(*changes)))(contexts(ROWS), images)
    functions = v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation
    orders = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
    for n, key in enumerate(contexts(ROWS).key):
        factors, order = jax.random.split(key)
        factors = jax.random.uniform(factors, (3,), minval=1 - changes, maxval=1 + changes)
        image = to_torch(images[n])
        for kind in orders[jax.random.randint(order, (), 0, 6)]:
            image = functions[kind](image, float(factors[kind]))
        off = np.abs(np.asarray(got[n]).astype(int) - from_torch(image))
        assert off.max() <= 3  # a level, made greater by what follows
        assert np.mean(off > 0) < 0.02


def rectangles(*options):
    return [draw_rectangle(key, SHAPE[:2], *options) for key in contexts(ROWS).key]


def test_random_resized_crop():
    images, options = pictures(ROWS, SHAPE), (0.1, 0.9, 4 / 3)
    got = quick.jit(jax.vmap(RandomResizedCrop(*options)))(contexts(ROWS), images)
    for image, box, ours in zip(images, rectangles(*options), got, strict=True):
        place = [int(number) for number in box[:4]]
        # Of bytes theirs are rounded twice, in either direction.
        theirs = v2.functional.resized_crop(to_torch(image).float(), *place, list(SHAPE[:2]), antialias=True)
        assert np.max(np.abs(from_torch(theirs) - ours)) <= 0.5 + 1e-3


def test_random_erasing():
    draw, options = np.random.default_rng(0), (0.1, 0.5, 3.3)
    images = draw.normal(size=(ROWS, *SHAPE)).astype(np.float32)
    got = quick.jit(jax.vmap(RandomErasing(1.0, *options)))(contexts(ROWS), images)
    for image, box, ours in zip(images, rectangles(*options), got, strict=True):
        theirs = v2.functional.erase(to_torch(image), *map(int, box[:4]), torch.zeros(1, 1, 1))
        np.testing.assert_array_equal(ours, from_torch(theirs))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop(mode):
    images = np.random.default_rng(0).normal(size=(ROWS, *SHAPE)).astype(np.float32)
    got, _ = apply((Crop(4, mode),), contexts(ROWS), images)
    for image, key, ours in zip(images, contexts(ROWS).key, got, strict=True):
        row, column = map(int, jax.random.randint(key, (2,), 0, 9))
        padded = v2.functional.pad(to_torch(image), [4, 4, 4, 4], padding_mode=mode)
        np.testing.assert_array_equal(ours, from_torch(v2.functional.crop(padded, row, column, *SHAPE[:2])))


class Constant:
    """Stands for a beta distribution and gives one number."""

    def __init__(self, value):
        self.value = value

    def sample(self, shape):
        return torch.tensor(self.value)


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_mixing(name, monkeypatch):
    """One row at a time: torchvision draws one number a batch, and mixes with the row before."""
    rows = 8
    images = np.random.default_rng(0).normal(size=(rows, *SHAPE)).astype(np.float32)
    labels = np.arange(rows) % 5
    ours = {"MixUp": Mixup, "CutMix": Cutmix}[name](0.7)
    got, targets = quick.jit(ours)(contexts(rows), images, np.eye(5, dtype=np.float32)[labels])
    for n, key in enumerate(contexts(rows).key):
        theirs = getattr(v2, name)(num_classes=5)
        monkeypatch.setattr(theirs, "_dist", Constant(float(draw_weights(key[None], 0.7)[0])))
        centre = jax.random.randint(jax.random.fold_in(key, 1), (2,), 0, jnp.array(SHAPE[:2]))
        drawn = iter([torch.tensor([int(centre[1])]), torch.tensor([int(centre[0])])])  # x before y
        monkeypatch.setattr(torch, "randint", lambda *_, drawn=drawn, **__: next(drawn))
        pair = [(n + 1) % rows, n]
        image, target = theirs(torch.stack([to_torch(images[k]) for k in pair]), torch.tensor(labels[pair]))
        np.testing.assert_allclose(got[n], from_torch(image[1]), atol=1e-6)
        np.testing.assert_allclose(targets[n], target[1].numpy(), atol=1e-6)
    assert math.isclose(float(targets.sum()), rows, rel_tol=1e-6)
