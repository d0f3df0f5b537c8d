"""The curves of a run: what is drawn where, on what scale, with what numbers at the axes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from cnn_jax import pictures
from cnn_jax.pictures.curves import epochs_after, log_ticks
from tests.test_figures import texts


def of_accuracies(*accuracies, split="train", loss=0.3):
    return [{"split": split, "step": k, "loss": loss, "accuracy": a} for k, a in enumerate(accuracies, 1)]


def numbers(axes, which="y"):
    """The numbers written at an axis, within its limits."""
    axes.figure.draw_without_rendering()
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    return [float(t.get_text()) for t in axis.get_ticklabels() if low <= t.get_position()[which == "y"] <= high]


def test_values_over_a_factor_of_ten_take_a_logarithmic_axis_with_plain_numbers():
    loss, error = pictures.curves([of_accuracies(0.1, 0.9, 0.99)]).axes
    assert (loss.get_yscale(), error.get_yscale()) == ("linear", "log")
    low, high = error.get_ylim()
    assert 0 < low < 1 < 90 < high < 200
    assert numbers(error) == [1, 3, 10, 30, 100] or numbers(error) == [1, 2, 5, 10, 20, 50, 100]


def test_an_error_of_zero_is_on_the_axis_at_its_foot():
    error = pictures.curves([of_accuracies(0.1, 0.9, 0.99, 1.0)]).axes[1]
    assert numbers(error)[:2] == [0, 1]
    assert error.lines[0].get_ydata()[-1] == 0
    # Where it is drawn: at the foot, clearly below the least that is not 0, and above that as on a logarithmic axis.
    heights = error.transData.transform([(4, y) for y in (0, 1, 10, 100)])[:, 1]
    foot, head = error.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    assert heights[0] == pytest.approx(foot)
    assert (heights[1] - foot) / (head - foot) > 0.08
    assert heights[2] - heights[1] == pytest.approx(heights[3] - heights[2], rel=0.1)
    assert not error.lines[0].get_clip_on()  # half of the line lies below the axis


@pytest.mark.parametrize("accuracies", [(1.0,), (1.0, 1.0), (0.99, 1.0), (0.95, 1.0)])
def test_zeros_among_values_of_one_size_need_no_logarithm_and_no_error_is_below_zero(accuracies):
    error = pictures.curves([of_accuracies(*accuracies)]).axes[1]
    assert error.get_yscale() == "linear" or accuracies[0] < 1
    assert error.get_ylim()[0] == 0
    assert 0 in numbers(error)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10, 60, 1000])
def test_epochs_are_counted_from_zero_in_whole_numbers(epochs):
    records = of_accuracies(*np.linspace(0.5, 0.9, epochs))
    for axes in pictures.curves([records], steps_per_epoch=1).axes:
        found = numbers(axes, "x") if axes.xaxis.get_tick_params()["labelbottom"] else []
        low, high = axes.get_xlim()
        assert low == 0
        assert epochs <= high < 1.1 * epochs
        assert found == [round(number) for number in found]
        assert len(set(found)) == len(found) <= 8
    assert {0, 1} <= set(found) if epochs == 1 else len(found) >= 3


def test_a_single_epoch_is_a_point_and_of_several_seeds_a_bar():
    runs = [of_accuracies(0.9), of_accuracies(0.7)]
    for axes in pictures.curves(runs[:1]).axes:
        assert axes.lines[0].get_marker() == "o"
        assert axes.lines[0].get_markersize() > 2
    [bar] = pictures.curves(runs).axes[1].collections
    np.testing.assert_allclose(bar.get_segments()[0], [[1, 10], [1, 30]])
    assert bar.get_linewidth()[0] > 3
    # Of many epochs the points would hide the line.
    assert pictures.curves([of_accuracies(*np.linspace(0, 1, 60))]).axes[1].lines[0].get_marker() == ""


def test_a_step_that_reaches_into_the_next_epoch_ends_its_own():
    per_epoch = 1437 / 64
    ends = [int(-(-k * per_epoch // 1)) for k in range(1, 61)]
    assert epochs_after(ends, per_epoch).tolist() == list(range(1, 61))
    assert epochs_after(30, per_epoch) == 30 / per_epoch


def test_what_is_not_finite_is_left_out_and_said():
    # As `metrics.jsonl` has it.
    values = json.loads("[2.0, NaN, Infinity, 1.0]")
    records = [{"split": "train", "step": k, "loss": v, "accuracy": 0.5} for k, v in enumerate(values)]
    figure = pictures.curves([records])
    loss = figure.axes[0]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [2.0, np.nan, np.nan, 1.0])
    assert all(np.isfinite(loss.get_ylim()))
    assert texts(figure).count("not finite where the line is missing") == 1
    for lost in (records[1:3], []):
        assert not pictures.curves([lost]).axes[0].lines
        texts(pictures.curves([lost]))


def test_the_loss_without_smoothing_is_dashed_beside_the_loss():
    records = [{**r, "cross_entropy": r["loss"] / 2} for r in of_accuracies(0.5, 0.6, split="test")]
    loss, error = pictures.curves([[*of_accuracies(0.5, 0.6), *records]]).axes
    styles = {line.get_linestyle(): line.get_ydata().tolist() for line in loss.lines}
    assert styles["--"] == [0.15, 0.15]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "test"]
    assert [line.get_linestyle() for line in error.lines] == ["-", "-"]


@pytest.mark.parametrize(("low", "high"), list(itertools.pairwise([1e-30, 3e-7, 1e-3, 0.02, 0.9, 13, 200, 5e4, 1e12])))
def test_logarithmic_axes_have_some_round_numbers(low, high):
    for greatest in (high, 12 * low):
        found = log_ticks(low, greatest)
        assert 1 <= len(found) <= 7
        assert all(low <= number <= greatest for number in found)
        digits = {f"{number:e}".split("e")[0] for number in found}
        assert digits <= {"1.000000", "2.000000", "3.000000", "5.000000"}
