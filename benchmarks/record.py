"""What is written beside every figure that is no row of `report.py`: machine, versions, commit, command, targets."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import git_commit
from textclf_fast.cli.machine import describe_machine
from textclf_fast.text.files import write_atomically


@dataclass(frozen=True)
class Goal:
    """What a figure should be at least, or at most.

    Attributes:
        what: is measured.
        measured, bound: in the same unit.
        least: whether the bound is the least, not the most.
    """

    what: str
    measured: float
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.least else self.measured <= self.bound


def write_record(path: Path, module: str, goals: list[Goal], measured: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all, and prints the goals."""
    record = {
        "machine": describe_machine(),
        "cores": os.cpu_count(),
        "commit": git_commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "targets": [asdict(goal) | {"met": goal.met} for goal in goals],
        "measured": measured,
    }
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    for goal in goals:
        sign, end = ">=" if goal.least else "<=", "" if goal.met else "  (not reached)"
        print(f"{goal.what}: {goal.measured:.4g}, target {sign} {goal.bound:g}{end}")


def percentiles(seconds: NDArray[np.float64] | list[float]) -> dict[str, float]:
    """In milliseconds."""
    points = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99, 100])
    return dict(zip(("p50_ms", "p90_ms", "p99_ms", "most_ms"), map(float, points), strict=True))
