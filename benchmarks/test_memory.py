"""The peak memory of a training step on a batch of which more than half is padding."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import pytest

from benchmarks.memory_step import measure
from benchmarks.report import Record, Row
from benchmarks.targets import MEMORY

ROUNDS = 3


def test_memory_of_a_step(record: Record, unmeasured: Callable[[str, str], None]) -> None:
    if sys.platform != "linux":
        unmeasured(MEMORY, "needs Linux's /proc")
        pytest.skip("needs Linux's /proc")
    peaks = {name: statistics.median(measure(name) for _ in range(ROUNDS)) for name in ("ours", "padded", "packed")}
    record(Row("memory", MEMORY, "training", "MiB", peaks.pop("ours"), peaks, ROUNDS))
