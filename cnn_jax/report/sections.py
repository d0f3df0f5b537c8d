"""The sections of a report on one run: what it is, how it learned, and how well it does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnn_jax import models, parts, pictures
from cnn_jax.describe import describe
from cnn_jax.pictures import canvas
from cnn_jax.pictures.confusion import most_frequent
from cnn_jax.pictures.curves import epochs_after
from cnn_jax.report import page, scenes
from cnn_jax.report.findings import Findings, mapping
from cnn_jax.runs.display import duration
from cnn_jax.training.evaluation import by_class

_MANY = 12  # more classes have no counts in the cells of their matrix, so the worst are listed besides
_LISTED = 10

_CURVES = (
    "How the loss and the share of wrong answers fell, epoch by epoch. A training figure is the mean over its epoch, "
    "taken while the network still learned, so early on it can lie above the test's. Where training goes on falling "
    "and test does not, the network learns its training images by heart."
)


def summary(found: Findings) -> str:
    """The large figures at the top."""
    figures: dict[str, tuple[str, str]] = scenes.headline(found.detection) if found.detection else {}
    tested = "window" if found.detection else "test"
    recorded = found.last("test")
    if found.test is not None:
        evaluation, wrong = found.test.evaluation, int(np.sum(found.test.predicted != found.test.dataset.labels))
        figures |= _measured(found, tested, evaluation.values(), f"{wrong:,} of {evaluation.count:,} wrong")
    elif recorded is not None:
        figures |= _measured(found, tested, recorded, f"recorded at step {recorded['step']:,}")
    seed = "?" if found.seed is None else found.seed
    return page.headline(figures | common_figures(found, f", seed {seed}"))


def _measured(found: Findings, tested: str, values: Mapping[str, Any], remark: str) -> dict[str, tuple[str, str]]:
    """The large figures of the loss and of each metric; `remark` is on the accuracy."""
    figures = {f"{tested} accuracy": (f"{values['accuracy']:.2%}", remark)}
    figures[f"{tested} loss"] = f"{values['loss']:.4f}", loss_remark(found, values.get("cross_entropy"))
    for name in found.beside_loss(values):
        figures[f"{tested} {name}"] = found.run.measures[name].shown(values[name]), ""
    return figures


def loss_remark(found: Findings, cross_entropy: float | None) -> str:
    """What the loss is; where labels are smoothed, also what it cannot fall below and, if known, the cross-entropy."""
    name = parts.short_text(found.run.loss)
    if found.least_loss is None:
        return name
    known = "" if cross_entropy is None else f"; without smoothing the cross-entropy is {cross_entropy:.4f}"
    return f"{name}, whose smoothed labels keep it above {found.least_loss:.4f}{known}"


def curves_caption(found: Findings, runs: Sequence[Sequence[dict[str, Any]]]) -> str:
    """What to say of smoothed labels below the curves of runs: nothing where there are none."""
    if found.least_loss is None:
        return ""
    said = f" Labels were smoothed, so the loss cannot fall below {found.least_loss:.4f}"
    if any("cross_entropy" in record for records in runs for record in records):
        said += "; dashed is the cross-entropy without smoothing"
    return f"{said}."


def common_figures(found: Findings, seed: str = "") -> dict[str, tuple[str, str]]:
    """The large figures that a run of one seed and of several have alike; `seed` ends the remark on training."""
    figures: dict[str, tuple[str, str]] = {}
    seconds, epoch = found.seconds, found.steps_per_epoch
    figures["training"] = (
        "?" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else duration(seconds),
        f"{found.run.step:,} steps" + (f", {_epochs(found.run.step, epoch)}" if epoch else "") + seed,
    )
    counts = {"training": found.images, "test": len(found.test.dataset) if found.test else None}
    split = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    kind = "windows" if found.detection else "images"
    figures["data"] = found.run.data_name, f"{split} {kind}" if split else ""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(found.run.variables["params"]))
    figures["model"] = model_name(found), f"{parameters:,} parameters"
    return figures


def model_name(found: Findings) -> str:
    """What the model's text calls its class, without the file that it is from."""
    return parts.class_text(type(found.run.model), models.MODELS).rpartition(":")[2]


def origin(config: dict[str, Any], found: Findings) -> str:
    """What is needed to repeat the run whose `config.json` this is."""
    described = mapping(config["data"])
    device, command = mapping(config.get("device")), config.get("command")
    command = [str(part) for part in command] if isinstance(command, list) else []
    if command and command[0].endswith(".py"):
        command.insert(0, "python")
    versions = ", ".join(f"{name} {version}" for name, version in mapping(config.get("versions")).items())
    values = {
        "data": f"{found.run.data_name} {described.get('version', '')}".rstrip()
        + f", {len(found.run.class_names)} classes, "
        f"images {_size(found.run.image_shape)} brought to {_size(found.run.input_size)}",
        "checkpoint": f"{'best by validation' if found.run.best else 'newest'}, step {found.run.step:,}",
        "device": f"{device.get('count', '?')} {device.get('platform', '?')} ({device.get('kind', '?')})",
        "git commit": str(config.get("git_commit") or "outside a checkout"),
        "versions": versions or "not recorded",
    }
    return page.section("How to repeat it", page.code(shlex.join(command) or "not recorded"), page.facts(values))


