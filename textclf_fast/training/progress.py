"""Progress bars: for a training, its epoch, loss, tokens a second, time left; and for what is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from textclf_fast.training.results import Step

_SMOOTHING = 0.98  # of the loss and of the speed shown: about the last 50 steps


class TrainingProgress:
    """Shows how far a training is, while it is entered; nothing where the console is no terminal.

    Lines printed through `console` appear above the bar.

    Args:
        epochs, steps_per_epoch: how much there is to do.
        console: where to show it.
        unit: what a step counts as its tokens.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, console: Console, unit: str = "tokens") -> None:
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._unit = unit
        self._loss = 0.0
        self._seconds_per_token = 0.0
        self._weight = 0.0  # the sum of the weights in the two averages, near 1 after some steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("epoch 1", total=epochs * steps_per_epoch, numbers="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_step(self, step: Step) -> None:
        """To be given to `fit`."""
        keep, take = _SMOOTHING, 1 - _SMOOTHING
        self._loss = keep * self._loss + take * step.loss
        self._seconds_per_token = keep * self._seconds_per_token + take * step.seconds / step.tokens
        self._weight = keep * self._weight + take
        loss, speed = self._loss / self._weight, self._weight / self._seconds_per_token
        self._progress.update(
            self._task,
            completed=step.epoch * self._steps_per_epoch + step.step + 1,  # a training may go on in the middle
            description=f"epoch {step.epoch + 1}/{self._epochs}",
            numbers=f"loss {loss:.4f}, {speed:,.0f} {self._unit}/s",
        )


@contextlib.contextmanager
def counting(what: str, total: int | None, console: Console) -> Iterator[Callable[..., None]]:
    """A bar of so many things while this is entered, and what is to be told how many are done.

    Where `total` is None, it is to be told of how many, too.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)
