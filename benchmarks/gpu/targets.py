"""What the CUDA kernels set out to reach on an H100, as data; judged in the page, asserted nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells import DENSE, RAGGED, Cell
from benchmarks.gpu.cells import (
    BF16_DENSE,
    BF16_ONE,
    BF16_RAGGED,
    BF16_WIDE_ONE,
    ONE,
    PERSISTENT,
    REVIEWS,
    WIDE_ONE,
    GpuCell,
    Mode,
    Section,
)
from benchmarks.targets import Target


@dataclass(frozen=True)
class StepTarget:
    """Microseconds on the GPU that a step may take at most, in one cell."""

    section: str
    mode: str
    cell: str
    bound: float

    def __str__(self) -> str:
        return f"<= {self.bound:g} us a step"


def _of(section: Section, mode: Mode, shapes: Sequence[Cell], **peers: float) -> list[Target]:
    return [
        Target(section, mode, GpuCell(section, shape, mode).name, peer, bound)
        for shape in shapes
        for peer, bound in peers.items()
    ]


TARGETS = [
    *_of("text", "inference", [DENSE, BF16_DENSE], padded=2),
    *_of("text", "inference", [RAGGED, BF16_RAGGED], packed=4, padded=3),
    *_of("one", "inference", [ONE, BF16_ONE, WIDE_ONE, BF16_WIDE_ONE], padded=2),
    Target("grid", "inference", None, "padded", 1.3, "mean"),
    Target("flashrnn", "inference", None, "FlashRNN", 1),
    *_of("persistent", "inference", [PERSISTENT], padded=1),
    Target("float", "inference", None, "padded", 0.97),
    *_of("classifier", "training", [REVIEWS], padded=2, packed=4),
    *_of("text", "training", [DENSE, BF16_DENSE], padded=1.5),
    *_of("text", "training", [RAGGED, BF16_RAGGED], packed=4, padded=2.5),
    Target("grid", "training", None, "padded", 1.3, "mean"),
    Target("packed", "training", None, "packed", 3, "mean"),
    Target("flashrnn", "training", None, "FlashRNN", 1),
    Target("float", "training", None, "padded", 0.97),
    *_of("memory", "training", [RAGGED], padded=1 / 0.6),  # at most 0.6 of what nn.LSTM takes
]
_STEPS: list[tuple[Section, Cell, float]] = [
    ("text", DENSE, 1.0),
    ("text", BF16_DENSE, 1.0),
    ("one", ONE, 0.8),
    ("one", BF16_ONE, 0.8),
    ("one", WIDE_ONE, 2.0),
    ("one", BF16_WIDE_ONE, 2.0),
]
STEP_TARGETS = [
    StepTarget(section, "inference", GpuCell(section, shape, "inference").name, bound)
    for section, shape, bound in _STEPS
]
