"""`cnn-jax train | evaluate | predict | detect | describe | report | compare | verify`: what to do with a finished run.

Options are dataclasses; the work is imported when a command runs, so that --help does not wait for JAX.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

import cnn_jax
from cnn_jax import command

DESCRIPTION = """Train a network, or use a finished run: evaluate it, classify pictures with it, or look inside.

    cnn-jax train --data 'folder("photos")'    train a network on any images, without a script
    cnn-jax evaluate runs/a                    accuracy, loss and confusion matrix on the test split
    cnn-jax predict runs/a five.png scans/     the most likely classes of pictures
    cnn-jax detect runs/b page.jpg             digits in a larger picture, with boxes
    cnn-jax describe lenet5                    layers, volumes, costs, receptive fields
    cnn-jax report runs/a                      all of this with figures, as one HTML file
    cnn-jax compare runs/a runs/b              which options differ, and figures with their spread
    cnn-jax verify runs/a                      check its checkpoints, bit for bit
    cnn-jax --version

Bad input is one line on standard error and exit code 2."""

RunPath = Annotated[Path, Positional, arg(metavar="RUN")]
Images = Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="(at least one)")]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Any model on any images, without a script; `cnn-jax train --help` lists the options."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Accuracy, loss, a table by class and the confusion matrix of a run on a data set."""

    run: RunPath
    """Folder of a run."""
    data: Annotated[str | None, arg(metavar="SOURCE")] = None
    """Data to measure on, with images and classes like the run's: a source's text, such as 'folder("photos")' or
    'arrays("x.npz")', or the name of a data set of TensorFlow Datasets, such as mnist; by default the run's own."""
    split: Annotated[str, arg(metavar="NAME")] = "test"
    """Split of the data."""
    data_dir: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder of prepared data sets of TensorFlow Datasets; by default the one the run was given, else $TFDS_DATA_DIR,
    else ~/tensorflow_datasets."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """The most likely classes of pictures, by the model of a run."""

    run: RunPath
    """Folder of a run."""
    images: Images = ()
    """PNG or JPEG files of any size and mode (also GIF, BMP, TIFF, WebP), or folders, searched with their subfolders.
    A picture of the training images' size is used as it is; any other is brought to that size.
    For a run on light drawings on black, such as digits, dark drawings on light paper are inverted, cut out of the
    page, thickened where the pen was thin, and scaled and centred alike: give one digit per picture, on plain paper."""
    top: Annotated[int, arg(metavar="K")] = 3
    """How many classes to show for each picture."""
    json: bool = False
    """Print a JSON list instead of a table."""


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Digits in larger pictures and boxes around them, by a run of experiments/detect_digits.py."""

    run: RunPath
    """Folder of the run."""
    images: Images = ()
    """Pictures as for predict, of any size and with any number of digits, dark on light or light on dark. Those
    longer than 1,024 pixels are scaled down to that; digits less than 14 pixels long are not found."""
    least: Annotated[float, arg(metavar="SCORE")] = 0.5
    """Lowest score to show, from 0 to 1."""
    draw: Annotated[Path | None, arg(metavar="DIR|FILE")] = None
    """Folder for copies of the pictures with the boxes drawn on them; for one picture also a PNG or JPEG file."""
    json: bool = False
    """Print a JSON list instead of a table."""


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Layers of a model, for one image: volumes, parameters, costs, and how much of the image each sees.

        kernel, stride  of the layer's window
        pad             zeros around the input; 1+2: one before, two after
        output          height x width x channels
        params          trained values
        connections     weights and biases into each unit, over all units, as LeCun et al. (1998) count them
        mult-adds       multiplications, each with an addition
        sees            the receptive field: how many pixels in a row or column a unit sees
        step            how many pixels further on its neighbour's begins
        from            where the first unit's begins; below 0 is padding
        memory          of the output, in float32

    On a narrow terminal some columns are left out; - stands where there is no such number.
    """

    model: Annotated[str, Positional, arg(metavar="MODEL|RUN")]
    """A model by its name, the text of one, such as 'resnet18(features=32)' or 'my_model.py:Tiny(depth=3)', or the
    folder of a run. The names, each standing for a model with its defaults: mlp, convnet, lenet1, lenet4, lenet5,
    lenet5_original, cifarnet, resnet18, resnet20, resnet32, resnet44, resnet56, resnet110, wrn16x8, wrn28x10; for
    ImageNet resnet18_imagenet, resnet34, resnet50, resnet101, resnet152."""
    size: Annotated[tuple[int, int] | None, arg(metavar="H W")] = None
    """Height and width of the image; by default those that the model is made for, or else those of the run."""
    channels: Annotated[int | None, arg(metavar="C")] = None
    """Channels of the image; by default the run's, or 3 for cifarnet, resnets and wrns and 1 for the other models."""
    format: Literal["text", "markdown", "html"] = "text"
    """How to print the table: for a terminal, in Markdown, or as a fragment of HTML to put into a page."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One HTML file on a run: figures, curves, mistakes, and pictures of what is inside; it opens offline."""

    run: RunPath
    """Folder of a run, also of one of several seeds."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """File to write; by default report.html in the folder."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Runs side by side: their figures with the spread over seeds, and which options differ."""

    runs: Annotated[tuple[Path, ...], Positional, arg(metavar="RUN RUN [RUN ...]")] = ()
    """Folders of runs, also of several seeds each; their models and data may differ."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write this too as one HTML file, with the curves of all laid over each other."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Whether the checkpoints of a run are as they were saved, bit for bit; exit code 2 if any is not."""

    run: RunPath
    """Folder of a run, also of one of several seeds."""


