"""What is shown of a step is what its model was given, to the bit, and its picture has all of it."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from cnn_jax import data, models, pictures, runs
from cnn_jax.augment import AlternatingFlip, BatchTransform, Crop, Mixup, RandAugment
from cnn_jax.errors import InputError
from cnn_jax.pictures import canvas
from cnn_jax.runs.texts import recipe_from_json, to_json
from cnn_jax.training import AdamW, Recipe, see
from tests import quick
from tests.test_figures import NAMES, tiles

NOTED = {}


@dataclass(frozen=True)
class Note(BatchTransform):
    """Keeps what it is given, by the share of the run that is done."""

    def __call__(self, context, images, targets):
        def note(progress, *given):
            NOTED[float(progress)] = given

        jax.debug.callback(note, context.progress[0], images, targets)
        return images, targets


def some_images():
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % 4
    return data.make_datasets("noise", tuple("abcd"), {"train": (images, labels)})["train"]


@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_it_is_what_the_steps_of_a_run_are_given(validation):
    train = some_images()
    chain = (AlternatingFlip(), RandAugment(1), Crop(2), Mixup(0.4), Note())
    recipe = Recipe(
        model=models.MLP(features=(4,)), augment=chain, epochs=2, batch_size=16, validation=validation,
        pixel_range=(-1.0, 1.0),
    )  # fmt: skip
    NOTED.clear()
    with quick.everywhere():
        runs.fit(recipe, train, seeds=3)
        jax.effects_barrier()
        steps = dict(NOTED)
        count = recipe.count_steps(40 - int(40 * validation))
        assert len(steps) == count
        for step in (0, count - 1):
            seen = see(recipe, data.rescale(train, -1.0, 1.0), 3, step)
            images, targets = steps[float(np.float32(step) / np.float32(count))]
            np.testing.assert_array_equal(seen.images, images)
            np.testing.assert_array_equal(seen.targets, targets)
            assert seen.indices.shape == (16,)


def test_without_augmentation_it_is_the_normalised_images_and_their_labels():
    train = some_images()
    seen = see(Recipe(batch_size=16, model=models.MLP()), train, seed=1, step=1)
    order = data.batch_indices(1, 40, 16, 1)
    np.testing.assert_array_equal(seen.indices, order)
    np.testing.assert_allclose(seen.images, data.normalise(train.images[order], train.statistics), atol=1e-6)
    np.testing.assert_array_equal(seen.targets, np.eye(4)[train.labels[order]])
    np.testing.assert_array_equal(data.to_pixels(seen.images, train.statistics), train.images[order])


@pytest.mark.parametrize("step", [-1, 25])
def test_a_step_that_is_not_of_the_run_is_refused(step):
    with pytest.raises(InputError, match=f"step: expected one of the run, from 0 to 24, got {step}"):
        see(Recipe(batch_size=16, epochs=10, model=models.MLP()), some_images(), step=step)


def test_a_recipe_comes_back_from_its_json():
    recipe = Recipe(
        model=models.MLP(features=(3, 2)), augment=(RandAugment(3), Crop(1, "edge")), optimizer=AdamW(0.1),
        pixel_range=(-1.0, 2.0), batch_size=7,
    )  # fmt: skip
    assert recipe_from_json(to_json(recipe), {}) == recipe


# The picture.


@pytest.mark.parametrize("statistics", [None, data.Statistics(mean=(0.5, 0.4, 0.3), std=(0.2, 0.0, 0.3))])
def test_a_batch_is_shown_with_the_classes_and_shares_of_its_targets(statistics):
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (30, 4, 6, 3), np.uint8)
    targets = np.eye(5)[draws.integers(0, 5, 30)]
    targets[3] = [0, 0.25, 0, 0.751, 0]
    targets[4] = [0.2, 0.2, 0.1, 0.3, 0.2]
    images = data.normalise(pixels, statistics) if statistics else pixels
    axes = pictures.batch(images, targets, NAMES, statistics=statistics, count=20).axes[0]
    assert len(axes.images) == len(axes.texts) == 20
    for index, (tile, text) in enumerate(zip(tiles(axes), axes.texts, strict=True)):
        np.testing.assert_allclose(tile, pixels[index] / 255)
        if index not in (3, 4):
            assert text.get_text() == canvas.short(NAMES[targets[index].argmax()], 10)
    assert axes.texts[3].get_text() == f"{canvas.short(NAMES[3], 10)} 75%\ndog 25%"
    assert axes.texts[4].get_text() == f"{canvas.short(NAMES[3], 10)} 30%\ncat 20%"


def test_a_batch_may_have_labels_and_what_is_beyond_the_range_of_pixels_is_at_its_end():
    images = np.array([-9.0, 9.0]).reshape(2, 1, 1, 1) * np.ones((2, 3, 3, 1))
    axes = pictures.batch(images, [1, 0], NAMES, statistics=data.Statistics(mean=(0.5,), std=(0.25,))).axes[0]
    assert [tile.max() for tile in tiles(axes)] == [0, 1]
    assert [text.get_text() for text in axes.texts] == ["dog", "cat"]
