"""What a report says of smoothed labels, of things found in scenes, and of names; from findings made by hand."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from cnn_jax import data, detection, pictures
from cnn_jax.pictures.features import feature_maps_in_two
from cnn_jax.report import findings, page, scenes, sections, several, write, write_report
from cnn_jax.training import Accuracy, CalibrationError, Seen, SoftmaxCrossEntropy, TopK
from tests.reports import HOSTILE, Page, assert_self_contained, make_findings


def smoothed(found, share):
    return dataclasses.replace(found, run=dataclasses.replace(found.run, loss=SoftmaxCrossEntropy(share)))


def boxes(html):
    """The large figures at the top: by name, (value, remark)."""
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)<small>(.*?)</small>", html)
    return {name: (value, remark) for name, value, remark in found}


# Smoothed labels.


def test_beside_the_loss_of_smoothed_labels_stand_its_floor_and_the_loss_without(tmp_path):
    found = smoothed(make_findings(tmp_path / "run", names="abcde"), 0.2)
    targets = np.array([0.84, 0.04, 0.04, 0.04, 0.04])
    floor = -(targets * np.log(targets)).sum()
    evaluation = found.test.evaluation
    evaluation = dataclasses.replace(evaluation, metrics=evaluation.metrics | {"cross_entropy": 1.25})
    found = dataclasses.replace(found, test=dataclasses.replace(found.test, evaluation=evaluation))
    value, remark = boxes(sections.summary(found))["test loss"]
    assert value == "2.0000"
    assert remark == (
        f"softmax_cross_entropy(label_smoothing=0.2), whose smoothed labels keep it above {floor:.4f}; "
        "without smoothing the cross-entropy is 1.2500"
    )
    assert f"smoothed, so the loss cannot fall below {floor:.4f}." in sections.curves_caption(found, [[]])
    recorded = [[{"split": "test", "step": 1, "cross_entropy": 0.1}]]
    assert "dashed is the cross-entropy without smoothing" in sections.curves_caption(found, recorded)


@pytest.mark.parametrize("extra", [{}, {"cross_entropy": 0.125}])
def test_without_the_images_the_loss_without_smoothing_is_the_recorded_one(extra, tmp_path):
    record = {"split": "test", "step": 7, "loss": 0.75, "accuracy": 0.875, **extra}
    found = smoothed(make_findings(tmp_path / "run", names="abcde", test=False, records=[record]), 0.1)
    _, remark = boxes(sections.summary(found))["test loss"]
    assert ("without smoothing the cross-entropy is 0.1250" in remark) == bool(extra)
    assert "smoothed labels keep it above 0.3" in remark


def test_labels_that_are_not_smoothed_are_not_mentioned(tmp_path):
    found = make_findings(tmp_path / "run", names="abc")
    assert "smooth" not in sections.summary(found) + sections.learning(found)


def test_seeds_have_a_column_of_the_loss_without_smoothing(tmp_path):
    found = smoothed(make_findings(tmp_path / "run", names="abcde", test=False), 0.1)
    tests = [{"split": "test", "step": 1, "loss": 0.6, "accuracy": a, "cross_entropy": a / 8} for a in (0.5, 0.75)]
    seeds = [
        several.Seed(seed=k, path=tmp_path, records=[test], test=test, detection=None) for k, test in enumerate(tests)
    ]
    html = "".join(several.comparison(seeds, found))
    assert "without smoothing</th>" in html
    assert "<td>0.0625</td>" in html
    said = "without smoothing the cross-entropy is 0.0781"
    assert said in boxes(several.summary(seeds, found))["test loss, at the last step"][1]


# Metrics.


METRICS = (TopK(2), CalibrationError(), Accuracy())


def test_each_metric_has_a_figure_of_its_own(tmp_path):
    found = make_findings(tmp_path / "run", names="abc", metrics=METRICS)
    figures = boxes(sections.summary(found))
    assert list(figures)[:4] == ["test accuracy", "test loss", "test top2", "test calibration_error"]
    assert (figures["test top2"][0], figures["test calibration_error"][0]) == ("12.50%", "0.1250")


def test_each_metric_is_taken_from_the_records_where_the_images_are_gone_if_it_is_there(tmp_path):
    record = {"split": "test", "step": 7, "loss": 0.75, "accuracy": 0.875, "top2": 0.9375}
    found = make_findings(tmp_path / "run", names="abc", metrics=METRICS, test=False, records=[record])
    figures = boxes(sections.summary(found))
    assert figures["test top2"][0] == "93.75%"
    assert "test calibration_error" not in figures


def test_seeds_have_a_column_and_a_mean_of_each_metric(tmp_path):
    found = make_findings(tmp_path / "run", names="abc", metrics=METRICS, test=False)
    shared = {"split": "test", "step": 1, "loss": 0.6, "accuracy": 0.5}
    tests = [shared | {"top2": share, "calibration_error": share / 4} for share in (0.75, 0.5)]
    seeds = [
        several.Seed(seed=k, path=tmp_path, records=[test], test=test, detection=None) for k, test in enumerate(tests)
    ]
    table = several.comparison(seeds, found)[1]
    header, cells = re.findall("<th(?: [^>]*)?>(.*?)</th>", table), re.findall("<td>(.*?)</td>", table)
    assert header == ["seed", "test accuracy", "test loss", "test top2", "test calibration_error"]
    assert cells == ["50.00%", "0.6000", "75.00%", "0.1875", "50.00%", "0.6000", "50.00%", "0.1250"]
    figures = boxes(several.summary(seeds, found))
    assert figures["test top2, at the last step"][0].startswith("62.50 ")
    assert figures["test calibration_error, at the last step"][0].startswith("0.1562 ")


# The first batch.


def test_the_first_batch_is_shown_with_its_targets_in_its_own_colours(tmp_path):
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (2, 20, 16, 3), np.uint8)
    mixed = Seen(
        images=data.normalise(pixels, make_findings(tmp_path / "run").run.statistics),
        targets=np.array([[0, 0.3, 0.7], [1, 0, 0]], np.float32),
        indices=np.arange(2),
    )
    found = make_findings(tmp_path / "run", names=("ape", "<b>", "cow"), seen=mixed, augment="mixup(alpha=0.5)")
    html = sections.shown(found)
    text = Page(html).text
    assert "cow 70%" in text
    assert "<b> 30%" in text
    assert "ape %" not in text
    assert "after mixup(alpha=0.5)" in text
    assert "of mixed images, the classes and their shares" in text


def test_a_first_batch_that_nothing_changed_says_so(tmp_path):
    whole = Seen(images=np.ones((1, 8, 8, 1), np.float32), targets=np.eye(3)[:1], indices=np.arange(1))
    found = make_findings(tmp_path / "run", names="abc", channels=1, seen=whole, augment="none")
    assert "unchanged. Below each is what it was to answer." in Page(sections.shown(found)).text


def test_without_the_training_images_the_first_batch_is_left_out(tmp_path):
    html = sections.shown(make_findings(tmp_path / "run", names="abc"))
    assert "training images are not available: training images &lt;gone&gt;" in html


# Things found in scenes.


def found_in_three_scenes():
    """Scenes of a 1 and a 2, of which one 2 is missed and one thing is found that is not there."""
    places = np.array([[[0, 0, 10, 10], [50, 50, 70, 60]]] * 3, np.float32)
    labels = np.array([[1, 2]] * 3)
    made = detection.Scene(np.zeros((3, 128, 128, 1), np.uint8), places, labels, np.ones((3, 2), bool))
    scores = np.array([[0.9, 0.8], [0.95, 0.85], [0.7, 0.6]])
    hits = np.array([[0, 1], [0, 1], [0, -1]])
    given = detection.Detections(boxes=places, labels=labels, scores=scores)
    return detection.Found(scenes=made, detections=given, hits=hits)


@pytest.fixture
def detector(tmp_path):
    found = make_findings(tmp_path / "run", names=("0", "1", "<b>2", "background"), channels=1)
    detected = found_in_three_scenes()
    return dataclasses.replace(
        found, detected=detected, detection=detection.figures(detected, found.run.class_names[:-1])
    )


def test_a_detector_is_headed_by_its_average_precision_and_begins_with_its_boxes(detector, monkeypatch):
    for section in ("attention", "features", "filters"):
        monkeypatch.setattr(write.inside, section, lambda found: "")
    monkeypatch.setattr(write, "gather", lambda path: detector)
    html = write_report(detector.run.path).read_text()
    assert_self_contained(html)
    figures = boxes(html)
    assert next(iter(figures)) == "average precision"
    # Of the 1 all, of the 2 two of three.
    assert figures["average precision"][0] == f"{(1 + 2 / 3) / 2:.2%}"
    assert "6 digits in 3 scenes" in figures["average precision"][1]
    assert "window accuracy" in figures
    assert "test accuracy" not in figures
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:2] == ["What it finds", "Learning"]
    rows = re.findall(r'<tr><td class="left">(.*?)</td>(.*?)</tr>', html.split("<h2>Learning")[0])
    cells = {name: re.findall("<td>(.*?)</td>", rest) for name, rest in rows}
    assert cells["1"] == ["3", "100.00%", "100.00%", "100.00%"]
    assert cells["&lt;b&gt;2"] == ["3", "66.67%", "66.67%", "66.67%"]
    assert cells["0"] == ["0", "&#8211;", "&#8211;", "&#8211;"]
    assert cells["all"] == ["6", "83.33%", "83.33%", "83.33%"]
    assert "false alarms, the surest of 1" in Page(html).text


def test_a_detector_without_its_images_is_headed_by_what_it_recorded(detector):
    found = dataclasses.replace(detector, detected=None, test=None, missing="no images")
    assert boxes(sections.summary(found))["average precision"][0] == "83.33%"
    assert "no images" in sections.found_in_scenes(found)


def test_seeds_of_a_detector_are_compared_by_average_precision(detector, tmp_path):
    areas = {3: 0.9, 4: 0.7, 5: 0.8}
    seeds = [
        several.Seed(
            seed=seed, path=tmp_path, records=[], test={"accuracy": seed / 10, "loss": 1.0},
            detection=detector.detection | {"mean_average_precision": area},
        )
        for seed, area in areas.items()
    ]  # fmt: skip
    assert several.median(seeds).seed == 5
    assert "average precision of 80.00% is the median" in several.detail(several.median(seeds))
    figures = boxes(several.summary(seeds, detector))
    assert list(figures)[:2] == ["average precision", "window accuracy, at the last step"]
    assert figures["average precision"][0].startswith("80.00")
    header = re.findall("<th(?: [^>]*)?>(.*?)</th>", several.comparison(seeds, detector)[1])
    assert header == ["seed", "average precision", "window accuracy", "window loss"]


def test_figures_that_cannot_be_used_are_as_none(detector, tmp_path):
    file = tmp_path / "detection.json"
    assert detection.read_figures(tmp_path) is None
    file.write_text(json.dumps(detector.detection))
    assert detection.read_figures(tmp_path) == detector.detection
    for damage in ("[]", "{", "5", "null", "[" * 100_000, json.dumps(detector.detection | {"recall": "x"})):
        file.write_text(damage)
        assert detection.read_figures(tmp_path) is None
    file.write_bytes(b"\xff")
    assert detection.read_figures(tmp_path) is None
    assert scenes.share(None) == "\N{EN DASH}"


@pytest.mark.parametrize("is_recorded", [True, False])
def test_all_scenes_are_searched_only_where_the_figures_are_not_recorded(is_recorded, detector, monkeypatch):
    path, asked = detector.run.path, []
    if is_recorded:
        (path / "detection.json").write_text(json.dumps(detector.detection))
    monkeypatch.setattr(findings, "load_run", lambda path: detector.run)
    monkeypatch.setattr(type(detector.run), "load_data", lambda run, split: detector.test.dataset)
    monkeypatch.setattr(type(detector.run), "evaluate", lambda run, dataset: detector.test.evaluation)
    monkeypatch.setattr(detection, "load_digits", lambda run, split: detector.test.dataset)
    monkeypatch.setattr(
        detection, "find_in_test_scenes", lambda run, digits, scenes=None: asked.append(scenes) or detector.detected
    )
    found = findings.gather(path)
    assert asked == [32 if is_recorded else None]
    assert found.detection["mean_average_precision"] == pytest.approx(5 / 6)
    assert found.detected is detector.detected


# Names.


def test_what_is_cut_in_a_figure_is_shown_in_full_under_the_pointer():
    names = [
        *HOSTILE[:5],
        "a" * 40 + "1" + "a" * 40,
        "a" * 40 + "2" + "a" * 40,
        'it\'s "both" of them',
        "l'oiseau de feu",
    ]
    html = page.picture(pictures.confusion_matrix(np.eye(9, dtype=int), names), "a matrix", "what it is")
    found = Page(html)
    assert not {"script", "img", "b"} & set(found.tags)
    assert found.tags.count("title") == 18  # in rows and columns
    for name in names:
        assert name in found.text
    assert "title:" not in html
    labels = re.findall(r">(\d a[^<]*)</text>", html)
    assert sorted(set(labels)) == [f"{k} aaaaaaa\N{HORIZONTAL ELLIPSIS}aaaa" for k in (5, 6)]


def test_a_table_of_names_of_many_lines_scrolls_in_its_box():
    rows = [("x" * 80, "1")] * 10
    assert "scroll tall" in page.table(("name", "n"), rows)
    assert "scroll tall" not in page.table(("name", "n"), [("x", "1")] * 10)


# Feature maps.


def test_feature_maps_in_two_are_all_of_them_in_order(tmp_path):
    run = make_findings(tmp_path / "run", names="abc").run
    image = np.random.default_rng(0).standard_normal((32, 32, 3)).astype(np.float32)
    whole = pictures.feature_maps(run.model, run.variables, image, class_names=run.class_names)
    parts = feature_maps_in_two(run.model, run.variables, image, class_names=run.class_names)
    heads = [[axes.get_title(loc="left") for axes in figure.axes] for figure in (whole, *parts)]
    assert heads[0] == [*heads[1], *heads[2]]
    assert all(heads)
    heights = [figure.get_size_inches()[1] for figure in parts]
    assert max(heights) < 0.75 * whole.get_size_inches()[1]
    assert [label.get_text() for label in parts[1].axes[-1].get_xticklabels()] == ["a", "b", "c"]
