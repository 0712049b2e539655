"""Ours beside its peers, in turns: one round of each, again and again, so that the machine's moods hit all alike.

Each cell is visited twice, minutes apart, by new modules, and its rounds are taken together: a shared machine has slow
spells of a minute, in which ratios are others, too. (The same cell was seen at 1.79 and at 2.63 times in two runs.)

`make bench` runs this and prints a table of ratios; `pytest benchmarks -k "text and B1-"` runs a part.
"""

from __future__ import annotations

import contextlib
import statistics
from collections import defaultdict
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.calls import Contest, make_contest
from benchmarks.cells import BF16, FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, TEXT_CELLS, Cell
from benchmarks.report import Record, Row
from benchmarks.timing import ready, seconds, warm

# For a visit of a cell and mode, ours and its peers together.
SECONDS = {"text": 1.5, "bf16": 1.5, "int8": 1.5, "float": 0.7, "packed": 0.7}
MIN_ROUNDS, MAX_ROUNDS = 5, 101
VISITS = 2


CELLS = [*TEXT_CELLS, BF16, *INT8_CELLS, *FLOAT_CELLS, *PACKED_CELLS]


Times = dict[str, list[float]]  # seconds of the rounds, by name


@pytest.fixture(scope="module")
def visited() -> dict[tuple[Cell, str], list[Times]]:
    """What each visit of a cell and mode has found so far."""
    return defaultdict(list)


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
@pytest.mark.parametrize("visit", range(1, VISITS + 1), ids=lambda visit: f"visit{visit}")
def test_speed(
    benchmark: BenchmarkFixture,
    record: Record,
    visited: dict[tuple[Cell, str], list[Times]],
    visit: int,
    cell: Cell,
    mode: str,
) -> None:
    if cell.int8 and mode == "training":
        pytest.skip("int8 is for inference")
    contest = make_contest(cell, mode == "training")
    others = contest.others
    with contextlib.closing(others) if others else contextlib.nullcontext():
        times = _time(benchmark, cell, contest)
    benchmark.group = f"{cell.section}, {mode}"
    visits = visited[cell, mode]
    visits.append(times)
    if visit == VISITS:
        record(_row(cell, mode, contest, visits))


def _time(benchmark: BenchmarkFixture, cell: Cell, contest: Contest) -> Times:
    others = {name: partial(contest.others.seconds, name) for name in contest.others.names} if contest.others else {}
    prepare, pause = (ready, 1e-2) if others else (warm, 5e-3)  # some seconds for each call
    once: dict[str, float] = {}
    for name, call in [("ours", contest.ours), *contest.peers.items()]:
        ready(call, 0)
        call()
        once[name] = min(seconds(call) for _ in range(3))
    for name, timed in others.items():
        once[name] = min(timed() for _ in range(3))
    cost = sum(value + pause for value in once.values())
    rounds = int(min(max(SECONDS[cell.section] / cost, MIN_ROUNDS), MAX_ROUNDS))
    times: Times = {name: [] for name in [*contest.peers, *others]}

    def run_peers() -> None:
        for name, peer in contest.peers.items():
            prepare(peer, once[name])
            times[name].append(seconds(peer))
        for name, timed in others.items():
            times[name].append(timed())
        prepare(contest.ours, once["ours"])

    # The peers run in the set-up of each round of ours, timed by ourselves.
    benchmark.pedantic(contest.ours, setup=run_peers, rounds=rounds, iterations=1)
    return {"ours": benchmark.stats.stats.data, **times}


def _row(cell: Cell, mode: str, contest: Contest, visits: list[Times]) -> Row:
    rounds = {name: [time for times in visits for time in times[name]] for name in visits[0]}
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
        positions=contest.positions,
        distinct=contest.distinct,
        notes=contest.others.notes if contest.others else {},
    )
