"""What tests of reports share: reading a page, and findings made by hand, so that nothing has to be trained."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from scipy.special import softmax

from cnn_jax import data, models
from cnn_jax.report.findings import Findings, Measured
from cnn_jax.runs import Run
from cnn_jax.runs.digests import seal
from cnn_jax.runs.folder import FORMAT
from cnn_jax.training import Accuracy, Evaluation, SoftmaxCrossEntropy

VOID = {"meta", "link", "br", "wbr", "img", "input"}


class Page(HTMLParser):
    """What a page consists of; fails where a tag is not closed in its turn."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], [], "", []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, text):
        if self.open and self.open[-1] != "style":
            self.text += text

    def values(self, *names):
        return [value for _, name, value in self.attributes if name in names]


def assert_self_contained(html: str) -> None:
    page = Page(html)
    assert len(html.encode()) < 3e6
    assert not {"script", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for address in page.values("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
        assert address.startswith(("data:", "#")), address
    assert re.findall(r"url\((?!#)|@import|https?:", html) == []
    # Within the page, names are there once, and whatever refers to one finds it.
    names = page.values("id")
    assert len(names) == len(set(names))
    references = {value[1:] for value in page.values("xlink:href", "href") if value.startswith("#")}
    assert references | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(names)
    assert (
        page.tags.count("h1"),
        page.tags.count("main"),
        html.count("<head>\n"),
        html.count("<title>", 0, html.index("</head>")),
    ) == (1, 1, 1, 1)
    # Each picture says what it is, to those who see it and to those who do not.
    assert page.tags.count("svg") == page.tags.count("figcaption") == page.tags.count("figure")
    assert len([alt for alt in page.values("aria-label") if len(alt) > 10]) == page.tags.count("svg")


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a & b",
    "$\\frac{$",
    "--!><b>",
    "漢字 \x07\udc80",
)


METRICS = (Accuracy(),)


def write_config(path: Path, contents: dict) -> None:
    """The configuration of a run as the run would have sealed it."""
    (path / "config.json").write_text(json.dumps(seal(contents)))


def make_findings(
    path: Path,
    *,
    names=HOSTILE,
    channels=3,
    count=30,
    test=True,
    records=(),
    metrics=METRICS,
    seeds=(3,),
    seen=None,
    **recipe,
) -> Findings:
    """An untrained perceptron and random images; writes config.json."""
    draws = np.random.default_rng(0)
    model = models.build("mlp", features=(5,), num_classes=len(names))
    shapes = {"hidden_1": (32 * 32 * channels, 5), "output": (5, len(names))}
    params = {
        name: {"kernel": draws.standard_normal(shape) / 32, "bias": np.zeros(shape[1])}
        for name, shape in shapes.items()
    }
    statistics = data.Statistics(mean=(0.5,) * channels, std=(0.25,) * channels)
    run = Run(
        path=path, model=model, variables={"params": params}, step=7, best=True, data_name="set/<i>config</i>",
        image_shape=(20, 16, channels), class_names=tuple(names), statistics=statistics,
        loss=SoftmaxCrossEntropy(), metrics=metrics,
    )  # fmt: skip
    labels = draws.integers(0, len(names), count, np.int32)
    scores = draws.standard_normal((count, len(names))).astype(np.float32)
    values = {metric.name: 0.125 for metric in metrics}
    values["accuracy"] = float((scores.argmax(axis=1) == labels).mean())
    measured = Measured(
        dataset=data.Dataset(
            name="set", version="1", split="test", images=draws.integers(0, 256, (count, 20, 16, channels), np.uint8),
            labels=labels, class_names=tuple(names), statistics=statistics, fingerprint="",
        ),
        evaluation=Evaluation(loss=2.0, metrics=values, count=count, scores=scores),
        probabilities=softmax(scores, axis=1),
    )  # fmt: skip
    contents = {
        "format": FORMAT,
        "recipe": {"model": "mlp(features=(5,))", "epochs": 2, "note": "<u>x</u>"} | recipe,
        "data": {"name": "set", "images": 600},
        "seeds": list(seeds),
        "command": ["train.py", "--out", "<b>a b</b>"],
    }
    path.mkdir(exist_ok=True)
    write_config(path, contents)
    return Findings(
        run=run, config=contents, records=list(records), test=measured if test else None,
        missing="" if test else "data set <gone>: expected it, found nothing",
        seen=seen, unseen="" if seen else "training images <gone>",
    )  # fmt: skip
