"""The volume table against numbers worked out by hand."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers, models
from cnn_jax.describe import LayerRow, Volumes, describe
from cnn_jax.errors import InputError
from tests.networks import KINDS


def costs(rows):
    return [
        (row.layer, row.kind, row.kernel, row.stride, row.output, row.parameters, row.multiply_adds) for row in rows
    ]


def fields(row):
    return [(field.size, field.stride, field.offset) for field in row.receptive_field]


def test_lenet5():
    volumes = describe(models.build("lenet5"), (32, 32, 1))
    assert costs([*volumes, volumes.total]) == [
        ("C1", "Conv", (5, 5), (1, 1), (28, 28, 6), 156, 28 * 28 * 6 * 25),
        ("S2", "AvgPool", (2, 2), (2, 2), (14, 14, 6), 0, 0),
        ("C3", "Conv", (5, 5), (1, 1), (10, 10, 16), 2416, 10 * 10 * 16 * 25 * 6),
        ("S4", "AvgPool", (2, 2), (2, 2), (5, 5, 16), 0, 0),
        ("C5", "Conv", (5, 5), (1, 1), (1, 1, 120), 48_120, 120 * 400),
        ("F6", "Dense", None, None, (1, 1, 10), 1210, 1200),
        ("total", "", None, None, (1, 1, 10), 51_902, 406_800),
    ]
    squares = [5, 6, 14, 16, 32, 32]
    assert [fields(row) for row in volumes] == [
        [(n, s, 0)] * 2 for n, s in zip(squares, (1, 2, 2, 4, 4, 4), strict=True)
    ]
    assert [row.padding for row in volumes] == [((0, 0), (0, 0))] * 5 + [None]
    assert [row.connections for row in volumes] == [122_304, 4 * 1176, 241_600, 4 * 400, 48_120, 1210]
    assert [row.memory for row in volumes] == [18_816, 4_704, 6_400, 1_600, 480, 40]
    dense = [1025 * 4704, None, 1177 * 1600, None, 401 * 120, None]
    assert [row.dense_parameters for row in volumes] == dense
    assert (volumes.total.memory, volumes.total.dense_parameters) == (32_040, 6_752_920)
    assert volumes.total.receptive_field is None


def test_lenet5_of_1998():
    # LeCun et al. (1998), section II.B, gives both columns.
    volumes = describe(models.build("lenet5_original"), (32, 32, 1))
    assert {row.layer: (row.parameters, row.connections) for row in [*volumes, volumes.total]} == {
        "C1": (156, 122_304),
        "S2": (12, 5_880),
        "C3": (1_516, 151_600),
        "S4": (32, 2_000),
        "C5": (48_120, 48_120),
        "F6": (10_164, 10_164),
        "output": (0, 840),
        "total": (60_000, 340_908),
    }
    assert volumes[1].multiply_adds == 1_176
    assert volumes[2].multiply_adds == 150_000
    assert volumes[6].multiply_adds == 840
    assert volumes[2].dense_parameters == 1177 * 1600
    assert [(row.kernel, row.stride) for row in volumes[1:3]] == [((2, 2), (2, 2)), ((5, 5), (1, 1))]


def test_mlp():
    volumes = describe(models.build("mlp", features=(20,)), (8, 8, 3))
    assert costs(volumes) == [
        ("hidden_1", "Dense", None, None, (20,), 193 * 20, 192 * 20),
        ("output", "Dense", None, None, (10,), 210, 200),
    ]
    assert [fields(row) for row in volumes] == [[(8, None, 0)] * 2] * 2
    assert "Sharing" not in volumes.text()


class Block(nn.Module):
    library: object

    @nn.compact
    def __call__(self, x):
        x = self.library.Conv(6, (3, 2), strides=2, feature_group_count=2, use_bias=False, name="grouped")(x)
        return x * self.param("scale", nn.initializers.ones, (6,))


class Nested(nn.Module):
    library: object = layers

    @nn.compact
    def __call__(self, x, train):
        x = Block(self.library, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = self.library.ConvTranspose(5, (4, 3), strides=(2, 1), kernel_dilation=(1, 2), name="up")(x)
        x = layers.MaxPool((2, 2), name="pool")(x)
        shared = self.library.Dense(5, name="shared")
        x = shared(shared(x))
        return layers.GlobalAvgPool(name="mean")(x)


@pytest.mark.parametrize("library", [layers, nn])
def test_nested_grouped_transposed_and_shared_layers(library):
    volumes = describe(Nested(library), (8, 7, 4))
    assert costs(volumes) == [
        ("first/grouped", "Conv", (3, 2), (2, 2), (4, 4, 6), 6 * 2 * 6, 16 * 6 * 2 * 6),
        ("first", "Block", None, None, (4, 4, 6), 6, 0),
        ("BatchNorm_0", "BatchNorm", None, None, (4, 4, 6), 12, 0),
        # Each of 16 input positions meets each of the 12 * 6 * 5 weights.
        ("up", "ConvTranspose", (4, 3), (2, 1), (8, 4, 5), 12 * 6 * 5 + 5, 16 * 12 * 6 * 5),
        ("pool", "MaxPool", (2, 2), (1, 1), (7, 3, 5), 0, 0),
        ("shared", "Dense", None, None, (7, 3, 5), 30, 21 * 25),
        ("shared", "Dense", None, None, (7, 3, 5), 0, 21 * 25),
        ("mean", "GlobalAvgPool", None, None, (5,), 0, 0),
    ]
    init = Nested(library).init
    params = jax.eval_shape(lambda x: init(jax.random.key(0), x, train=False), jnp.ones((1, 8, 7, 4)))["params"]
    assert volumes.total.parameters == sum(p.size for p in jax.tree.leaves(params))
    # Eight rows in steps of two need one zero for the last window of three, seven columns one for the last of two.
    assert volumes[0].padding == ((0, 1), (0, 1))
    assert fields(volumes[2]) == [(3, 2, 0), (2, 2, 0)]
    # SAME is as in Keras: two zeros on both sides of 4 rows spread to 7, for 4x2 outputs; of 4 columns as for a Conv.
    assert volumes[3].padding == ((2, 2), (2, 2))
    assert [row.connections for row in volumes] == [
        16 * 72, 0, 0, 16 * 360 + 160, 105 * 4, 21 * 30, 21 * 30, 105,
    ]  # fmt: skip
    assert [row.dense_parameters for row in volumes if row.kernel] == [224 * 96, 96 * 160 + 160, None]


def test_a_layer_alone_and_a_sequence():
    volumes = describe(layers.Conv(3, 2, padding="VALID"), (9, 4))
    assert costs(volumes) == [("Conv", "Conv", (2,), (1,), (8, 3), 27, 8 * 24)]
    assert fields(volumes[0]) == [(2, 1, 0)]
    rows = describe(nn.Sequential([layers.Dense(3), nn.relu, layers.Dense(2)]), (9,))
    assert [(row.layer, row.parameters, row.receptive_field) for row in rows] == [
        ("layers_0", 30, None),
        ("layers_2", 8, None),
    ]


class Stock(nn.Module):
    """What a book on Flax would write."""

    @nn.compact
    def __call__(self, x, *, deterministic: bool, training=True):
        assert not training
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = nn.avg_pool(x, (3, 3), strides=(2, 2), padding="SAME", count_include_pad=False)
        x = nn.BatchNorm()(x, use_running_average=not training)
        x = nn.Dropout(0.5, deterministic=deterministic)(x)
        x = layers.Conv(4, (2, 2), padding=((0, 1), (1, 0)), mask=np.eye(4) * [[[[1]], [[0]]]] * np.ones((2, 1, 1, 1)))(
            x
        )
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def test_pools_that_are_functions_and_masks():
    volumes = describe(Stock(), (8, 8, 1))
    rows = {row.layer: row for row in volumes}
    assert list(rows) == ["Conv_0", "max_pool", "avg_pool", "BatchNorm_0", "Conv_1", "Dense_0"]
    assert rows["max_pool"] == LayerRow(
        layer="max_pool", kind="function", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), output=(4, 4, 4),
        connections=64 * 4, receptive_field=rows["max_pool"].receptive_field, memory=256,
    )  # fmt: skip
    assert fields(rows["max_pool"]) == [(4, 2, -1)] * 2
    assert (rows["avg_pool"].padding, rows["avg_pool"].connections) == (((0, 1), (0, 1)), 16 * 9)
    # Of the window's two columns the mask leaves the first, and there one weight a map, in each of two rows.
    assert rows["Conv_1"].connections == 16 * 2 + 16
    assert rows["Conv_1"].multiply_adds == 4 * 64


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.Dense(5)(x), None


class Lifted(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, _ = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)()(x)
        x, _ = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False}, length=4)()(x)
        heads = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=6)
        return {"all": heads(2)(x).sum(0), "none": None}


def test_layers_in_loops_and_side_by_side_count_as_often_as_they_are_there():
    volumes = describe(Lifted(), (5,))
    assert [(row.parameters, row.multiply_adds, row.connections) for row in volumes] == [
        (3 * 30, 3 * 25, 3 * 30),
        (30, 4 * 25, 4 * 30),
        (6 * 12, 6 * 10, 6 * 12),
    ]
    assert [row.memory for row in volumes] == [3 * 20, 4 * 20, 6 * 8]


class Base(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("scale", nn.initializers.ones, (x.shape[-1],))


class Odd(Base):
    """Calls its parent, has parameters in a tree and in a box, is called by another method, and returns a pair."""

    @nn.compact
    def __call__(self, x):
        x = super().__call__(x)
        self.param("tree", lambda key: {"a": jnp.ones(3), "b": jnp.ones((2, 2))})
        return x, x[..., :1]

    @nn.compact
    def encode(self, x):
        return self.param("boxed", nn.with_partitioning(nn.initializers.ones, ("x",)), (4,)) + x


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x):
        pair = Odd(name="pair")(x)
        boxed = nn.with_partitioning(nn.initializers.ones, ("in", "out"))
        return Odd(name="encoded").encode(pair[0]), nn.Dense(2, kernel_init=boxed, name="kept")(inputs=x)


def test_every_parameter_is_counted_once():
    volumes = describe(Outer(), (3, 4))
    assert [(row.layer, row.output, row.parameters, row.memory) for row in volumes] == [
        ("pair", (3, 4), 4, 4 * (12 + 3)),
        ("encoded", (3, 4), 4, 48),
        ("kept", (3, 2), 10, 24),
        ("elsewhere", (), 7, 0),
    ]
    assert volumes.total.parameters == 25
    assert volumes.total.output == (3, 2)


def test_nothing_is_computed():
    # Its scores alone would fill 40 GB.
    volumes = describe(models.build("lenet5"), (128_032, 128_032, 1))
    assert volumes[-1].output == (32_001, 32_001, 10)
    assert "38.1 GiB" in volumes.text()


class TwoInputs(nn.Module):
    def __call__(self, x, mask, train=False):
        return x * mask


class NoCall(nn.Module):
    def encode(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        (models.LeNet5, (32, 32, 1), r"expected a model, got the class LeNet5; build it: LeNet5\(\.\.\.\)"),
        (jnp.tanh, (3,), "expected a Linen module with a __call__, got"),
        (NoCall(), (3,), "expected a Linen module with a __call__, got NoCall"),
        (TwoInputs(), (3,), "got TwoInputs, which needs mask too"),
        (nn.Dense(2), (), r"input_shape must be .* got \(\)"),
        (nn.Dense(2), (3, 0), r"input_shape must be .* got \(3, 0\)"),
        (nn.Dense(2), (2.5, 3), r"input_shape must be .* got \(2.5, 3\)"),
        (nn.Dense(2), 7, "input_shape must be .* got 7"),
    ],
)
def test_misuse_is_named_in_one_line(model, shape, says):
    with pytest.raises(InputError, match=says) as error:
        describe(model, shape)
    assert "\n" not in str(error.value)


def test_the_model_says_what_it_expects():
    with pytest.raises(InputError, match=r"LeNet5 expects images .* got shape \(1, 28, 28, 1\)"):
        describe(models.build("lenet5"), (28, 28, 1))


@pytest.fixture(scope="module")
def volumes():
    return describe(models.build("lenet5_original"), (32, 32, 1))


def test_volumes_are_a_sequence(volumes):
    assert isinstance(volumes, Volumes)
    assert len(volumes) == len(list(volumes)) == 7
    assert volumes[-1].layer == "output"
    assert [row.layer for row in volumes[:2]] == ["C1", "S2"]
    assert describe(nn.Dropout(0.5, deterministic=True), (4, 3)).total == LayerRow(
        layer="total", kind="", output=(4, 3)
    )


def expected_cells(volumes):
    """The rows of the table, from the fields."""

    def number(count):
        return f"{count:,}" if count else ""

    for row in [*volumes, volumes.total]:
        field = row.receptive_field[0] if row.receptive_field else None
        memory = f"{row.memory} B" if row.memory < 1024 else f"{row.memory / 1024:.1f} KiB"
        yield [
            row.layer, row.kind, "x".join(map(str, row.kernel or ())), "x".join(map(str, row.stride or ())),
            "0" if row.padding else "", "x".join(map(str, row.output)), number(row.parameters), number(row.connections),
            number(row.multiply_adds), *(map(str, (field.size, field.stride, field.offset)) if field else [""] * 3),
            memory, number(row.dense_parameters),
        ]  # fmt: skip


def test_text(volumes):
    heading, rule, image, *table, again, total, _, first, second = volumes.text().splitlines()
    assert max(map(len, volumes.text().splitlines())) <= 100
    assert heading.split()[-5:] == ["mult-adds", "sees", "step", "from", "memory"]
    assert set(rule) == set(again) == {"-"}
    assert image.split() == ["input", "32x32x1"]
    for line, cells in zip([*table, total], expected_cells(volumes), strict=True):
        assert line.split() == " ".join(cells[:-1]).split()
        assert line.endswith(cells[-2])
    sentence = "Sharing weights: the convolutions have 49,792 parameters; dense layers between the same volumes would "
    assert f"{first} {second}" == f"{sentence}need 6,752,920."
    assert str(volumes) == volumes.text()


def test_markdown(volumes):
    headings, marks, image, *table, blank, sentence = volumes.markdown().splitlines()
    columns = [cell.strip() for cell in headings.split("|")[1:-1]]
    assert columns[9:12] == ["receptive field size", "receptive field stride", "receptive field offset"]
    assert len(set(columns)) == len(columns) == marks.count("--") == image.count("|") - 1 == 14
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in table] == list(expected_cells(volumes))
    assert (blank, sentence[:7]) == ("", "Sharing")


class Reader(HTMLParser):
    """Cells of the rows of a table, with the elements balanced."""

    def __init__(self, text):
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_html(volumes):
    rows = Reader(volumes.html()).rows
    assert rows[0][9:] == ["receptive field", "memory", "parameters if dense"]
    assert rows[1] == ["size", "stride", "offset"]
    assert rows[3:] == list(expected_cells(volumes))
    assert volumes._repr_html_() == volumes.html()
    assert volumes.html().count("title=") == 10
    for colour in ("color:", "background"):
        assert colour not in volumes.html()


def test_names_cannot_break_the_table():
    class Sly(nn.Module):
        @nn.compact
        def __call__(self, x):
            return layers.Dense(1, name="<b>|&")(x)

    volumes = describe(Sly(), (2, 3))
    assert Reader(volumes.html()).rows[3][0] == "<b>|&"
    assert r"| <b>\|& |" in volumes.markdown()


@pytest.mark.parametrize(
    ("padding", "pairs", "cell"),
    [
        ("SAME", ((1, 2),), "1+2"),
        ("SAME_LOWER", ((2, 1),), "2+1"),
        ("CAUSAL", ((3, 0),), "3+0"),
        ("REFLECT", ((1, 2),), "1+2"),
        (2, ((2, 2),), "2"),
        ([(0, 5)], ((0, 5),), "0+5"),
    ],
)
def test_padding(padding, pairs, cell):
    # Windows of extent four at 0, 2, ... of nine elements: the fifth is the last that "SAME" keeps.
    model = nn.Conv(1, 2, strides=2, kernel_dilation=3, padding=padding)
    volumes = describe(model, (9, 1))
    assert volumes[0].padding == pairs
    assert volumes.text().splitlines()[3].split()[4] == cell


def test_what_differs_by_axis():
    volumes = describe(layers.Conv(1, (2, 3), strides=(1, 2), padding=((1, 0), (1, 1)), name="c"), (9, 9, 1))
    line = volumes.text().splitlines()[3].split()
    assert line == ["Conv", "Conv", "2x3", "1x2", "1+0,1", "9x5x1", "7", "315", "270", "2,3", "1,2", "-1", "180", "B"]


def test_every_model_fits_a_terminal():
    for name in KINDS:
        model: Any = models.build(name)
        size = models.input_size(model) or model.usual_size
        assert max(map(len, describe(model, (*size, 3)).text().splitlines())) <= 100, name
