"""Ours beside its peers, in turns: one round of each, again and again, so that the machine's moods hit all alike.

`make bench` runs this and prints a table of ratios; `pytest benchmarks -k "text and B1-"` runs a part.
"""

from __future__ import annotations

import contextlib
import statistics
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.calls import Contest, make_contest
from benchmarks.cells import BF16, FLOAT_CELLS, INT8_CELLS, PACKED_CELLS, TEXT_CELLS, Cell
from benchmarks.report import Record, Row
from benchmarks.timing import ready, seconds, warm

# For a cell and mode, ours and its peers together.
SECONDS = {"text": 3.0, "bf16": 3.0, "int8": 3.0, "float": 1.2, "packed": 1.2}
MIN_ROUNDS, MAX_ROUNDS = 9, 201


CELLS = [*TEXT_CELLS, BF16, *INT8_CELLS, *FLOAT_CELLS, *PACKED_CELLS]


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_speed(benchmark: BenchmarkFixture, record: Record, cell: Cell, mode: str) -> None:
    if cell.int8 and mode == "training":
        pytest.skip("int8 is for inference")
    contest = make_contest(cell, mode == "training")
    others = contest.others
    with contextlib.closing(others) if others else contextlib.nullcontext():
        _time(benchmark, record, cell, mode, contest)


def _time(benchmark: BenchmarkFixture, record: Record, cell: Cell, mode: str, contest: Contest) -> None:
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
    times: dict[str, list[float]] = {name: [] for name in [*contest.peers, *others]}

    def run_peers() -> None:
        for name, peer in contest.peers.items():
            prepare(peer, once[name])
            times[name].append(seconds(peer))
        for name, timed in others.items():
            times[name].append(timed())
        prepare(contest.ours, once["ours"])

    # The peers run in the set-up of each round of ours, timed by ourselves.
    benchmark.pedantic(contest.ours, setup=run_peers, rounds=rounds, iterations=1)
    benchmark.group = f"{cell.section}, {mode}"
    record(
        Row(
            section=cell.section,
            cell=str(cell),
            mode=mode,
            unit="s",
            ours=benchmark.stats.stats.median,
            peers={name: statistics.median(values) for name, values in times.items()},
            rounds=rounds,
            shape=cell,
            positions=contest.positions,
            distinct=contest.distinct,
            notes=contest.others.notes if contest.others else {},
        )
    )