COMMANDS: Any = Train | Evaluate | Predict | Detect | Describe | Report | Compare | Verify


def run(options: Evaluate | Predict | Detect | Describe | Report | Compare | Verify) -> None:
    """Does what a command line asks for.

    Raises:
        InputError: some input cannot be used.
        SystemExit: with code 2 where some of several pictures could not be read, or a checkpoint is damaged; these
            have been named.
    """
    from cnn_jax.runs.compilation import keep_compiled
    from cnn_jax.runs.memory import keep_memory

    keep_compiled()
    keep_memory()
    if isinstance(options, Evaluate):
        from cnn_jax.cli.evaluate import evaluate

        evaluate(options.run, options.data, options.split, options.data_dir, options.json)
    elif isinstance(options, Predict):
        from cnn_jax.cli.predict import predict

        if not predict(options.run, options.images, options.top, options.json):
            raise SystemExit(command.BAD_INPUT)
    elif isinstance(options, Detect):
        from cnn_jax.cli.detect import detect

        if not detect(options.run, options.images, options.least, options.draw, options.json):
            raise SystemExit(command.BAD_INPUT)
    elif isinstance(options, Report):
        from cnn_jax.cli.report import report

        report(options.run, options.out)
    elif isinstance(options, Compare):
        from cnn_jax.cli.compare import compare

        compare(options.runs, options.out)
    elif isinstance(options, Verify):
        from cnn_jax.cli.verify import verify

        if not verify(options.run):
            raise SystemExit(command.BAD_INPUT)
    else:
        from cnn_jax.cli.describe import describe

        describe(options.model, options.size, options.channels, options.format)


def main() -> None:
    """Does what the command line asks for, and ends the process."""
    if sys.argv[1:2] == ["train"]:
        from cnn_jax.cli.train import DESCRIPTION as TRAINING
        from cnn_jax.cli.train import train
        from cnn_jax.experiment import Experiment

        command.main(train, Experiment, description=TRAINING, command="train")
        return
    command.main(run, COMMANDS, description=DESCRIPTION, version=f"cnn-jax {cnn_jax.__version__}")
