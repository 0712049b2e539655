"""The rows that the GPU script records, to JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.cells import Cell
from benchmarks.report import Row


@dataclass(frozen=True)
class GpuRow(Row):
    """A row whose section is one of `gpu.cells`.

    Attributes:
        on_the_gpu: seconds of ours and of its peers by name, without what the host takes to launch.
    """

    on_the_gpu: dict[str, float] = field(default_factory=dict)

    @property
    def step(self) -> float | None:
        """Seconds of ours a step on the GPU; None where that was not measured."""
        if self.shape is None or "ours" not in self.on_the_gpu:
            return None
        return self.on_the_gpu["ours"] / self.shape.steps


def write_row(row: GpuRow) -> dict[str, Any]:
    return asdict(row) | {"ratios": row.ratios}


def read_row(entry: dict[str, Any]) -> GpuRow:
    fields = {key: value for key, value in entry.items() if key != "ratios"}
    return GpuRow(**fields | {"shape": Cell(**fields["shape"])})
