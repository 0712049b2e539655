"""Ours beside its peers, in turns: one round of each, again and again, so that the machine's moods hit all alike.

Each cell is visited twice, minutes apart, and its rounds are taken together: a shared machine has slow spells of a
minute, in which ratios are others, too. (The same cell was seen at 1.79 and at 2.63 times in two runs.)

`make bench` runs this and prints a table of ratios; `pytest benchmarks -k "text and B1-"` runs a part.
"""

from __future__ import annotations

import statistics
from collections import defaultdict

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cells import BF16, FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, TEXT_CELLS, Cell
from benchmarks.report import Record, Row
from benchmarks.visits import Visit, visit

VISITS = 2
CELLS = [*TEXT_CELLS, BF16, *INT8_CELLS, *FLOAT_CELLS, *PACKED_CELLS]


class Clock:
    """Shows the seconds that another process has measured, for pytest-benchmark."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: list[float]) -> None:
        """Lets the next of them pass."""
        self.now += seconds.pop(0)


CLOCK = Clock()


@pytest.fixture(scope="module")
def visited() -> dict[tuple[Cell, str], list[Visit]]:
    """What each visit of a cell and mode has found so far."""
    return defaultdict(list)


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
@pytest.mark.parametrize("turn", range(1, VISITS + 1), ids=lambda turn: f"visit{turn}")
def test_speed(
    benchmark: BenchmarkFixture,
    record: Record,
    visited: dict[tuple[Cell, str], list[Visit]],
    turn: int,
    cell: Cell,
    mode: str,
) -> None:
    if cell.int8 and mode == "training":
        pytest.skip("int8 is for inference")
    found = visit(cell, mode == "training")
    ours = found.times["ours"]
    benchmark.pedantic(CLOCK.pass_by, (ours.copy(),), rounds=len(ours))
    benchmark.group = f"{cell.section}, {mode}"
    visits = visited[cell, mode]
    visits.append(found)
    if turn == VISITS:
        record(_row(cell, mode, visits))


def _row(cell: Cell, mode: str, visits: list[Visit]) -> Row:
    last = visits[-1]
    rounds = {name: [time for found in visits for time in found.times[name]] for name in last.times}
    medians = {name: statistics.median(times) for name, times in rounds.items()}
    return Row(
        section=cell.section,
        cell=str(cell),
        mode=mode,
        unit="s",
        ours=medians.pop("ours"),
        peers=medians,
        rounds=len(rounds["ours"]),
        shape=cell,
        positions=last.positions,
        distinct=last.distinct,
        notes=last.notes,
    )
