"""The report: whole, self-contained, escaped, and readable in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import loading
from cnn_jax.errors import InputError
from cnn_jax.report import write, write_report
from cnn_jax.report.findings import gather
from cnn_jax.runs import load_run
from tests.browser import CHROMIUM, started
from tests.reports import HOSTILE, Page, assert_self_contained, make_findings, write_config
from tests.trained import trained


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return trained(tmp_path_factory)


@pytest.fixture(scope="module")
def report(path, tmp_path_factory):
    """The report on a real run, and what has been printed while it was written."""
    return write_report(path, tmp_path_factory.mktemp("report") / "lenet5.html")


def test_the_report_on_a_run_is_one_file_with_all_of_it(report, path):
    html = report.read_text()
    assert_self_contained(html)
    page = Page(html)
    assert (
        page.tags.count("svg") == 8
    )  # curves, first batch, mistakes, confusion, filters, attention, feature maps in two
    run = load_run(path)
    test = data.load("digits", "test")
    evaluation = run.evaluate(test)
    wrong = round((1 - evaluation.accuracy) * len(test))
    contents = json.loads((path / "config.json").read_text())
    for text in (
        f"{evaluation.accuracy:.2%}", f"{wrong} of 360 wrong", f"{evaluation.loss:.4f}", "51,902", "1,437 training",
        contents["versions"]["jax"], contents["git_commit"] or "outside", "adamw(learning_rate=0.003",
        "label_smoothing", "Grad-CAM at S4", "28x28x6", "before training", "after training", "taken for", "epochs",
    ):  # fmt: skip
        assert text in page.text, text
    recalls = [np.mean(evaluation.scores[test.labels == k].argmax(axis=1) == k) for k in range(10)]
    for recall in recalls:
        assert f"{recall:.2%}" in page.text
    assert not list(report.parent.glob("*.tmp"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_a_browser_shows_it_offline_on_a_phone_and_in_the_dark(browser, report):
    luminance = {}
    for width, dark in ((390, False), (390, True), (1200, False)):
        browser.open(report, width, dark=dark)
        asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith("data:")] == [report.resolve().as_uri()]
        complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        assert [event for event in browser.events if event["method"] in complaints] == []
        shown, needed = browser.evaluate("(r => [r.clientWidth, r.scrollWidth])(document.documentElement)")
        assert needed == shown <= width
        # No figure is empty, and none is wider than the page.
        boxes = browser.evaluate(
            "[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect())"
            ".map(box => [box.left, box.right, box.height])"
        )
        assert len(boxes) == 8
        assert all(left >= 0 and right <= width and height > 50 for left, right, height in boxes)
        luminance[width, dark] = browser.screenshot().mean()
    assert luminance[390, False] > 200 > 80 > luminance[390, True]


def test_text_in_figures_can_be_read_on_a_phone(browser, report):
    browser.open(report, 390)
    heights = browser.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(text => text.getBoundingClientRect().height)"
    )
    assert len(heights) > 100
    assert min(heights) > 8  # CSS pixels; upright text is a little higher than its font size


def test_no_name_is_so_long_that_it_widens_the_page(browser, tmp_path, monkeypatch):
    names = [f"{'unbroken' * 9}{k}" for k in range(13)]
    found = make_findings(tmp_path / ("run" * 30), names=names, **{"option" * 20: "value" * 40})
    found = dataclasses.replace(found, run=dataclasses.replace(found.run, data_name="set" * 30))
    for section in ("attention", "features", "filters"):  # compiled for other tests
        monkeypatch.setattr(write.inside, section, lambda found: "")
    monkeypatch.setattr(write, "gather", lambda path: found)
    browser.open(write_report(tmp_path / ("run" * 30)), 390)
    browser.evaluate("document.querySelector('details').open = true")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    # Nor does it push the figures beside it out of sight.
    inside = browser.evaluate("[...document.querySelectorAll('.side .scroll')].map(b => b.scrollWidth - b.clientWidth)")
    assert inside == [0]


# What else a run may be.


def test_whatever_names_hold_is_shown_as_text(tmp_path, monkeypatch):
    found = make_findings(tmp_path / "run")
    monkeypatch.setattr(write, "gather", lambda path: found)
    html = write_report(tmp_path / "run").read_text()
    assert_self_contained(html)
    page = Page(html)
    assert not {"b", "i", "u"} & set(page.tags)
    for text in (*HOSTILE[:5], "漢字", "set/<i>config</i>", "train.py --out '<b>a b</b>'", "<u>x</u>"):
        assert text in page.text, text
    # A perceptron's first weights are drawn as images; it has no maps, so it has no Grad-CAM. No epoch was recorded.
    assert "Grad-CAM" not in page.text
    assert page.tags.count("svg") == 6


def test_without_the_images_what_needs_them_is_left_out_with_a_sentence(tmp_path, monkeypatch):
    records = [
        {"split": split, "step": 7, "loss": 0.25, "accuracy": 0.875, "seconds": 5.0} for split in ("train", "test")
    ]
    found = make_findings(tmp_path / "run", names=[f"class {k}" for k in range(100)], test=False, records=records)
    monkeypatch.setattr(write, "gather", lambda path: found)
    html = write_report(tmp_path / "run").read_text()
    assert_self_contained(html)
    page = Page(html)
    assert page.text.count("data set <gone>: expected it, found nothing") == 4
    assert page.tags.count("svg") == 2  # curves and filters
    assert "87.50%" in page.text


def test_what_a_configuration_does_not_say_is_not_missed(tmp_path, monkeypatch):
    found = make_findings(tmp_path / "run", test=False, batch_size="x")
    found.config.update(command=5, versions="x", device=[1], git_commit=None, seeds="many")
    found.config["data"]["images"] = "many"
    write_config(tmp_path / "run", found.config)
    monkeypatch.setattr(write, "gather", lambda path: found)
    html = write_report(tmp_path / "run").read_text()
    assert_self_contained(html)
    assert html.count("not recorded") == 2


def test_data_that_cannot_be_had_is_said_and_nothing_else_is(path, monkeypatch):
    def gone(name, split, **options):
        raise InputError(f"data set {name}: expected it, found nothing")

    monkeypatch.setattr(loading, "load", gone)
    found = gather(path)
    assert (found.test, found.missing) == (None, "data set digits: expected it, found nothing")
    assert found.last("test")["accuracy"] > 0.5
    assert found.steps_per_epoch == 1437 / 64


def test_a_hundred_classes_are_listed_and_their_worst_confusions_named(tmp_path, monkeypatch):
    found = make_findings(tmp_path / "run", names=[f"class {k}" for k in range(100)], channels=1, count=500)
    monkeypatch.setattr(write.inside, "attention", lambda found: "")  # compiled for another test
    monkeypatch.setattr(write.inside, "features", lambda found: "")
    monkeypatch.setattr(write.inside, "filters", lambda found: "")
    monkeypatch.setattr(write, "gather", lambda path: found)
    html = write_report(tmp_path / "run").read_text()
    assert_self_contained(html)
    labels, predicted = found.test.dataset.labels, found.test.predicted
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    rows = re.findall(r'<tr><td class="left">class (\d+)</td><td class="left">class (\d+)</td><td>(\d+)</td>', html)
    assert len(rows) == 10
    for true, taken, count in np.array(rows, int):
        assert counts[(pairs == [[true], [taken]]).all(axis=0)] == [count]
    assert int(rows[0][2]) == counts.max()
    assert all(f">class {k}</td>" in html for k in range(100))
