"""The volume tables of the networks with batch norms and residual branches, against numbers worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from cnn_jax import models
from cnn_jax.describe import describe
from cnn_jax.models.resnet import _Block
from tests.test_receptive_field import Model, check, seen


def fields(row):
    return [(field.size, field.stride, field.offset) for field in row.receptive_field]


# Size, stride and offset by layer: a window of k at stride s adds k - 1 steps, padding p begins p steps earlier.
CIFARNET_SEES = {
    "whiten": (2, 1, 0),
    "group_1/conv_1": (4, 1, -1), "group_1/pool": (5, 2, -1), "group_1/conv_2": (9, 2, -3),
    "group_2/conv_1": (13, 2, -5), "group_2/pool": (15, 4, -5), "group_2/conv_2": (23, 4, -9),
    "group_3/conv_1": (31, 4, -13), "group_3/pool": (35, 8, -13), "group_3/conv_2": (51, 8, -21),
    "pool": (67, 24, -21), "output": (67, None, -21),
}  # fmt: skip
RESNET18_SEES = {
    "stem": (3, 1, -1),
    "block_1/conv_1": (5, 1, -2), "block_1/conv_2": (7, 1, -3),
    "block_2/conv_1": (9, 1, -4), "block_2/conv_2": (11, 1, -5),
    "block_3/conv_1": (13, 2, -6), "block_3/conv_2": (17, 2, -8), "block_3/shortcut": (11, 2, -5),
    "block_4/conv_1": (21, 2, -10), "block_4/conv_2": (25, 2, -12),
    "block_5/conv_1": (29, 4, -14), "block_5/conv_2": (37, 4, -18), "block_5/shortcut": (25, 4, -12),
    "block_6/conv_1": (45, 4, -22), "block_6/conv_2": (53, 4, -26),
    "block_7/conv_1": (61, 8, -30), "block_7/conv_2": (77, 8, -38), "block_7/shortcut": (53, 8, -26),
    "block_8/conv_1": (93, 8, -46), "block_8/conv_2": (109, 8, -54),
    "mean": (133, None, -54), "output": (133, None, -54),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sees", "parameters", "multiply_adds"),
    [
        (
            "cifarnet", CIFARNET_SEES, 1_971_640,
            31**2 * (12 * 24 + 9 * 24 * 64) + 15**2 * 9 * (64 * 64 + 64 * 256)
            + 7**2 * 9 * 2 * 256 * 256 + 3**2 * 9 * 256 * 256 + 2560,
        ),
        # 0.56 thousand million, as the network is known by; a stage has 4 convolutions, one of them of half the inputs.
        (
            "resnet18", RESNET18_SEES, 11_173_962,
            32**2 * 27 * 64 + 9 * (4 + 3 * 3.5) * 32**2 * 64**2 + 3 * 32**2 * 64**2 / 2 + 5120,
        ),
    ],
)  # fmt: skip
def test_the_volume_table(name, sees, parameters, multiply_adds):
    volumes = describe(models.build(name), (32, 32, 3))
    rows = {row.layer: row for row in volumes}
    norms = {name: row for name, row in rows.items() if "norm" in name}
    assert {row.kind for row in norms.values()} == {"BatchNorm"}
    assert set(rows) == set(sees) | set(norms)
    assert {name: fields(rows[name]) for name in sees} == {name: [seen] * 2 for name, seen in sees.items()}
    # A norm sees what it is given.
    assert all(fields(before) == fields(row) for before, row in itertools.pairwise(volumes) if row.kind == "BatchNorm")
    assert (volumes.total.parameters, volumes.total.multiply_adds) == (parameters, multiply_adds)
    assert volumes.total.output[-1] == 10


def test_a_unit_behind_residual_blocks_sees_what_either_branch_does():
    model = Model(lambda x: _Block(2, 1)(_Block(2, 2)(x, False), False))
    shape = (9, 8, 2)
    check(describe(model, shape)[-1].receptive_field, seen(model, shape))


@pytest.mark.parametrize(
    ("name", "left_out"), [("lenet5", []), ("cifarnet", ["connections"]), ("resnet18", ["connections", "kind"])]
)
def test_a_table_too_wide_for_a_terminal_is_narrowed_there_and_whole_elsewhere(name, left_out):
    volumes = describe(models.build(name), (32, 32, 3))
    heading, *lines = volumes.text().splitlines()
    assert max(map(len, [heading, *lines])) <= 100
    assert [column for column in ("connections", "kind") if column not in heading.split()] == left_out
    assert ("left out" in lines[-1].lower()) == bool(left_out)
    assert all(column in lines[-1] for column in left_out)
    assert all(
        f"{row.multiply_adds:,}" in line for row, line in zip(volumes, lines[2:], strict=False) if row.multiply_adds
    )
    for whole in (volumes.markdown(), volumes.html()):
        assert "connections" in whole
        assert f"{volumes.total.connections:,}" in whole
