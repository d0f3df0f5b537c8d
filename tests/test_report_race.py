"""A run that another program was trained beside: accuracy over seconds of both, in its report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cnn_jax import pictures
from cnn_jax.report import race
from tests.reports import HOSTILE, make_findings

RECORDS = [
    {"split": "train", "step": 4, "loss": 1.0, "accuracy": 0.5, "seconds": 2.5},
    {"split": "test", "step": 4, "loss": 1.0, "accuracy": 0.7},
    {"split": "batch", "step": 5, "loss": 1.0, "accuracy": 0.6},
    {"split": "train", "step": 8, "loss": 0.5, "accuracy": 0.8, "seconds": 6.0},
    {"split": "test", "step": 8, "loss": 0.5, "accuracy": 0.9},
]
THEIRS = {"name": HOSTILE[0], "course": [[3.0, 0.6], [7.5, 0.8]]}


def test_both_courses_are_drawn_over_their_seconds(tmp_path):
    found = make_findings(tmp_path / "run", test=False, records=RECORDS)
    assert race.section(found, tmp_path / "run") == ""
    (tmp_path / "run" / "yardstick.json").write_text(json.dumps(THEIRS))
    assert race.course(found) == [(2.5, 0.7), (6.0, 0.9)]
    html = race.section(found, tmp_path / "run")
    assert html.count("<svg") == 1
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    figure = pictures.race({"ours": race.course(found), "theirs": THEIRS["course"], "none": [(1.0, float("nan"))]})
    ours, theirs, none = figure.axes[0].lines
    np.testing.assert_allclose(ours.get_xydata(), [[2.5, 70.0], [6.0, 90.0]])
    np.testing.assert_allclose(theirs.get_xydata(), [[3.0, 60.0], [7.5, 80.0]])
    assert len(none.get_xydata()) == 0
    assert figure.axes[0].get_xlim()[1] >= 7.5


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', '{"name": "x", "course": [1]}', "[" * 10**5])
def test_a_damaged_course_is_none(tmp_path, text):
    (tmp_path / "yardstick.json").write_text(text)
    assert race.read_yardstick(tmp_path) is None
