"""The table and the picture of a demo."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from textclf_fast.cli.demo import Run

_SMOOTHED_STEPS = 100  # single batches of 32 scatter by more than the curves differ
# Told apart by the colour-blind too (Okabe and Ito's palette), and by their dashes in print.
_STYLES = (("#000000", ":"), ("#E69F00", "--"), ("#0072B2", "-."), ("#D55E00", "-"))


def print_table(runs: Sequence[Run]) -> None:
    """One line for each run; the ratio is that of the first run's time."""
    table = Table()
    table.add_column("")
    for name in ("accuracy", "macro-F1", "s / epoch", "tokens / s", "speed"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        held_out = run.epochs[-1].held_out
        table.add_row(
            run.name,
            f"{held_out.accuracy:.1%}",
            f"{held_out.macro_f1:.3f}",
            f"{run.seconds:.2f}",
            f"{run.tokens_per_second:,.0f}",
            f"{runs[0].seconds / run.seconds:.2f} x",
        )
    Console().print(table)
    print(
        "Accuracy and macro-F1: after the last epoch, on held-out movies. Seconds: the median epoch's, training alone."
    )


def draw(runs: Sequence[Run], path: Path, machine: str) -> None:
    """Draws training loss and held-out accuracy against the seconds of training, into a PNG file.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    for run, (color, dashes) in zip(runs, _STYLES, strict=False):
        losses = np.array([step.loss for result in run.epochs for step in result.steps])
        smooth = _moving_average(losses, _SMOOTHED_STEPS)
        # Every epoch is drawn as long as the median one, as in the table: what else the machine did in one of them says
        # nothing about the run. demo.json has the seconds of each.
        epoch_ends = run.seconds * np.arange(1, len(run.epochs) + 1)
        seconds = np.linspace(0, epoch_ends[-1], len(losses) + 1)[1:]
        loss.plot(seconds[len(seconds) - len(smooth) :], smooth, color=color, linestyle=dashes, label=run.name)
        percent = [100 * result.held_out.accuracy for result in run.epochs]
        accuracy.plot(epoch_ends, percent, color=color, linestyle=dashes, marker="o", markersize=5)
    loss.set_title(f"Training loss (mean of {_SMOOTHED_STEPS} steps)")
    loss.set_ylabel("cross-entropy")
    accuracy.set_title("Accuracy on held-out movies, after each epoch")
    accuracy.set_ylabel("accuracy (%)")
    for axes in (loss, accuracy):
        axes.set_xlabel("seconds of training, at the median epoch's speed")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(runs), frameon=False)
    figure.supxlabel(machine, fontsize="small", color="#555555")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(beside, dpi=150, format="png")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _moving_average(numbers: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The mean of each `width` numbers that follow each other; of all, where there are fewer."""
    width = min(width, len(numbers))
    return np.convolve(numbers, np.full(width, 1 / width), mode="valid")
