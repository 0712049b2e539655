"""What the package sets out to reach, as data. Nothing here is asserted: the table prints it beside the measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchmarks.cells import (
    BF16,
    DEEP,
    DENSE,
    INT8_LONG,
    INT8_SHORT,
    INT8_WIDE_LONG,
    INT8_WIDE_SHORT,
    ONE_LONG,
    ONE_SHORT,
    RAGGED,
    WIDE_DENSE,
    WIDE_ONE,
    WIDE_RAGGED,
)
from benchmarks.peers import ONNX_RUNTIME, OPENVINO

if TYPE_CHECKING:
    from benchmarks.report import Row

# Cells that are no shapes of `cells.py`.
EPOCH_LOOP = "an epoch of rt, the model swapped in the user's loop"
EPOCH_TRAINER = "an epoch of rt, our trainer"
IMDB = "IMDb's shape, 5 epochs (extrapolated)"
MEMORY = f"peak memory of a step, {RAGGED}"


@dataclass(frozen=True)
class Target:
    """A ratio to a peer (peer / ours: above 1, ours is faster or smaller) to reach, or an amount to stay below.

    Attributes:
        section, mode: as of a row.
        cell: the row's cell, or None for all rows of the section.
        peer: the row's peer, or None for a bound of our own amount.
        bound: the ratio to reach; for our own amount, what it must be below, in the row's unit.
        over: "cell": in the cell, or in every cell of the section; "mean": in the geometric mean of the section.
    """

    section: str
    mode: str
    cell: str | None
    peer: str | None
    bound: float
    over: Literal["cell", "mean"] = "cell"

    def __str__(self) -> str:
        return f">= {self.bound:.4g}x" if self.peer else f"< {self.bound:g}"


def _of(cell: object, section: str = "text", **modes: dict[str, float]) -> list[Target]:
    return [
        Target(section, mode, str(cell), peer, bound) for mode, peers in modes.items() for peer, bound in peers.items()
    ]


def _each_and_mean(section: str, mode: str, peer: str, each: float | None, mean: float) -> list[Target]:
    one = [] if each is None else [Target(section, mode, None, peer, each)]
    return [*one, Target(section, mode, None, peer, mean, "mean")]


TARGETS = [
    *(
        target
        for cell in (ONE_SHORT, ONE_LONG)
        for target in _of(cell, inference={"padded": 3.5, ONNX_RUNTIME: 2.5}, training={"padded": 2.5})
    ),
    *_of(DENSE, inference={"padded": 2.2, ONNX_RUNTIME: 2.2, OPENVINO: 2.2}, training={"padded": 2.5}),
    *_of(RAGGED, inference={"padded": 4.5, "packed": 6}, training={"padded": 5, "packed": 10}),
    *_of(WIDE_ONE, inference={"padded": 1.8, ONNX_RUNTIME: 1.4}, training={"padded": 1.5}),
    *_of(WIDE_DENSE, inference={"padded": 1.6}, training={"padded": 1.6}),
    *_of(WIDE_RAGGED, inference={"padded": 3.5}, training={"padded": 3.5, "packed": 5}),
    *_of(DEEP, inference={"padded": 2.5, "packed": 3.5}, training={"padded": 3, "packed": 6}),
    *_of(
        BF16,
        "bf16",
        inference={"our float32": 1.6, "padded": 1.8, OPENVINO: 1.8},
        training={"our float32": 1.4},
    ),
    *(
        target
        for cell, ratio in ((INT8_SHORT, 2), (INT8_LONG, 2), (INT8_WIDE_SHORT, 3), (INT8_WIDE_LONG, 3))
        for target in _of(cell, "int8", inference={"our float32": ratio})
    ),
    *_each_and_mean("float", "inference", "padded", 0.97, 1.3),
    *_each_and_mean("float", "training", "padded", 0.97, 1.4),
    *_each_and_mean("packed", "inference", "packed", None, 3),
    *_each_and_mean("packed", "training", "packed", None, 4),
    Target("epoch", "training", EPOCH_LOOP, None, 1.6),
    Target("epoch", "training", EPOCH_TRAINER, None, 1.0),
    # At most 0.6 of what nn.LSTM takes.
    Target("memory", "training", MEMORY, "padded", 1 / 0.6),
]


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured, a ratio or our own amount, in so many cells."""

    target: Target
    measured: float
    met: bool
    cells: int = 1


def judge(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """The targets of which everything was measured, in their order; of "every cell", the least ratio."""
    verdicts = []
    for target in targets:
        found = [
            row
            for row in rows
            if (row.section, row.mode) == (target.section, target.mode) and target.cell in (None, row.cell)
        ]
        if target.peer is None:
            verdicts += [Verdict(target, row.ours, row.ours < target.bound) for row in found]
            continue
        ratios = [row.ratios[target.peer] for row in found if target.peer in row.ratios]
        if ratios:
            measured = geometric_mean(ratios) if target.over == "mean" else min(ratios)
            verdicts.append(Verdict(target, measured, measured >= target.bound, len(ratios)))
    return verdicts


def geometric_mean(ratios: Sequence[float]) -> float:
    """Of at least one positive number."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def target_of(row: Row, peer: str | None) -> Target | None:
    """The target of one line of the table: the row's own, or its section's for every cell."""
    for target in TARGETS:
        if (target.section, target.mode, target.peer, target.over) == (row.section, row.mode, peer, "cell") and (
            target.cell in (None, row.cell)
        ):
            return target
    return None
