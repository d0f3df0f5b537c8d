"""`cnn-jax evaluate`: how well a run does on a data set, by class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_jax import terminal
from cnn_jax.cli.opening import check_finite
from cnn_jax.cli.tables import WIDTH, percent, show_json
from cnn_jax.detection import as_trained_on
from cnn_jax.pictures.confusion import most_frequent
from cnn_jax.training import load_run
from cnn_jax.training.evaluation import by_class

_SHORT = 5  # class names up to this length head a column of the matrix; longer ones are numbered
_MOST = 20  # confusions shown where the matrix is too wide


def evaluate(path: Path, name: str | None, split: str, data_dir: Path | None, as_json: bool) -> None:
    """Prints the figures of the run in `path` on a split of the data set `name`, by default its own.

    Raises:
        InputError: the run or the data cannot be read, or do not fit each other.
    """
    run = load_run(path)
    dataset = as_trained_on(run, run.load_data(split, name, data_dir))
    result = run.evaluate(dataset)
    check_finite(run, result.scores)
    names = dataset.class_names
    classes, confusion = by_class(dataset.labels, result.scores.argmax(axis=-1), names)
    if names != run.class_names:
        terminal.complain(f"note: the classes of {dataset.name} are named unlike those of {run.data_name}")
    if as_json:
        show_json(
            {
                "run": str(path),
                "step": run.step,
                "checkpoint": "best" if run.best else "newest",
                "data": dataset.name,
                "version": dataset.version,
                "split": split,
                "count": result.count,
                "accuracy": result.accuracy,
                "loss": result.loss,
                **result.unsmoothed(),
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
    loss = f"loss {result.loss:.4f}"
    if result.cross_entropy is not None:
        smoothing = f"label smoothing of {run.loss.label_smoothing:g}"
        loss = f"cross-entropy {result.cross_entropy:.4f}\n{loss}, with the {smoothing} that it was trained with"
    terminal.say(f"\n{terminal.plain(f'{dataset.name} {dataset.version}, {split}')} split; {checkpoint}")
    terminal.say(f"accuracy {result.accuracy:.2%} ({np.trace(confusion):,} of {result.count:,}), {loss}")


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
