"""Boxes, non-maximum suppression, matching and average precision, against loops, hand-worked cases and scikit-learn."""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from cnn_jax import detection
from tests import quick

ROWS = 12  # all arrays of the random cases have as many rows, so that each function is compiled once
iou = quick.jit(detection.iou)
cover = quick.jit(detection.cover)
suppress = quick.jit(detection.non_max_suppression)
match = quick.jit(detection.match)

cases = settings(deadline=None, max_examples=40)


def loop_iou(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    sizes = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (a, b)]
    union = sizes[0] + sizes[1] - height * width
    return height * width / union if union > 0 else 0.0


@st.composite
def boxes(draw):
    # On a coarse grid, so that boxes coincide, touch, and have no area, often.
    edges = draw(st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=ROWS, max_size=ROWS))
    return np.array([(*np.minimum(e[:2], e[2:]), *np.maximum(e[:2], e[2:])) for e in np.array(edges)], np.float32)


def rows(values):
    return st.lists(values, min_size=ROWS, max_size=ROWS).map(np.array)


scores = rows(st.sampled_from([-math.inf, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])).map(np.float32)
labels = rows(st.integers(0, 2)).map(np.int32)


def test_iou_by_hand():
    found = iou(jnp.array([[0.0, 0, 2, 2], [0, 0, 4, 1]]), jnp.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]]))
    np.testing.assert_allclose(found, [[1 / 7, 1, 0], [0, 2 / 6, 0]], rtol=1e-6)


@cases
@given(boxes(), boxes())
def test_iou_is_that_of_a_loop(first, second):
    expected = [[loop_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(iou(first, second), expected, atol=1e-6)


@cases
@given(boxes(), boxes())
def test_cover_is_that_of_a_loop(first, second):
    def share(a, b):
        smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
        sides = [max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
        return sides[0] * sides[1] / smaller if smaller else 0

    np.testing.assert_allclose(cover(first, second), [[share(a, b) for b in second] for a in first], atol=1e-6)


@cases
@given(boxes(), scores, labels, st.sampled_from([0.0, 0.3, 0.5]), st.booleans())
def test_suppression_is_that_of_a_loop(boxes, scores, labels, threshold, by_class):
    kept: list[int] = []
    for row in sorted(range(ROWS), key=lambda row: -scores[row]):  # sorting is stable, as it is to be
        rivals = [other for other in kept if not by_class or labels[other] == labels[row]]
        if np.isfinite(scores[row]) and all(loop_iou(boxes[row], boxes[other]) <= threshold for other in rivals):
            kept.append(row)
    found = suppress(boxes, scores, threshold, labels if by_class else jnp.zeros_like(labels))
    assert np.flatnonzero(found).tolist() == sorted(kept)


def test_where_there_are_no_boxes_there_is_nothing_to_do():
    none, some = jnp.zeros((0, 4)), jnp.ones((2, 4))
    empty, two = jnp.zeros(0), jnp.ones(2)
    assert suppress(none, empty, 0.5).tolist() == []
    assert match(none, empty, empty, some, two, two > 0).tolist() == []
    assert match(some, two, two, none, empty, empty > 0).tolist() == [-1, -1]


def test_suppression_without_labels_is_across_classes():
    boxes, scores = jnp.array([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 1, 1]]), jnp.array([0.5, 0.9, 0.1])
    assert suppress(boxes, scores, 0.5).tolist() == [False, True, True]
    assert suppress(boxes, scores, 0.5, jnp.array([0, 1, 0])).tolist() == [True, True, True]


def voc_loop(boxes, labels, scores, true_boxes, true_labels, valid, threshold):
    """As the development kit of PASCAL VOC does it, for one image and all classes."""
    taken, found = set(), [-1] * len(boxes)
    for row in sorted(range(len(boxes)), key=lambda row: -scores[row]):
        best, at = 0.0, -1
        for k, true in enumerate(true_boxes):
            overlap = loop_iou(boxes[row], true)
            if valid[k] and true_labels[k] == labels[row] and overlap > best:
                best, at = overlap, k
        if np.isfinite(scores[row]) and best >= threshold and at not in taken:
            taken.add(at)
            found[row] = at
    return found


@cases
@given(boxes(), labels, scores, boxes(), labels, rows(st.booleans()), st.sampled_from([0.25, 0.5, 1.0]))
def test_matching_is_that_of_a_loop(boxes, labels, scores, true_boxes, true_labels, valid, threshold):
    case = boxes, labels, scores, true_boxes, true_labels, valid, threshold
    assert np.asarray(match(*case)).tolist() == voc_loop(*case)


def test_matching_by_hand():
    truth = jnp.array([[0.0, 0, 10, 10], [20, 20, 30, 30]]), jnp.array([3, 4]), jnp.array([True, True])
    found = jnp.array([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [20, 20, 30, 26]]), jnp.array([3, 3, 3, 4])
    # The surer of two on one digit takes it, even if its box is worse; a box of another class is wrong.
    assert match(*found, jnp.array([0.9, 0.8, 0.7, 0.6]), *truth).tolist() == [0, -1, -1, 1]
    assert match(*found, jnp.array([0.8, 0.9, 0.7, 0.6]), *truth, 0.7).tolist() == [-1, 0, -1, -1]


def test_average_precision_by_hand():
    # Right, wrong, right, wrong, right of five: precision 1, 2/3, 3/5 at recalls 1/5, 2/5, 3/5; two are never found.
    hits, scores = np.array([True, False, True, False, True]), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert detection.average_precision(scores, hits, 5) == pytest.approx((1 + 2 / 3 + 3 / 5) / 5)
    # A precision that rises again lifts all before it: wrong, right, right gives 2/3 from the start.
    assert detection.average_precision(scores[:3], ~hits[:3] | (scores[:3] < 0.75), 2) == pytest.approx(2 / 3)
    assert detection.average_precision(scores, np.ones(5, bool), 5) == 1
    assert detection.average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
    assert math.isnan(detection.average_precision(scores, ~hits, 0))


@cases
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_average_precision_against_scikit_learn(case):
    case += [(4, True)]  # there is something to find
    scores, hits = np.array([score / 10 for score, _ in case]), np.array([hit for _, hit in case])
    precision, recall = detection.precision_recall(scores, hits, int(hits.sum()))
    expected_precision, expected_recall, _ = precision_recall_curve(hits, scores)
    np.testing.assert_allclose(precision, expected_precision[:-1][::-1])
    np.testing.assert_allclose(recall, expected_recall[:-1][::-1])
    # scikit-learn's sum takes the precision at each recall itself, ours the best at that recall or more.
    found = detection.average_precision(scores, hits, int(hits.sum()))
    assert found >= average_precision_score(hits, scores) - 1e-12
    if (np.diff(precision) <= 0).all():
        assert found == pytest.approx(average_precision_score(hits, scores))
    steps = np.concatenate([[0], recall])
    areas = [(high - low) * precision[k:].max() for k, (low, high) in enumerate(itertools.pairwise(steps))]
    assert found == pytest.approx(sum(areas))
    # Digits that nothing found count in the recall alone.
    assert detection.average_precision(scores, hits, 2 * int(hits.sum())) == pytest.approx(found / 2)
