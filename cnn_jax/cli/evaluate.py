"""`cnn-jax evaluate`: how well a run does on a data set, by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_jax import parts, terminal
from cnn_jax.cli.opening import check_finite
from cnn_jax.cli.tables import WIDTH, percent, show_json
from cnn_jax.data.source import Source
from cnn_jax.detection import as_trained_on
from cnn_jax.errors import InputError
from cnn_jax.pictures.confusion import most_frequent
from cnn_jax.runs.load import load_run
from cnn_jax.training.evaluation import by_class

_SHORT = 5  # class names up to this length head a column of the matrix; longer ones are numbered
_MOST = 20  # confusions shown where the matrix is too wide


def evaluate(path: Path, text: str | None, split: str, data_dir: Path | None, as_json: bool) -> None:
    """Prints the figures of the run in `path` on a split of its data, or of others.

    Args:
        path: the folder of the run.
        text: where to take the data from: the text of a source, or the name of a data set of TFDS.
        split: which of them.
        data_dir: where prepared data sets are, see `Run.load_data`.
        as_json: print a JSON object instead of tables.

    Raises:
        InputError: the run or the data cannot be read, or do not fit each other.
    """
    run = load_run(path)
    dataset = as_trained_on(run, run.load_data(split, None if text is None else _read(text), data_dir))
    result = run.evaluate(dataset)
    check_finite(run, result.scores)
    names = dataset.class_names
    classes, confusion = by_class(dataset.labels, result.scores.argmax(axis=-1), names)
    if names != run.class_names:
        terminal.complain(f"note: the classes of {dataset.name} are named unlike those of {run.data_name}")
    if as_json:
        show_json(
            {
                **result.values(),
                "run": str(path),
                "step": run.step,
                "checkpoint": "best" if run.best else "newest",
                "data": dataset.name,
                "version": dataset.version,
                "split": split,
                "count": result.count,
                "classes": classes,
                "confusion": confusion.tolist(),
            }
        )
        return
    terminal.show_table(
        ("class", "images", "precision", "recall", "F1"),
        [(c["name"], f"{c['count']:,}", *(percent(c[key]) for key in ("precision", "recall", "f1"))) for c in classes],
    )
    terminal.say("")
    _show_confusion(confusion, names)
    checkpoint = f"{'best' if run.best else 'newest'} checkpoint, step {run.step:,}"
    terminal.say(f"\n{terminal.plain(f'{dataset.name} {dataset.version}, {split}')} split; {checkpoint}")
    figures = [f"accuracy {result.accuracy:.2%} ({np.trace(confusion):,} of {result.count:,})"]
    figures += [
        f"{name} {run.measures[name].shown(value)}" for name, value in result.metrics.items() if name != "accuracy"
    ]
    loss, floor = f"loss {result.loss:.4f}", run.loss.floor(len(names))
    if floor is None:
        terminal.say(", ".join([*figures, loss]))
    else:
        terminal.say(", ".join(figures))
        terminal.say(f"{loss}, of {parts.short_text(run.loss)}, which cannot fall below {floor:.4f}")


def _read(text: str) -> Source:
    """The source of a text."""
    try:
        source: Source = parts.parse(text, Source)
    except InputError as error:
        raise InputError(f"--data: {error}") from error
    return source


def _show_confusion(confusion: np.ndarray, names: Sequence[str]) -> None:
    numbered = max(map(len, names)) > _SHORT
    columns = [str(index) for index in range(len(names))] if numbered else list(names)
    rows = [f"{index} {name}" for index, name in enumerate(names)] if numbered else list(names)
    cell = max(len(text) for text in [*columns, *(str(count) for count in confusion.ravel())])
    corner = "is \\ taken for"
    if max(len(corner), *map(len, rows)) + len(names) * (cell + 2) > (terminal.width() or WIDTH):
        _show_most_frequent(confusion, names)
        return
    cells = [[str(count) if count else "." for count in row] for row in confusion]
    terminal.show_table((corner, *columns), [(name, *row) for name, row in zip(rows, cells, strict=True)])


def _show_most_frequent(confusion: np.ndarray, names: Sequence[str]) -> None:
    rows = []
    for true, taken in most_frequent(confusion, _MOST):
        count = confusion[true, taken]
        rows.append((names[true], names[taken], f"{count:,}", percent(count / confusion[true].sum())))
    terminal.show_table(("is", "taken for", "images", "of its class"), rows, left=(0, 1))
    hidden = np.count_nonzero(confusion) - np.count_nonzero(np.diag(confusion)) - len(rows)
    if hidden:
        terminal.say(f"and {hidden:,} rarer confusions; --json has all")
