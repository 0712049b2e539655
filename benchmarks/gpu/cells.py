"""What is timed on a GPU, in the order of importance: whatever comes last is left out where the time runs out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.cells import DENSE, FILL, RAGGED, Cell

Mode = Literal["inference", "training"]
Section = Literal["text", "one", "persistent", "classifier", "memory", "grid", "packed", "float", "flashrnn"]


@dataclass(frozen=True)
class GpuCell:
    """A shape in one mode.

    Attributes:
        section: part of the table; "classifier" is a whole training step of the text classifier, "memory" the peak of a
            training step, "flashrnn" the grid beside FlashRNN.
        shape: sizes, dtype and form of the input.
        mode: "inference" or "training" (forward and backward).
        strict: float32 products stay float32; otherwise they may be rounded to tf32, as is PyTorch's default for LSTMs.
    """

    section: Section
    shape: Cell
    mode: Mode
    strict: bool = False

    @property
    def name(self) -> str:
        """Of the cell in the table, such as "B=32, T=256, E=100, H=128, dense, tf32"."""
        precision = [] if self.shape.dtype != "float32" else ["strict float32" if self.strict else "tf32"]
        return ", ".join([str(self.shape), *precision])

    def tiny(self) -> GpuCell:
        """The same with sizes that take no time: for trying the script where there is no GPU."""
        s = self.shape
        return replace(self, shape=replace(s, rows=min(s.rows, 3), steps=4, embedding=8, hidden=8, vocabulary=50))


BF16_DENSE, BF16_RAGGED = replace(DENSE, dtype="bfloat16"), replace(RAGGED, dtype="bfloat16")
ONE, WIDE_ONE = Cell(1, 128), Cell(1, 128, 300, 512)
BF16_ONE, BF16_WIDE_ONE = replace(ONE, dtype="bfloat16"), replace(WIDE_ONE, dtype="bfloat16")
# The one shape of float16 in which cuDNN has a persistent kernel of its own: one layer and direction, H and E
# multiples of 128, B a multiple of 8 up to 128.
PERSISTENT = Cell(16, 1024, 768, 768, form="float", dtype="float16")
# Batches of review sentences: 21 tokens in the mean, 48 in the longest of 32.
REVIEWS = Cell(32, 48, fill=0.44)


def _grid(rows: tuple[int, ...], hidden: tuple[int, ...], fill: float = 1.0) -> list[Cell]:
    return [
        Cell(b, 256, h, h, fill, 1, d == 2, "float" if fill == 1 else "packed", dtype="bfloat16")
        for h in hidden
        for b in rows
        for d in (1, 2)
    ]


FORWARD_GRID = _grid((1, 8, 32, 128, 256), (256, 512, 768, 1024))
TRAINING_GRID = _grid((16, 64, 256), (256, 512, 1024))
PACKED_GRID = _grid((16, 64, 256), (256, 512, 1024), FILL)
FLOAT_GRID = [Cell(b, 128, h, h, form="float") for h in (64, 128, 256, 512) for b in (1, 32, 256)]


def _cells(section: Section, mode: Mode, shapes: list[Cell], strict: bool = False) -> list[GpuCell]:
    return [GpuCell(section, shape, mode, strict) for shape in shapes]


TEXT = [DENSE, BF16_DENSE, RAGGED, BF16_RAGGED]
CELLS = [
    *_cells("text", "inference", TEXT),
    *_cells("one", "inference", [ONE, BF16_ONE, WIDE_ONE, BF16_WIDE_ONE]),
    *_cells("persistent", "inference", [PERSISTENT]),
    *_cells("text", "training", TEXT),
    *_cells("classifier", "training", [REVIEWS]),
    *_cells("memory", "training", [RAGGED]),
    *_cells("grid", "inference", FORWARD_GRID),
    *_cells("grid", "training", TRAINING_GRID),
    *_cells("packed", "training", PACKED_GRID),
    *_cells("float", "inference", FLOAT_GRID),
    *_cells("float", "training", FLOAT_GRID),
    *_cells("text", "inference", [DENSE, RAGGED], strict=True),
    *_cells("packed", "inference", PACKED_GRID),
]


def _for_flashrnn(grid: list[Cell]) -> list[Cell]:
    """It has one direction, and compiles for each shape, half a minute or more: few come about, usual batches first."""
    return sorted((shape for shape in grid if not shape.bidirectional), key=lambda shape: abs(shape.rows - 32))


FLASHRNN_CELLS = [
    *_cells("flashrnn", "inference", _for_flashrnn(FORWARD_GRID)),
    *_cells("flashrnn", "training", _for_flashrnn(TRAINING_GRID)),
]