def shown(found: Findings) -> str:
    """The first batch as the network was shown it."""
    title = "What it was shown"
    if found.seen is None:
        return page.section(
            title,
            page.paragraph(f"Left out, because the training images are not available: {found.unseen}"),
            wide=False,
        )
    names, seen = found.run.class_names, found.seen
    figure = pictures.batch(seen.images, seen.targets, names, statistics=found.run.statistics)
    mixed = np.max(seen.targets, axis=1) < 1
    caption = "Images of the first step as they went into the network, in the size and the range of values that it has"
    augment = mapping(found.config["recipe"])["augment"]
    caption += f", after {augment}" if augment != "none" else ", unchanged"
    caption += ". Below each is what it was to answer"
    caption += "; of mixed images, the classes and their shares." if mixed.any() else "."
    return page.section(title, page.picture(figure, "Training images of the first step.", caption), wide=False)


def learning(found: Findings) -> str:
    """The curves."""
    if found.last("train") is None:
        return page.section("Learning", page.paragraph("No epoch has been recorded yet."), wide=False)
    figure = pictures.curves([found.records], steps_per_epoch=found.steps_per_epoch)
    caption = _CURVES + curves_caption(found, [found.records])
    return page.section(
        "Learning", page.picture(figure, "Curves of loss and error over training.", caption), wide=False
    )


def found_in_scenes(found: Findings) -> str:
    """What a run that learned to find things finds; nothing of any other run."""
    if found.detection is None:
        return ""
    if found.detected is None:
        return page.section("What it finds", no_images(found))
    return scenes.scenes(found.detected, found.detection, found.run.class_names)


def classes(found: Findings) -> str:
    """The confusion matrix and a table of the classes."""
    if found.test is None:
        return page.section("Classes", no_images(found))
    names = found.run.class_names
    rows, confusion = by_class(found.test.dataset.labels, found.test.predicted, names)
    figure = pictures.confusion_matrix(confusion, names)
    alt = f"Confusion matrix: {np.trace(confusion):,} of {confusion.sum():,} test images on the diagonal."
    caption = (
        "Each row holds the test images of one class, each column what they were taken for. Blue is right; orange is "
        "wrong, and the deeper, the more often for its class."
    )
    table = page.table(
        ("class", "images", "recall", "precision", "F1"),
        [(r["name"], f"{r['count']:,}", *(_percent(r[key]) for key in ("recall", "precision", "f1"))) for r in rows],
    )
    meaning = page.paragraph(
        "Recall: of the images of a class, how many were found. Precision: of the images said to be of a class, how "
        "many are. F1 is between the two."
    )
    beside = page.side_by_side(page.picture(figure, alt, caption), table + meaning)
    return page.section("Classes", beside, _frequent(confusion, names) if len(names) > _MANY else "")


def mistakes(found: Findings) -> str:
    """The most confident mistakes."""
    title = "The surest mistakes"
    if found.test is None:
        return page.section(title, no_images(found), wide=False)
    test = found.test
    names = found.run.class_names
    count = 12 if max(map(canvas.columns, names)) <= canvas.BRIEF else 9  # three of long names in a row
    figure = pictures.confident_mistakes(
        test.dataset.images, test.dataset.labels, test.probabilities, names, count=count
    )
    caption = (
        "Test images that the network got wrong while it was surest, with the probability that it gave its answer. "
        "Some are hard for people too; an easy one among them is worth a look."
    )
    return page.section(title, page.picture(figure, "Test images that were classified wrongly.", caption), wide=False)


def volumes(found: Findings) -> str:
    """The layers of the model."""
    run = found.run
    return page.section("Layers", describe(run.model, (*run.input_size, run.image_shape[-1])).html())


def configuration(config: dict[str, Any]) -> str:
    """All options of the run whose `config.json` this is, its parts as texts."""
    options = mapping(config["recipe"]) | {"data": config.get("source"), "seeds": config.get("seeds")}
    options |= mapping(config.get("execution"))
    table = page.table(("option", "value"), [(name, value) for name, value in _flat(options)], left=(0, 1))
    return page.section("Configuration", page.folded("all options of this run", table))


def no_images(found: Findings) -> str:
    """What stands in place of a section that needs the test images."""
    return page.paragraph(f"Left out, because the test images are not available: {found.missing}")


def _epochs(steps: int, steps_per_epoch: float) -> str:
    epochs = f"{epochs_after(steps, steps_per_epoch):.3g}"
    return f"{epochs} epoch{'' if epochs == '1' else 's'}"


def _size(sizes: tuple[int, ...] | None) -> str:
    return "x".join(map(str, sizes or ()))


def _percent(share: float) -> str:
    return f"{share:.2%}" if np.isfinite(share) else "\N{EN DASH}"


def _frequent(confusion: np.ndarray, names: tuple[str, ...]) -> str:
    rows = []
    for true, taken in most_frequent(confusion, _LISTED):
        count = confusion[true, taken]
        rows.append((names[true], names[taken], f"{count:,}", _percent(count / confusion[true].sum())))
    said = page.paragraph("The most frequent mistakes:")
    return said + page.table(("is", "taken for", "images", "of its class"), rows, left=(0, 1)) if rows else ""


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, "" if value is None else str(value)
