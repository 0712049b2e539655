"""What there is to see about a classifier, as PNG files. Needs matplotlib."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textclf_fast.judging.calibration import BINS, reliability
from textclf_fast.judging.judgement import Judgement
from textclf_fast.text.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION, RELIABILITY, CURVES, LEARNING = "confusion.png", "reliability.png", "curves.png", "learning.png"
PICTURES = (CONFUSION, RELIABILITY, CURVES, LEARNING)

_BLUE, _ORANGE, _GREY = "#0072B2", "#E69F00", "#777777"  # told apart by the colour-blind too (Okabe and Ito's palette)
_MOST_CLASSES = 60  # of a confusion matrix: names of 6 points are as wide as a cell of a picture of 15 inches
_MOST_WITH_NUMBERS = 20
_LONGEST_NAME = 20


def draw_all(judgement: Judgement, log: Path | None, directory: Path) -> list[Path]:
    """Draws what there is: the confusion matrix, reliability, curves of two classes, and how the training went.

    Args:
        judgement: of the model.
        log: the training's log.jsonl, if there is one.
        directory: for the pictures; it is made.

    Returns:
        the files.

    Raises:
        ImportError: there is no matplotlib.
        OSError: a file cannot be written.
    """
    figures = {CONFUSION: draw_confusion(judgement), RELIABILITY: draw_reliability(judgement)}
    if (figure := draw_curves(judgement)) is not None:
        figures[CURVES] = figure
    if log is not None and log.is_file() and (figure := draw_learning(log)) is not None:
        figures[LEARNING] = figure
    directory.mkdir(parents=True, exist_ok=True)
    for name, drawn in figures.items():
        with whole_file(directory / name) as file:
            drawn.savefig(file, dpi=120, format="png")
    return [directory / name for name in figures]


def draw_confusion(judgement: Judgement) -> Figure:
    """A row for each true class: how its texts were predicted, in colour by their share of the row.

    Of more than 60 classes, the 60 with the most mistakes.
    """
    counts = judgement.counts.numpy()
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    counts, shares = counts[np.ix_(shown, shown)], shares[np.ix_(shown, shown)]
    names = [_short(judgement.labels[number]) for number in shown]
    side = max(4.5, 3 + 0.2 * len(shown))
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    size = 10 if len(shown) <= _MOST_WITH_NUMBERS else 6
    upright = len(shown) > 5 or max(map(len, names)) > 10
    axes.set_xticks(range(len(shown)), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(len(shown)), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(shown) <= _MOST_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.6 else "black"
                size = 9 if len(shown) <= 8 else 6
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=size)
    all_of_them = "" if len(shown) == len(wrong) else f"; the {len(shown)} of {len(wrong)} classes with most mistakes"
    axes.set_title(f"{len(judgement):,} texts, {judgement.accuracy:.1%} right{all_of_them}")
    return figure


def draw_reliability(judgement: Judgement) -> Figure:
    """How often predictions are right against how sure they are; below, how many are that sure."""
    found = reliability(judgement.logits, judgement.truth)
    middles, width = (np.arange(BINS) + 0.5) / BINS, 1 / BINS
    there = found.counts > 0
    figure = _figure(5, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.bar(middles[there], found.accuracy[there], width, color=_BLUE, edgecolor="white", label="right")
    above.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="as often as it says")
    dots = {"color": _ORANGE, "marker": "o", "markersize": 4, "linestyle": ""}
    above.plot(found.confidence[there], found.accuracy[there], label="at the bin's mean", **dots)
    above.set_ylim(0, 1)
    above.set_ylabel("share that is right")
    above.set_title(f"expected calibration error {found.error:.3f} ({BINS} bins)")
    above.legend(frameon=False, loc="upper left")
    below.bar(middles, found.counts, width, color=_GREY, edgecolor="white")
    below.set_xlim(0, 1)
    below.set_xlabel("probability of the class that was chosen")
    below.set_ylabel("texts")
    for axes in (above, below):
        _plain(axes)
    return figure


def draw_curves(judgement: Judgement) -> Figure | None:
    """The ROC and the precision-recall curve of the second of two classes; None where there are none."""
    found = judgement.curves
    if found is None:
        return None
    figure = _figure(9, 4.5)
    roc, precision = figure.subplots(1, 2)
    roc.plot(found.false_positives, found.recall, color=_BLUE)
    roc.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=0.8)
    roc.set_xlabel("share of the other texts taken for it")
    roc.set_ylabel("recall")
    roc.set_title(f"ROC, area {found.roc_area:.3f}")
    precision.step(found.recall, found.precision, color=_BLUE, where="pre")
    share = float((judgement.truth == 1).double().mean())
    precision.axhline(share, color=_GREY, linestyle="--", linewidth=0.8)
    precision.set_xlabel("recall")
    precision.set_ylabel("precision")
    precision.set_title(f"average precision {found.average_precision:.3f}")
    for axes in (roc, precision):
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_aspect("equal")
        _plain(axes)
    figure.suptitle(f"finding “{_short(judgement.labels[1])}”")
    return figure


def draw_learning(log: Path) -> Figure | None:
    """Training loss, and loss and accuracy on the held-out texts, by epoch; None where the log has no epoch."""
    steps, epochs = read_log(log.read_text(encoding="utf-8").splitlines())
    if not epochs:
        return None
    from matplotlib.ticker import MaxNLocator

    figure = _figure(9, 4)
    loss, accuracy = figure.subplots(1, 2)
    loss.plot([at for at, _ in steps], [number for _, number in steps], color=_GREY, linewidth=1, label="training")
    numbers = [epoch["epoch"] for epoch in epochs]
    loss.plot(numbers, [epoch["held_out"]["loss"] for epoch in epochs], color=_BLUE, marker="o", label="held out")
    loss.set_ylabel("cross-entropy")
    loss.legend(frameon=False)
    for name, title, color in (("accuracy", "accuracy", _BLUE), ("macro_f1", "macro-F1", _ORANGE)):
        accuracy.plot(numbers, [epoch["held_out"][name] for epoch in epochs], color=color, marker="o", label=title)
    accuracy.set_title("on the held-out texts")
    accuracy.legend(frameon=False)
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    return figure


def read_log(lines: Iterable[str]) -> tuple[list[tuple[float, float]], list[dict[str, Any]]]:
    """Of a log.jsonl: the training loss at places in epochs, and the epochs.

    What was done again after a crash counts as it was done last, and a line that the crash cut off not at all.
    """
    steps: dict[tuple[int, int], float] = {}
    epochs: dict[int, dict[str, Any]] = {}
    per_epoch = 1
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["event"] == "start":
            per_epoch = entry["steps_per_epoch"]
        elif entry["event"] == "steps":
            steps[entry["epoch"], entry["step"]] = entry["loss"]
        elif entry["event"] == "epoch":
            epochs[entry["epoch"]] = entry
    places = [(epoch - 1 + step / per_epoch, steps[epoch, step]) for epoch, step in sorted(steps)]
    return places, [epochs[number] for number in sorted(epochs)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    """A name as a picture has it; $ would begin a formula."""
    name = " ".join(name.split())
    name = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return name.replace("$", r"\$")
