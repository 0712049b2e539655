"""Draws docs/performance-ISA.png from the recorded benchmark: ratios beside their targets. Needs matplotlib.

python -m benchmarks.plot [REPORT.json] [PICTURE.png]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import RESULTS, Row, document, read_rows
from benchmarks.targets import target_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SECTIONS = ("text", "bf16", "int8")
# Told apart by the colour-blind too: Okabe and Ito's palette.
_COLORS = {
    "padded": "#0072B2",
    "packed": "#56B4E9",
    "ONNX Runtime": "#E69F00",
    "ONNX Runtime, lengths": "#F0E442",
    "OpenVINO": "#009E73",
    "our float32": "#999999",
    "PyTorch int8": "#CC79A7",
}
_LABELS = {"padded": "nn.LSTM, padded", "packed": "nn.LSTM, packed"}


def draw(report: dict[str, Any], path: Path) -> None:
    """A panel for inference and one for training; a bar for each peer of each cell, a black tick at its target.

    Raises:
        ImportError: there is no matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [row for row in read_rows(report) if row.section in _SECTIONS]
    modes = {mode: [row for row in rows if row.mode == mode] for mode in ("inference", "training")}
    tallest = max(sum(len(row.peers) + 1 for row in found) for found in modes.values())
    figure = Figure(figsize=(15, 1.5 + 0.2 * tallest), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (mode, found) in zip(figure.subplots(1, 2), modes.items(), strict=True):
        _bars(axes, found)
        axes.set_title(mode if mode == "inference" else "training step (forward + backward)")
    named = [name for name in _COLORS if any(name in row.peers for row in rows)]
    figure.legend(
        [Patch(color=_COLORS[name]) for name in named],
        [_LABELS.get(name, name) for name in named],
        loc="outside upper center",
        ncols=len(named),
        frameon=False,
    )
    machine = report["machine"]
    made_on = f"{machine['CPU']}, {machine['threads']} threads, torch {machine['torch']}, commit {report['commit']}"
    figure.supxlabel(f"{made_on}; black: target", fontsize="small", color="#555555")
    figure.savefig(path, dpi=110, format="png")


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    place, ticks = 0.0, []
    for row in rows:
        first = place
        for name, ratio in row.ratios.items():
            axes.barh(place, ratio, color=_COLORS[name], height=0.9)
            axes.text(ratio, place, f" {ratio:.2f}", va="center", fontsize=7)
            if target := target_of(row, name):
                axes.plot([target.bound] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
            place += 1
        ticks.append(((first + place - 1) / 2, row.cell.replace(", E=", ",\nE=", 1)))
        place += 1
    axes.set_yticks([tick for tick, _ in ticks], [label for _, label in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="#555555", linewidth=0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel("peer's time / ours")
    axes.spines[["top", "right"]].set_visible(False)


def main(arguments: Sequence[str]) -> None:
    """Reads the report, draws the picture."""
    source = Path(arguments[0]) if arguments else RESULTS
    picture = Path(arguments[1]) if len(arguments) > 1 else document(source, ".png")
    draw(json.loads(source.read_text(encoding="utf-8")), picture)
    print(f"written: {picture}")


if __name__ == "__main__":
    main(sys.argv[1:])
