"""Each figure has what it must: its panels, and in them the numbers that were given."""

from __future__ import annotations

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers, models, pictures
from cnn_jax.pictures import canvas, confusion, mistakes

NAMES = ("cat", "dog", "owl", "$\\frac{$", "automobile of steel")


def draw(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def tiles(axes):
    """The arrays of the images in some axes, as they were given."""
    return [np.ma.getdata(image.get_array()) for image in axes.images]


def texts(figure):
    """All that is written in a figure, after it has been drawn."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


# Filters.


@pytest.mark.parametrize("count", [1, 6, 7, 64, 100])
def test_filters_of_one_channel_are_shown_whole_and_on_one_scale(count):
    kernel = draw(5, 3, 1, count)
    axes = pictures.filters(kernel).axes[0]
    shown = tiles(axes)
    assert len(shown) == min(count, 64)
    for index, tile in enumerate(shown):
        np.testing.assert_array_equal(tile, kernel[:, :, 0, index])
    greatest = np.abs(kernel[..., :64]).max()
    assert {image.get_clim() for image in axes.images} == {(-greatest, greatest)}


def test_filters_of_three_channels_are_colours_about_grey():
    kernel = draw(3, 3, 3, 4)
    shown = tiles(pictures.filters(kernel).axes[0])
    assert len(shown) == 4
    for index, tile in enumerate(shown):
        np.testing.assert_allclose(2 * (tile - 0.5) * np.abs(kernel).max(), kernel[..., index], atol=1e-12)
        assert 0 <= tile.min() < tile.max() <= 1


def test_filters_of_more_channels_are_a_grid_of_channel_by_filter():
    kernel = draw(3, 3, 5, 4)
    axes = pictures.filters(kernel).axes[0]
    shown = dict(zip([(round(i.get_extent()[0], 6), round(i.get_extent()[3], 6)) for i in axes.images], tiles(axes),
                     strict=True))  # fmt: skip
    lefts, tops = sorted({place[0] for place in shown}), sorted({place[1] for place in shown})
    assert (len(lefts), len(tops)) == (4, 5)
    for (left, top), tile in shown.items():
        np.testing.assert_array_equal(tile, kernel[:, :, tops.index(top), lefts.index(left)])


def test_a_layer_with_very_many_filters_is_cut_and_says_so():
    figure = pictures.filters(draw(3, 3, 32, 40))
    assert len(figure.axes[0].images) == 16 * 16
    assert any("16 of 40 filters, 16 of 32 channels" in text for text in texts(figure))


def test_filters_before_and_after_share_one_scale():
    before, after = draw(5, 5, 1, 6), 3 * draw(5, 5, 1, 6) + 1
    upper, lower, _ = pictures.filters_before_after(before, after).axes
    for axes, kernel in ((upper, before), (lower, after)):
        np.testing.assert_array_equal(np.stack(tiles(axes), axis=-1), kernel[:, :, 0])
    greatest = np.abs(after).max()
    assert {image.get_clim() for image in (*upper.images, *lower.images)} == {(-greatest, greatest)}


def test_kernels_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected a kernel \(height, width, channels, filters\), got shape \(3, 4\)"):
        pictures.filters(draw(3, 4))
    with pytest.raises(ValueError, match=r"two kernels of one shape, got \(3, 3, 1, 2\) and \(3, 3, 1, 4\)"):
        pictures.filters_before_after(draw(3, 3, 1, 2), draw(3, 3, 1, 4))


# Feature maps.


class Stem(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
        x = layers.Conv(20, (3, 3), name="conv")(images)
        x = layers.MaxPool((2, 2), strides=(2, 2), name="pool")(nn.relu(x))
        x = layers.GlobalAvgPool(name="mean")(x)
        return -layers.Dense(5, name="scores")(x)  # as after a layer of distances, of which the least wins


def test_feature_maps_have_a_strip_for_every_layer_with_its_values():
    model, image = Stem(), draw(8, 6, 3).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), image[None])
    figure = pictures.feature_maps(model, variables, image, class_names=NAMES, limit=12)
    heads = [axes.get_title(loc="left") for axes in figure.axes]
    assert [head.split(",")[0].split() for head in heads] == [
        ["input", "8x6x3"], ["conv", "8x6x20"], ["pool", "4x3x20"], ["mean", "20"], ["scores", "5"],
    ]  # fmt: skip
    conv = jax.jit(lambda v, x: nn.Conv(20, (3, 3)).apply({"params": v["params"]["conv"]}, x))(variables, image[None])[
        0
    ]
    pool = jnp.maximum(conv, 0).reshape(4, 2, 3, 2, 20).max(axis=(1, 3))
    for axes, volume in zip(figure.axes[1:3], (conv, pool), strict=True):
        np.testing.assert_allclose(np.stack(tiles(axes), axis=-1), volume[..., :12], rtol=1e-4, atol=1e-5)
        assert "the first 12 maps" in axes.get_title(loc="left")
    mean = np.asarray(pool.mean(axis=(0, 1)))
    ends = [np.asarray(segment)[:, 1] for segment in figure.axes[3].collections[0].get_segments()]
    np.testing.assert_allclose(np.array(ends)[:, 1], mean, rtol=1e-4, atol=1e-5)
    labels = figure.axes[4].get_xticklabels()
    assert [label.get_text() for label in labels][:4] == ["cat", "dog", "owl", "$\\frac{$"]
    scores = mean @ variables["params"]["scores"]["kernel"] + variables["params"]["scores"]["bias"]
    assert [label.get_fontweight() == "bold" for label in labels] == [k == scores.argmin() for k in range(5)]
    texts(figure)


@pytest.mark.parametrize(("depth", "shown"), [(20, 16), (21, 8)])
def test_a_deep_model_has_one_row_of_maps_a_layer(depth, shown):
    model, image = nn.Sequential([layers.AvgPool((1, 1))] * depth), draw(2, 2, 20).astype(np.float32)
    figure = pictures.feature_maps(model, {}, image)
    assert [len(axes.images) for axes in figure.axes[1:]] == [shown] * depth


def test_a_model_without_maps_has_bars_only():
    model = models.build("mlp", features=[30], num_classes=5)
    image = draw(4, 4, 1).astype(np.float32)
    figure = pictures.feature_maps(model, jax.jit(model.init)(jax.random.key(0), image[None]), image)
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 0]
    assert [len(axes.collections[0].get_segments()) for axes in figure.axes[1:]] == [30, 5]


# Heat maps.


def test_heat_maps_have_a_row_of_tiles_for_each_kind_of_map():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    rows = {"coarse": draw(3, 2, 2), "fine": draw(3, 8, 8)}
    figure = pictures.heat_maps(images, rows, captions=["a", "b", "$\\c{$"])
    assert [len(axes.images) for axes in figure.axes] == [3, 3, 3]
    for tile, image in zip(tiles(figure.axes[0]), images, strict=True):
        np.testing.assert_allclose(tile, image[..., 0] / 255)
    written = texts(figure)
    assert {"a", "b", "$\\c{$", "coarse", "fine"} <= set(written)


def test_a_map_colours_the_picture_where_it_is_greatest_and_leaves_it_where_it_is_not_positive():
    from cnn_jax.pictures.heat import laid_over

    picture = np.full((4, 4), 0.5)
    heat = np.zeros((4, 4))
    heat[1, 2], heat[3, 3] = 7.0, -9.0
    laid = laid_over(picture, heat)
    away = np.abs(laid - 0.6 * picture[..., None]).sum(axis=-1)
    assert away.argmax() == 4 + 2
    assert np.count_nonzero(away > 1e-6) == 1
    np.testing.assert_allclose(laid_over(picture, 100 * heat), laid)
    np.testing.assert_allclose(laid_over(picture, np.zeros((2, 2))), np.full((4, 4, 3), 0.3))


@pytest.mark.parametrize("row", [draw(2, 4, 4), draw(4, 4)])
def test_as_many_maps_as_pictures_are_asked_for(row):
    with pytest.raises(ValueError, match=r"expected 3 maps \(h, w\) of 'row'"):
        pictures.heat_maps(np.zeros((3, 4, 4, 1), np.uint8), {"row": row})


# Confusion matrix and mistakes.


def test_the_confusion_matrix_holds_the_counts_and_hides_the_zeros():
    counts = np.array([[50, 2, 0, 0, 0], [0, 900, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1234, 0], [1, 0, 0, 0, 9]])
    figure = pictures.confusion_matrix(counts, NAMES)
    axes = figure.axes[0]
    written = {tuple(map(int, text.get_position()))[::-1]: text.get_text() for text in axes.texts}
    assert written == {tuple(place): f"{counts[tuple(place)]:,}" for place in np.argwhere(counts)}
    depth = tiles(axes)[0][..., 3]
    np.testing.assert_array_equal(depth > 0, counts > 0)
    assert depth[0, 0] == pytest.approx(50 / 52)
    # One of ten is the worst confusion; one of 901 is fainter than two of 52.
    assert depth[4, 0] == 1 > depth[0, 1] > depth[1, 3] > 0.2
    assert [label.get_text() for label in axes.get_yticklabels()] == [*NAMES[:4], "automobil…teel"]
    texts(figure)


def test_a_hundred_classes_have_neither_counts_nor_names():
    figure = pictures.confusion_matrix(np.eye(100, dtype=int), [f"class {k}" for k in range(100)])
    assert not figure.axes[0].texts
    assert tiles(figure.axes[0])[0].shape == (100, 100, 4)
    assert len(texts(figure)) < 10


def test_a_confusion_matrix_of_another_size_than_the_names_is_refused():
    with pytest.raises(ValueError, match=r"expected counts \(5, 5\), got shape \(4, 4\)"):
        pictures.confusion_matrix(np.eye(4, dtype=int), NAMES)


def test_the_most_frequent_confusions_come_worst_first():
    counts = np.array([[5, 0, 9], [2, 7, 0], [0, 2, 9]])
    assert confusion.most_frequent(counts, 2) == [(0, 2), (1, 0)]
    assert confusion.most_frequent(counts, 9) == [(0, 2), (1, 0), (2, 1)]


def test_the_most_confident_mistakes_come_first_with_true_class_taken_class_and_probability():
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (40, 4, 4, 3), np.uint8)
    labels, probabilities = draws.integers(0, 5, 40), draws.dirichlet(np.ones(5), 40)
    wrong = [k for k in range(40) if probabilities[k].argmax() != labels[k]]
    expected = sorted(wrong, key=lambda k: -probabilities[k].max())
    assert mistakes.worst_mistakes(labels, probabilities).tolist() == expected
    axes = pictures.confident_mistakes(images, labels, probabilities, NAMES, count=7).axes[0]
    assert len(axes.images) == len(axes.texts) == 7
    for index, tile, text in zip(expected, tiles(axes), axes.texts, strict=False):
        np.testing.assert_allclose(tile, images[index] / 255)
        true, taken = (canvas.short(NAMES[k], 12) for k in (labels[index], probabilities[index].argmax()))
        assert text.get_text() == f"is {true}\nsaid {taken}\n{probabilities[index].max():.0%} sure"


def test_without_mistakes_the_figure_says_so():
    figure = pictures.confident_mistakes(np.zeros((2, 4, 4, 1), np.uint8), [0, 1], np.eye(2), NAMES[:2])
    assert "no image was classified wrongly" in texts(figure)


# Curves.


def make_records(seed, steps=(10, 20, 30), splits=("train", "test")):
    draws = np.random.default_rng(seed)
    return [
        {"split": split, "step": step, "loss": float(draws.uniform(0.5, 1)), "accuracy": float(draws.uniform(0.8, 0.9))}
        for step in steps
        for split in splits
    ]


def test_curves_of_one_run_go_through_its_records():
    records = [*make_records(0), {"split": "batch", "step": 5, "loss": 9.0}, {"step": 7}]
    loss, error = pictures.curves([records], steps_per_epoch=10).axes
    assert [line.get_label() for line in loss.lines] == ["training", "test"]
    for axes, value in ((loss, lambda r: r["loss"]), (error, lambda r: 100 * (1 - r["accuracy"]))):
        for line, split in zip(axes.lines, ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            expected = [value(r) for r in records if r.get("split") == split]
            np.testing.assert_allclose(line.get_ydata(), expected)
        assert not axes.collections
        assert axes.get_yscale() == "linear"


def test_curves_of_several_seeds_are_their_mean_in_a_band_from_least_to_greatest():
    # The second run has a record more, which the others have not.
    runs = [make_records(0), make_records(1, (10, 20, 30, 40)), make_records(2)]
    loss, _ = pictures.curves(runs).axes
    for line, band, split in zip(loss.lines, loss.collections, ("train", "test"), strict=True):
        values = np.array([[r["loss"] for r in run if r["split"] == split][:3] for run in runs])
        np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
        np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
        corners = band.get_paths()[0].vertices
        for step, column in zip((10, 20, 30), values.T, strict=True):
            heights = corners[corners[:, 0] == step, 1]
            np.testing.assert_allclose([heights.min(), heights.max()], [column.min(), column.max()])


def test_a_run_without_records_of_a_split_has_no_line_for_it():
    loss, _ = pictures.curves([make_records(0, splits=("validation",))]).axes
    assert [line.get_label() for line in loss.lines] == ["validation"]
    assert not pictures.curves([[]]).axes[0].lines


# All of them.


def test_figures_are_as_wide_as_a_phone_and_leave_pyplot_alone():
    code = (
        "import sys, numpy as np; from cnn_jax import pictures;"
        "assert 'matplotlib' not in sys.modules;"
        "figure = pictures.filters(np.ones((3, 3, 1, 2)));"
        "print(figure.get_size_inches()[0], 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4.0", "False"]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_picture_of_any_number_of_channels_can_be_shown(channels):
    image = draw(6, 4, channels)
    shown = canvas.as_picture(image)
    assert shown.shape == ((6, 4, 3) if channels == 3 else (6, 4))
    assert 0 <= shown.min() < shown.max() <= 1
    if channels == 1:
        assert np.array_equal(np.argsort(shown, axis=None), np.argsort(image, axis=None))
    assert not np.isnan(canvas.as_picture(np.ones((2, 2, channels)))).any()


def test_names_are_cut_in_their_middle_and_printable():
    assert canvas.short("a\nb\x00", 5) == "a�b�"
    assert canvas.short("automobile", 5) == "auto…"
    assert canvas.short("great white shark", 14) == "great whi…hark"
    assert canvas.short("नि\u200cष्") == "नि\u200cष्"  # a joiner is seen in what it does
    assert canvas.short("e\u0301" * 14) == "e\u0301" * 14  # an accent takes no room
    for name in ("漢字かな交じり文の長い名前", "x漢" * 9, "한국어" * 9, "🐈" * 20):
        for limit in (5, 10, 14):
            assert limit - 2 <= canvas.columns(canvas.short(name, limit)) <= limit


def test_names_that_are_cut_alike_are_told_apart_by_their_numbers():
    names = [f"unbroken{k:02}{'x' * 30}" for k in range(12)]
    assert len(set(canvas.labels(names))) == 12
    assert canvas.labels(names)[11].startswith("11 unb")
    assert canvas.labels(["cat", "dog"]) == ["cat", "dog"]
    assert len(canvas.short("x" * 1_000_000)) == 14  # in a moment
    # A bracket stays with what runs from right to left: isolated, whatever stands beside it.
    assert canvas.short("(\u05d0)") == "\u2068(\u05d0)\u2069"
