"""What a person sees while a run trains: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cnn_jax import terminal
from cnn_jax.training.summary import summarise

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cnn_jax.training.evaluation import Evaluation
    from cnn_jax.training.metrics import Metric


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Display:
    """Shows a run on standard output; if that can no longer be written to, the run goes on without it.

    Args:
        silent: show nothing.
    """

    def __init__(self, silent: bool = False):
        self._silent = silent
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total, self._epochs, self._loss = 0, 0, "loss"
        self._metric: Metric | None = None
        self._text = ""

    def start(self, step: int, total: int, epochs: int, metric: Metric, *, smoothed: bool = False) -> None:
        """The loop begins at `step` of `total` steps, in a run of `epochs` epochs.

        Args:
            step: steps taken before.
            total: steps in all.
            epochs: epochs in all.
            metric: what is shown beside the loss.
            smoothed: whether the loss smooths the labels.
        """
        self._total, self._epochs, self._metric = total, epochs, metric
        self._loss = "smoothed loss" if smoothed else "loss"
        if self._silent:
            return
        from rich.progress import BarColumn, Progress, TextColumn

        console = terminal.console()
        if console.is_interactive:  # A dumb terminal cannot draw over a line.
            text = TextColumn("{task.percentage:3.0f} %  {task.fields[text]}", markup=False)
            bar = [BarColumn(bar_width=None)] if console.width >= _NARROW else []
            self._bar = Progress(*bar, text, console=console, expand=bool(bar))
            self._task = self._bar.add_task("", total=total, completed=step, text="compiling ...")
            self._bar.start()

    def update(self, step: int, means: Mapping[str, float], images_per_second: float, steps_per_second: float) -> None:
        """The number of steps done, means over the epoch so far, and the speed until now."""
        speed = ""
        if steps_per_second:  # else it is not known yet: the first steps include their compilation
            left = duration((self._total - step) / steps_per_second)
            speed = f"  {images_per_second:,.0f} images/s  {left} left"
        self._text = f"{self._loss} {means['loss']:.4f}  {self._shown(means)}{speed}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, text=self._text)

    def epoch(self, epoch: int, evaluations: Mapping[str, Sequence[Evaluation]], remark: str = "") -> None:
        """An epoch has ended: the figures of each seed on the splits measured after it, and a remark."""
        measured = ""
        if self._metric is not None:
            own = self._metric.name
            values = {name: summarise([one.metrics[own] for one in found]) for name, found in evaluations.items()}
            measured = "".join(
                f"  {name} {own} {value.text(self._metric.is_share):>7}" for name, value in values.items()
            )
        remark = remark and f"  ({remark})"
        self.line(f"epoch {epoch:{len(str(self._epochs))}d}/{self._epochs}  {self._text}{measured}{remark}")

    def _shown(self, means: Mapping[str, float]) -> str:
        return "" if self._metric is None else f"{self._metric.name} {self._metric.shown(means[self._metric.name]):>7}"

    def line(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(terminal.plain(text), soft_wrap=True)
        elif not self._silent:
            terminal.say(text)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


_NARROW = 90  # columns from which on there is room for a bar beside the figures
