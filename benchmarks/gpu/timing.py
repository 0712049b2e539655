"""How calls are timed on a GPU, by CUDA events; on a CPU, where the script is only tried, by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from benchmarks.timing import Call

MIN_ROUNDS, MAX_ROUNDS = 5, 51
# What is said of every number.
METHOD = (
    "CUDA events around one call; the median of rounds in turns; before each timed call the same call untimed, so that "
    "weights and inputs that fit are in the second-level cache. 'seconds': the GPU was idle before, so what the host "
    "takes to launch counts. 'on the GPU': the GPU was kept busy until the call was launched, so it does not."
)
_CYCLES_A_SECOND = 2e9  # at least: what keeps the GPU busy is measured in its cycles
_LONGEST_BUSY = 20e-3


@dataclass(frozen=True)
class Times:
    """Medians in seconds by name."""

    seconds: dict[str, float]
    on_the_gpu: dict[str, float]  # empty on a CPU
    rounds: int


def time_calls(calls: Mapping[str, Call], budget: float, device: torch.device) -> Times:
    """Times all of them in turns, for ``budget`` seconds or MIN_ROUNDS."""
    once = {}
    for name, call in calls.items():
        call()
        once[name] = max(min(_seconds(call, device) for _ in range(2)), 1e-6)
    # Each is called four times a round on a GPU: untimed and timed, from idle and from busy.
    cost = sum(4 * value + min(2 * value, _LONGEST_BUSY) + 1e-4 for value in once.values())
    rounds = int(min(max(budget / cost, MIN_ROUNDS), MAX_ROUNDS))
    idle: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            idle[name].append(_seconds(call, device))
            if device.type == "cuda":
                call()
                busy[name].append(_seconds(call, device, min(2 * once[name], _LONGEST_BUSY)))
    return Times(_medians(idle), _medians(busy), rounds)


def _medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items() if values}


def _seconds(call: Call, device: torch.device, busy: float = 0) -> float:
    """Of one call, on a GPU that was idle, or that had ``busy`` seconds of other work to do at first."""
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    if busy:
        torch.cuda._sleep(int(busy * _CYCLES_A_SECOND))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) * 1e-3
