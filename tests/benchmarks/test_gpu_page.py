"""The page of GPU measurements: from made-up reports, and the one that is there."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cells import DENSE
from benchmarks.gpu.cells import CELLS, FLASHRNN_CELLS, FORWARD_GRID, GpuCell
from benchmarks.gpu.page import PAGE, RESULTS, TITLES, read_reports, write_page
from benchmarks.gpu.record import GpuRow, read_row, write_row
from benchmarks.gpu.targets import STEP_TARGETS, TARGETS


def _row(cell: GpuCell, ours: float, step: float, **peers: float) -> GpuRow:
    busy = {"ours": step * cell.shape.steps, **peers}
    return GpuRow(cell.section, cell.name, cell.mode, "s", ours, peers, 9, cell.shape, 1, 0, {}, busy)


def _report(rows: list[GpuRow], **fields: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "dry_run": False,
        "date": "2030-01-02T03:04:05+00:00",
        "commit": "abc",
        "command": "run.sh",
        "seconds": 500,
        "machine": {"GPU": "GPU of a test", "SM clock": "1 MHz"},
        "machine_after": {"GPU": "GPU of a test", "SM clock": "2 MHz"},
        "parts": [{"name": "tests", "status": "ok", "seconds": 1, "tail": []}],
        "rows": [write_row(row) for row in rows],
        "unmeasured": {"a cell": "why not"},
    } | fields


def test_every_target_is_of_a_cell_that_is_measured() -> None:
    cells = {(cell.section, cell.mode, cell.name) for cell in [*CELLS, *FLASHRNN_CELLS]}
    assert len(cells) == len(CELLS) + len(FLASHRNN_CELLS)
    sections = {(section, mode) for section, mode, _ in cells}
    for target in [*TARGETS, *STEP_TARGETS]:
        assert (target.section, target.mode) in sections
        assert target.cell is None or (target.section, target.mode, target.cell) in cells
    assert {section for section, _ in sections} == set(TITLES)


def test_the_page_that_is_there_is_what_is_recorded() -> None:
    assert PAGE.read_text(encoding="utf-8") == write_page(read_reports(RESULTS))


@pytest.mark.parametrize("reports", [[], [_report([], dry_run=True)]])
def test_without_a_measurement_every_target_is_unmeasured(reports: list[dict[str, Any]]) -> None:
    page = write_page(reports)
    assert "Nothing was measured" in page
    assert page.count("| not measured |") == len(TARGETS) + len(STEP_TARGETS)
    assert "GPU of a test" not in page


def test_what_was_measured_is_judged_and_the_rest_is_not() -> None:
    text = GpuCell("text", DENSE, "inference")
    grid = [GpuCell("grid", shape, "inference") for shape in FORWARD_GRID[:2]]
    rows = [_row(text, 1e-3, 0.9e-6, padded=3e-3), *(_row(cell, 1e-3, 1e-6, padded=1.2e-3) for cell in grid)]
    page = write_page([_report(rows)])
    assert "Nothing was measured" not in page
    line = f"| Embedding + LSTM on token ids, inference | {text.name} "
    assert f"{line}| padded | >= 2x | 3.00x, reached |" in page
    assert f"{line}| ours, on the GPU | <= 1 us a step | 0.90 us, reached |" in page
    assert ">= 1.3x | **1.20x (2 cells), not reached** |" in page
    assert page.count("| not measured |") == len(TARGETS) + len(STEP_TARGETS) - 3
    assert "| SM clock | 1 MHz | 2 MHz |" in page
    assert "| a cell | why not |" in page


def test_a_row_survives_json() -> None:
    row = _row(CELLS[0], 1e-3, 1e-6, padded=2e-3)
    assert read_row(write_row(row)) == row
    assert row.step == pytest.approx(1e-6)
