"""Ours beside nn.LSTM, in turns: one round of each, again and again, so that the machine's moods hit both alike.

`make bench` runs this and prints a table of ratios; `pytest benchmarks -k "B=1"` runs a part.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.cells import FLOAT_CELLS, TEXT_CELLS, Call, Cell, make_calls

SECONDS = 2.0  # for a cell, ours and its peers together
MIN_ROUNDS, MAX_ROUNDS = 11, 201


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("cell", [*TEXT_CELLS, *FLOAT_CELLS], ids=str)
def test_speed(benchmark: BenchmarkFixture, cell: Cell, mode: str) -> None:
    ours, peers = make_calls(cell, mode == "training")
    calls = [ours, *peers.values()]
    for call in calls * 3:
        call()
    once = sum(min(_seconds(call) for _ in range(3)) for call in calls)
    rounds = int(min(max(SECONDS / once, MIN_ROUNDS), MAX_ROUNDS))
    times: dict[str, list[float]] = {name: [] for name in peers}

    def run_peers() -> None:
        for name, peer in peers.items():
            times[name].append(_seconds(peer))

    # The peers run in the set-up of each round of ours, timed by ourselves.
    benchmark.pedantic(ours, setup=run_peers, rounds=rounds, iterations=1)
    benchmark.group = mode
    benchmark.extra_info.update(
        cell=str(cell),
        mode=mode,
        kind="text" if cell.tokens else "float",
        rounds=rounds,
        threads=torch.get_num_threads(),
        peers={name: statistics.median(values) for name, values in times.items()},
    )
