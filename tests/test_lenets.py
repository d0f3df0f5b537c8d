"""LeNet-1, LeNet-4 and LeNet-5 as published: the papers' counts and tables, and what the networks compute."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models
from cnn_jax.describe import describe
from cnn_jax.errors import InputError
from cnn_jax.models import lenet1998
from cnn_jax.models.bitmaps import digit_bitmaps
from tests import quick
from tests.drawn import count, draw_variables

# Table I of the 1998 paper as it is printed: a row for each map of S2, a column for each map of C3.
TABLE_I = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""
# Table 1 of the 1990 paper likewise: rows H2, columns H3.
TABLE_1 = """
    X X X . X X . . . . . .
    . X X X X X . . . . . .
    . . . . . . X X X . X X
    . . . . . . . X X X X X
"""


# The bitmaps once more, digit by digit: two hexadecimal places a row, its seven cells being bits.
BITMAPS = """
    3e001c3663636363361c0000 0c1c3c0c0c0c0c0c0c3f0000 3e003e6343061c30607f0000 7f03060c1e030303633e0000
    3e00003333736363673f0303 3e007f60603c1e03633e0000 1e3060607e736363733e0000 7f0303060c0c181818180000
    3e6363633e636363633e0000 3e676363673f0303063c0000
"""


def columns(table):
    rows = [line.split() for line in table.strip().splitlines()]
    return [[source for source, mark in enumerate(column) if mark == "X"] for column in zip(*rows, strict=True)]


# Of each layer: its maps' size, and the inputs of a unit of each map.
LENET1 = {
    "H1": (24 * 24, [25] * 4),
    "H2": (12 * 12, [4] * 4),
    "H3": (8 * 8, [25 * len(seen) for seen in columns(TABLE_1)]),
    "H4": (4 * 4, [4] * 12),
    "output": (1, [12 * 16] * 10),
}
LENET4 = {
    "C1": (28 * 28, [25] * 4),
    "S2": (14 * 14, [4] * 8),
    "C3": (10 * 10, [25 * 3] * 16),
    "S4": (5 * 5, [4] * 16),
    "F5": (1, [16 * 25] * 120),
    "output": (1, [120] * 10),
}
LENET5 = {
    "C1": (28 * 28, [25] * 6),
    "S2": (14 * 14, [4] * 6),
    "C3": (10 * 10, [25 * len(seen) for seen in columns(TABLE_I)]),
    "S4": (5 * 5, [4] * 16),
    "C5": (1, [16 * 25] * 120),
    "F6": (1, [120] * 84),
}
# Of each layer: parameters and connections, as the papers print them (LeNet-4's as its docstring does).
PAPER = {
    "lenet1": (LENET1, [(104, 59_904), (8, 2_880), (512, 32_768), (24, 960), (1_930, 1_930)]),
    "lenet4": (LENET4, [(104, 81_536), (16, 7_840), (1_216, 121_600), (32, 2_000), (48_120, 48_120), (1_210, 1_210)]),
    "lenet5_original": (
        LENET5,
        [(156, 122_304), (12, 5_880), (1_516, 151_600), (32, 2_000), (48_120, 48_120), (10_164, 10_164)],
    ),
}
TOTALS = {"lenet1": (2_578, 98_442), "lenet4": (50_698, 262_306), "lenet5_original": (60_000, 340_908 - 840)}


def squash(x):
    return 1.7159 * np.tanh(2 * x / 3)


def conv(x, kernel, bias):
    """An image (H, W, I) under a kernel (h, w, I, O), without padding."""
    height, width = kernel.shape[:2]
    y = np.zeros((x.shape[0] - height + 1, x.shape[1] - width + 1, kernel.shape[-1])) + bias
    for i, j in np.ndindex(y.shape[:2]):
        y[i, j] += np.tensordot(x[i : i + height, j : j + width], kernel, 3)
    return y


def partial_conv(x, kernel, bias, table):
    ends = np.cumsum([len(seen) for seen in table])[:-1]
    windows = np.split(kernel, ends, axis=-1)
    maps = [conv(x[..., seen], w[..., None], b) for seen, w, b in zip(table, windows, bias, strict=True)]
    return np.concatenate(maps, axis=-1)


def subsample(x, scale, bias):
    return scale * (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) + bias


def looped_lenet1(p, x):
    x = squash(subsample(squash(conv(x, **p["H1"])), **p["H2"]))
    x = squash(subsample(squash(partial_conv(x, **p["H3"], table=columns(TABLE_1))), **p["H4"]))
    return conv(x, **p["output"])[0, 0]


def looped_lenet4(p, x):
    first = squash(conv(x, **p["C1"]))
    x = squash(subsample(first[..., [0, 0, 1, 1, 2, 2, 3, 3]], **p["S2"]))
    x = squash(subsample(squash(partial_conv(x, **p["C3"], table=list(map(list, lenet1998.C3_OF_LENET4)))), **p["S4"]))
    x = squash(conv(x, **p["F5"]))[0, 0]
    return x @ p["output"]["kernel"] + p["output"]["bias"]


def looped_lenet5(p, x):
    x = squash(subsample(squash(conv(x, **p["C1"])), **p["S2"]))
    x = squash(subsample(squash(partial_conv(x, **p["C3"], table=columns(TABLE_I))), **p["S4"]))
    x = squash(conv(x, **p["C5"]))[0, 0]
    x = squash(x @ p["F6"]["kernel"] + p["F6"]["bias"])
    if "output" in p:
        return x @ p["output"]["kernel"] + p["output"]["bias"]
    return -np.square(x - digit_bitmaps()).sum(axis=-1)


def images(name):
    return np.random.default_rng(0).standard_normal((2, *models.MODELS[name].input_size, 1))


@pytest.mark.parametrize("name", PAPER)
def test_parameters_and_connections_are_those_of_the_papers(name):
    layers, paper = PAPER[name]
    params = draw_variables(models.build(name), images(name).shape)["params"]
    parameters = {layer: count(tree) for layer, tree in params.items()}
    # A unit has a connection for each of its inputs and one for its bias.
    connections = {layer: size * sum(n + 1 for n in inputs) for layer, (size, inputs) in layers.items()}
    assert parameters == {layer: numbers[0] for layer, numbers in zip(layers, paper, strict=True)}
    assert connections == {layer: numbers[1] for layer, numbers in zip(layers, paper, strict=True)}
    assert (sum(parameters.values()), sum(connections.values())) == TOTALS[name]
    described = describe(models.build(name), images(name).shape[1:])
    rows = {row.layer: (row.parameters, row.connections) for row in described}
    # The radial basis units learn nothing, but are connected.
    expected = dict(zip(layers, paper, strict=True)) | ({"output": (0, 840)} if "output" not in layers else {})
    assert rows == expected


def test_lenet5_has_the_papers_totals_and_85_parameters_a_class_more_with_a_softmax_head():
    total = describe(models.build("lenet5_original"), (32, 32, 1)).total
    assert (total.parameters, total.connections) == (60_000, 340_908)
    softmax = models.build("lenet5_original", head="softmax")
    assert count(draw_variables(softmax, (1, 32, 32, 1))) == 60_000 + 10 * 85


@pytest.mark.parametrize("name", PAPER)
def test_every_volume_by_name(name):
    model, x = models.build(name), images(name)
    variables = draw_variables(model, x.shape)
    call = jax.eval_shape(lambda v: model.apply(v, x, capture_intermediates=True)[1]["intermediates"], variables)
    volumes = {layer: outputs["__call__"][0].shape for layer, outputs in call.items() if layer[0] != "_"}
    expected = {
        layer: (2, math.isqrt(size), math.isqrt(size), len(inputs)) for layer, (size, inputs) in PAPER[name][0].items()
    }
    assert volumes == expected | {"output": (2, 1, 1, 10)}


def test_the_tables_have_the_structure_the_papers_describe():
    assert [list(seen) for seen in lenet1998.C3_OF_LENET5] == columns(TABLE_I)
    assert [list(seen) for seen in lenet1998.H3_OF_LENET1] == columns(TABLE_1)

    def runs(seen, maps=6):
        """How many runs of neighbours there are on the circle of maps."""
        return sum((m + 1) % maps not in seen for m in seen)

    kinds = [(len(seen), runs(seen)) for seen in columns(TABLE_I)]
    assert kinds == [(3, 1)] * 6 + [(4, 1)] * 6 + [(4, 2)] * 3 + [(6, 0)]
    # LeNet-1: 20 connected pairs; two halves with nothing in common.
    assert sum(map(len, columns(TABLE_1))) == 20
    assert [max(seen) < 2 for seen in columns(TABLE_1)] == [True] * 6 + [False] * 6
    # LeNet-4: sixteen different triples, in which no map of S2 is used more than another.
    triples = [frozenset(seen) for seen in lenet1998.C3_OF_LENET4]
    assert len(set(triples)) == 16
    assert {len(seen) for seen in triples} == {3}
    assert [sum(m in seen for seen in triples) for m in range(8)] == [6] * 8


@pytest.mark.parametrize(
    ("name", "fields", "definition"),
    [
        ("lenet1", {}, looped_lenet1),
        ("lenet4", {}, looped_lenet4),
        ("lenet5_original", {}, looped_lenet5),
        ("lenet5_original", {"head": "softmax"}, looped_lenet5),
    ],
)
def test_each_computes_its_table_and_the_gradient_reaches_every_weight(name, fields, definition):
    model, x = models.build(name, **fields), images(name)
    variables = draw_variables(model, x.shape, dtype=np.float64)

    def spread(variables):
        scores = model.apply(variables, x)
        return scores.std(), scores

    with jax.enable_x64(True):
        (_, scores), gradient = quick.jit(jax.value_and_grad(spread, has_aux=True))(variables)
    expected = [definition(variables["params"], image) for image in x]
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    assert all(np.all(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", PAPER)
def test_a_larger_image_gives_the_scores_of_every_window(name):
    model = models.build(name)
    (height, width), (x,) = model.input_size, np.random.default_rng(1).standard_normal((1, 2, 41, 37, 1))
    x = x[:, : height + 9, : width + 5].astype(np.float32)
    variables = draw_variables(model, (1, height, width, 1))
    apply = quick.jit(model.apply)
    grid = apply(variables, x)
    assert grid.shape == (2, 3, 2, 10)
    windows = [x[:, 4 * i : 4 * i + height, 4 * j : 4 * j + width] for i, j in np.ndindex(3, 2)]
    each = apply(variables, np.concatenate(windows)).reshape(3, 2, 2, 10)
    np.testing.assert_allclose(grid, each.transpose(2, 0, 1, 3), rtol=1e-4, atol=1e-4)


def test_the_score_is_zero_at_the_bitmap_itself_and_minus_four_for_each_cell_that_differs():
    model, bitmaps = models.build("lenet5_original"), digit_bitmaps()
    variables = draw_variables(model, (1, 32, 32, 1))
    apply = quick.jit(model.apply)
    for digit in (0, 7):
        # An F6 that always is this digit's bitmap: the squash turned round.
        f6 = {"kernel": jnp.zeros((120, 84)), "bias": 1.5 * np.arctanh(bitmaps[digit] / 1.7159)}
        variables["params"]["F6"] = f6
        scores = apply(variables, np.ones((1, 32, 32, 1), np.float32))[0]
        cells = (bitmaps != bitmaps[digit]).sum(axis=1)
        np.testing.assert_allclose(scores, -4.0 * cells, atol=1e-3)
        assert scores.argmax() == digit


def test_the_bitmaps_are_ten_drawings_of_seven_by_twelve_cells_of_plus_and_minus_one():
    bitmaps = digit_bitmaps()
    assert (bitmaps.dtype, bitmaps.shape) == (np.float32, (10, 84))
    assert set(np.unique(bitmaps)) == {-1, 1}
    rows = (bitmaps.reshape(120, 7) == 1) @ (2 ** np.arange(7)[::-1])
    assert bytes(rows.tolist()) == bytes.fromhex(BITMAPS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "tanh"}, "head must be one of rbf, softmax; got 'tanh'"),
        (
            {"num_classes": 26},
            "head 'rbf' has the bitmaps of ten digits and needs num_classes=10, got 26; "
            "head 'softmax' takes any number",
        ),
        ({"head": "softmax", "num_classes": 0}, "num_classes must be an int of at least 1, got 0"),
    ],
)
def test_lenet5_says_which_heads_and_classes_go_together(fields, message):
    with pytest.raises(InputError) as error:
        models.build("lenet5_original", **fields)
    assert str(error.value) == f"OriginalLeNet5: {message}"


def test_softmax_head_takes_other_numbers_of_classes():
    model = models.build("lenet5_original", head="softmax", num_classes=26)
    variables = draw_variables(model, (1, 32, 32, 3))
    assert jax.eval_shape(model.apply, variables, np.zeros((4, 32, 32, 3))).shape == (4, 26)
