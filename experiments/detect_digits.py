"""Finding digits in larger pictures: LeNet-5 with a background class, swept over whole scenes.

Trains on windows cut out of scenes of 128x128 pixels: digits at random places and sizes, among bits of strokes, lines
and noise. Then finds the digits in scenes made of test digits, which it has never seen, and prints the average
precision of each class.

    python experiments/detect_digits.py                        the digits that come with scikit-learn
    python experiments/detect_digits.py --data.name mnist      MNIST
    cnn-jax detect RUN photo.jpg                               what a run finds in a picture
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from cnn_jax import command, data, detection, pictures, terminal
from cnn_jax.data.pictures import shown
from cnn_jax.detection import Windows
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import LeNet5
from cnn_jax.runs import load_run
from cnn_jax.runs.folder import seed_folder
from cnn_jax.training import AdamW, Recipe, summarise


@dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Windows out of training scenes, AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    recipe: Annotated[Recipe, arg(name="")] = Recipe(
        model=LeNet5(), optimizer=AdamW(learning_rate=5e-3, weight_decay=0.05), epochs=4
    )
    data: Windows = Windows()
    """Which digits to make scenes of, and how many scenes."""


def main(config: Config) -> None:
    finish = functools.partial(measure_and_show, config)
    run_experiment(config, "detect-digits", finish=finish, leaves=detection.FILES)


def measure_and_show(config: Config, path: Path) -> None:
    """Finds digits in test scenes; writes figures and a picture into the folder of the run, or of each of its seeds."""
    paths = [path] if config.replicas == 1 else [path / seed_folder(seed) for seed in config.seeds]
    digits = config.data.digits("test")
    measured = [measure(own, digits) for own in paths]
    figures = [one for one, _ in measured]
    classes = zip(*(one["classes"] for one in figures), strict=True)
    means = [{"name": "all", "average_precision": one["mean_average_precision"]} | one for one in figures]
    first = figures[0]
    terminal.show_table(
        ("digit", "in scenes", "average precision", "precision", "recall"),
        [*(cells(of_class) for of_class in classes), cells(means)],
    )
    written = [detection.write_results(own, *one) for own, one in zip(paths, measured, strict=True)]
    terminal.say(
        f"{first['scenes']} scenes of test digits; a box is right from an intersection over union of {first['iou']} on;"
        f"\nprecision and recall count boxes that score at least {first['least']}; for pictures of them see:"
    )
    for picture in written:
        terminal.say(f"  {shown(picture)}")


def measure(path: Path, digits: data.Dataset) -> tuple[dict[str, Any], bytes]:
    """Finds digits in the test scenes by the run in `path`; returns figures, and a picture of it as PNG."""
    run = load_run(path)
    found = detection.find_in_test_scenes(run, digits)
    figures = detection.figures(found, run.class_names[:-1])
    drawn = io.BytesIO()
    pictures.detections(found, run.class_names, figures["least"]).savefig(drawn, format="png", dpi=200)
    return figures, drawn.getvalue()


def cells(seeds: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """A row of the table, of the figures of each seed: mean, and deviation where there are several."""
    shares = ("average_precision", "precision", "recall")
    values = [[seed[name] for seed in seeds if seed[name] is not None] for name in shares]
    return seeds[0]["name"], f"{seeds[0]['digits']:,}", *(summarise(v).percent() if v else "-" for v in values)


if __name__ == "__main__":
    command.main(main, Config, description=__doc__)
